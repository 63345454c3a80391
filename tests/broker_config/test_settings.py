from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fedmq.broker_config.settings import BrokerSettings
from fedmq.schemas.errors import ConfigError


def test_the_default_is_a_broker_on_this_machine() -> None:
    settings = BrokerSettings()
    assert (settings.host, settings.port, settings.tls) == ("127.0.0.1", 1883, False)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://broker", "broker", 1883, False),
        ("mqtts://broker.example.org", "broker.example.org", 8883, True),
        ("mqtt://10.0.0.7:1884/", "10.0.0.7", 1884, False),
        ("mqtts://[::1]:8884", "::1", 8884, True),
    ],
)
def test_a_url_says_host_port_and_encryption(url: str, host: str, port: int, tls: bool) -> None:
    settings = BrokerSettings(url=url)
    assert (settings.host, settings.port, settings.tls) == (host, port, tls)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:1883", "is not the url of an MQTT broker; write mqtt://host:1883"),
        ("localhost", "is not the url"),
        ("http://localhost", "is not the url"),
        ("mqtt://", "is not the url"),
        ("mqtt://host:0", "is not the url"),
        ("mqtt://host:99999", "cannot be read"),
        ("mqtt://host:port", "cannot be read"),
        ("mqtt://[::1", "cannot be read"),
        ("mqtt://host:1883/path", "the broker url goes on after 'host:1883'; write"),
        ("mqtt://host?tls=1", "the broker url goes on after 'host'; write"),
    ],
)
def test_a_bad_url_is_one_clear_sentence(url: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BrokerSettings(url=url)
    (error,) = caught.value.errors()
    assert words in error["msg"]
    assert "\n" not in error["msg"]


def test_a_login_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        BrokerSettings(url="mqtt://ada:hunter2@host")
    (error,) = caught.value.errors(include_input=False)
    assert "broker.password_file" in error["msg"]
    assert "hunter2" not in error["msg"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"username": "ada", "password": "a", "password_file": "b"}, "keep one of them"),
        ({"password": "a"}, "without broker.username"),
        ({"password_file": "a"}, "without broker.username"),
        ({"ca_file": "ca.pem"}, "write mqtts://"),
        ({"url": "mqtts://host", "cert_file": "a.pem"}, "belong together"),
        ({"url": "mqtts://host", "key_file": "a.key"}, "belong together"),
        ({"keepalive_seconds": 4}, "greater than or equal to 5"),
        ({"mqtt_version": "4"}, "'auto', '5' or '3.1.1'"),
        ({"max_message_bytes": 1000}, "greater than or equal to 16384"),
        ({"adress": "x"}, "Extra inputs"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BrokerSettings.model_validate(changes)


def test_a_password_is_never_shown() -> None:
    settings = BrokerSettings.model_validate({"username": "ada", "password": "hunter2"})
    assert settings.read_password() == "hunter2"
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize("content", [b"hunter2 \n", b"hunter2 ", b"hunter2 \r\n", b"\xef\xbb\xbfhunter2 \n"])
def test_a_password_file_is_read_without_its_line_end_and_byte_order_mark(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert BrokerSettings(username="ada", password_file=file).read_password() == "hunter2 "


def test_a_password_file_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    for name, content in (("two-lines", b"a\nb\n"), ("empty", b"\n"), ("binary", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
    for name in ("missing", "two-lines", "empty", "binary"):
        with pytest.raises(ConfigError, match=name):
            BrokerSettings(username="ada", password_file=tmp_path / name).read_password()


def test_no_password_is_none() -> None:
    assert BrokerSettings().read_password() is None
