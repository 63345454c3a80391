"""Passwords, and the file in which Mosquitto keeps their hashes.

A line is `name:$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA512, salt and hash in base64. Mosquitto 2.0.11 takes salts
of 12 bytes only, later ones take these too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping

__all__ = ["new_password", "password_file", "password_line", "read_password_file", "verifies"]

_SALT_BYTES = 12
_HASH_BYTES = 64
# The broker does this work on its only thread, for everybody again when it reads the file anew. Passwords of 256 random
# bits need no more: there is nothing to guess.
_ITERATIONS = 1000
_SECRET_BYTES = 32
_LINE = re.compile(r"[^:\s]+:\$7\$[0-9]+\$[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]+=*")


def new_password() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def password_line(name: str, password: str) -> str:
    """The line, with a new salt, that lets `name` in with this password."""
    salt = os.urandom(_SALT_BYTES)
    digest = _digest(password, salt, _ITERATIONS)
    return f"{name}:$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verifies(line: str, password: str) -> bool:
    """Whether this line lets in with this password; False too for a line that is none."""
    try:
        _, kind, iterations, salt, digest = line.partition(":")[2].split("$")
        known = base64.b64decode(digest, validate=True)
        return kind == "7" and hmac.compare_digest(
            _digest(password, base64.b64decode(salt, validate=True), int(iterations)), known
        )
    except ValueError:
        return False


def read_password_file(content: bytes) -> dict[str, str]:
    """The line of each name. What is no such line is left out: the file may be another than it seems."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    return {line.partition(":")[0]: line for line in lines if _LINE.fullmatch(line)}


def password_file(lines: Mapping[str, str]) -> bytes:
    """The file with these lines."""
    return "".join(f"{lines[name]}\n" for name in sorted(lines)).encode()


def _digest(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, _HASH_BYTES)
