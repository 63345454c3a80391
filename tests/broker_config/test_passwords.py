"""The password file, as Mosquitto reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.broker_config.provision.passwords import (
    new_password,
    password_file,
    password_line,
    read_password_file,
    verifies,
)
from fedmq.transport.link import Disconnected
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import RunMosquitto, expect, opened


@pytest.mark.broker
@pytest.mark.parametrize("password", ["right", new_password(), "ü $7$ : \t", "x" * 5000])
def test_mosquitto_lets_in_with_the_password_and_with_no_other(
    run_mosquitto: RunMosquitto, tmp_path: Path, password: str
) -> None:
    file = tmp_path / "passwords"
    file.write_bytes(password_file({name: password_line(name, password) for name in ("f.dev-1", "f.dev-2")}))
    url = run_mosquitto(f"password_file {file}", "allow_anonymous false")
    port = int(url.rpartition(":")[2])
    for name in ("f.dev-1", "f.dev-2"):
        opened(MqttLink(MqttSettings(port=port, username=name, password=password), "whoever")).close()
    for name, wrong in (("f.dev-1", password + " "), ("f.dev-1", ""), ("f.dev-3", password), ("f.dev", password)):
        link = MqttLink(MqttSettings(port=port, username=name, password=wrong), "whoever")
        link.open()
        assert "refused" in expect(link, Disconnected).reason
        link.close()


def test_a_line_is_another_each_time_and_verifies_its_own_password_only() -> None:
    one, two = password_line("a", "right"), password_line("a", "right")
    assert one != two
    assert one.startswith("a:$7$1000$")
    assert len(one.split("$")[3]) == 16  # twelve bytes in base64
    assert verifies(one, "right")
    assert verifies(two, "right")
    assert not verifies(one, "wrong")


@pytest.mark.parametrize(
    "line", ["", "a", "a:", "a:$6$salt$hash", "a:$7$x$AAAA$AAAA", "a:$7$1$!$AAAA", "a:$7$0$AAAA$AAAA", "a:$7$1$AAAA"]
)
def test_a_line_that_is_none_verifies_nothing(line: str) -> None:
    assert not verifies(line, "")


def test_a_password_is_256_random_bits() -> None:
    passwords = {new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert {len(password) for password in passwords} == {43}


def test_a_file_is_read_as_it_was_written() -> None:
    lines = {name: password_line(name, name) for name in ("b", "a", "c")}
    assert read_password_file(password_file(lines)) == lines
    assert read_password_file(b"") == {}
