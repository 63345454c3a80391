"""The Ed25519 keys that messages are signed with; see `fedmq.schemas.signing` for what a signature covers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmq.schemas.errors import ConfigError

__all__ = ["KEYS_TRUSTED", "new_signing_key", "public_key", "with_key"]

KEYS_TRUSTED = 2
"""Of one account, the newest: so the one before works until its owner has the new one. A second renewal ends it."""


def new_signing_key() -> bytes:
    """A new private key, PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key(pem: bytes, where: Path) -> str:
    """The public key of a private one, 64 hex digits; raises ConfigError if there is none in it."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: it holds no private key in PEM; remove it, and the next run makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{where}: its key is of another kind than Ed25519; remove it, and the next run makes one")
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex()


def with_key(known: Iterable[str], key: str | None, *, all_stay: bool = False) -> tuple[str, ...]:
    """The keys to trust, oldest first, when this one is the newest; `all_stay` leaves in what would be one too many."""
    others = tuple(one for one in known if one != key)
    keys = others if key is None else (*others, key)
    return keys if all_stay else keys[-KEYS_TRUSTED:]
