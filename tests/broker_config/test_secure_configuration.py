"""Which configurations are as safe as the generated one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import get_args

import pytest

from fedmq.broker_config.provision.mosquitto_configuration import configuration
from fedmq.broker_config.provision.record import Login, Record
from fedmq.broker_config.secure_configuration import SecureConfiguration, read_configuration
from fedmq.schemas.errors import ConfigError, UnusableError

LOGINS: tuple[Login, ...] = get_args(Login)
BOTH = configuration(Record(federation="f", port=8884, listen="127.0.0.1")).decode()


def read(tmp_path: Path, text: str, *logins: Login) -> SecureConfiguration:
    path = tmp_path / "mosquitto.conf"
    path.write_text(text)
    return read_configuration(path, logins or LOGINS)


@pytest.mark.parametrize("login", LOGINS)
def test_what_is_generated_is_safe_and_another_login_is_not_what_was_decided(tmp_path: Path, login: Login) -> None:
    text = configuration(Record(federation="f", login=login)).decode()
    found = read(tmp_path, text)
    assert found == SecureConfiguration(text.encode(), 8883, "0.0.0.0", None)
    assert [other for other in LOGINS if read(tmp_path, text, other).weakness is None] == [login]


def test_limits_and_comments_are_free(tmp_path: Path) -> None:
    text = BOTH.replace("max_connections 256", "max_connections 9").replace("log_type notice\n", "# mine\n\n")
    found = read(tmp_path, text)
    assert (found.port, found.listen, found.weakness) == (8884, "127.0.0.1", None)


@pytest.mark.parametrize(
    "name",
    [
        *("allow_anonymous", "allow_zero_length_clientid", "use_username_as_clientid", "acl_file", "password_file"),
        *("require_certificate", "crlfile", "cafile", "certfile", "keyfile", "tls_version"),
    ],
)
def test_without_one_line_it_is_weak(tmp_path: Path, name: str) -> None:
    kept = [line for line in BOTH.split("\n") if not line.startswith(f"{name} ")]
    assert len(kept) == BOTH.count("\n")
    weakness = read(tmp_path, "\n".join(kept), "both").weakness
    assert weakness is not None
    assert f"(`{name} " in weakness
    assert "is missing" in weakness


@pytest.mark.parametrize(
    "line",
    [
        *("allow_anonymous true", "listener 1883", "port 1883", "include_dir more", "per_listener_settings true"),
        *("plugin evil.so", "connection elsewhere", " allow_anonymous true", "acl_file others"),
    ],
)
def test_with_one_line_more_it_is_weak(tmp_path: Path, line: str) -> None:
    weakness = read(tmp_path, f"{BOTH}{line}\n").weakness
    assert weakness is not None
    assert f"`{line.strip()}` was added" in weakness


def test_in_another_order_it_is_weak(tmp_path: Path) -> None:
    """TLS counts for the listener above it."""
    line = "listener 8884 127.0.0.1\n"
    weakness = read(tmp_path, BOTH.replace(line, "") + line).weakness
    assert weakness is not None
    assert "its lines are in another order" in weakness


@pytest.mark.parametrize("line", ["listener", "listener x", "listener 0", "listener 65536", "listener 1883 localhost"])
def test_a_listener_that_cannot_be_is_one_sentence(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=f"mosquitto.conf: '{line}': expected `listener`, a port and the IP address"):
        read(tmp_path, BOTH.replace("listener 8884 127.0.0.1", line))
    with pytest.raises(ConfigError, match="it has no listener"):
        read(tmp_path, "")


def test_a_file_that_its_user_may_not_read_is_a_mistake_that_no_restart_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "mosquitto.conf"
    path.write_text(BOTH)
    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(UnusableError, match=r"mosquitto.conf: it cannot be read: Permission denied"):
        read_configuration(path, LOGINS)
