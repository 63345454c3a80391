"""What stands in the files that are generated for Mosquitto; what it makes of them is in tests/security."""

from __future__ import annotations

import pytest

from fedmq.broker_config.provision.mosquitto_configuration import configuration
from fedmq.broker_config.provision.mosquitto_rules import rules
from fedmq.broker_config.provision.record import Account, Login, Record


def options(record: Record) -> dict[str, str]:
    """Every option with its value; each stands there once."""
    lines = [line.split(maxsplit=1) for line in configuration(record).decode().splitlines() if line and line[0] != "#"]
    found = {name: value for name, value in lines if name != "log_type"}
    assert len(found) == len([name for name, _ in lines if name != "log_type"])
    return found


def test_every_limit_is_set() -> None:
    found = options(Record(federation="f", memory_bytes=1 << 29))
    assert found["max_packet_size"] == "131072"
    assert found["max_inflight_messages"] == "200"
    assert found["max_queued_messages"] == "5000"
    assert found["max_queued_bytes"] == str(64 << 20)
    assert found["max_keepalive"] == "1200"
    assert found["memory_limit"] == str(1 << 29)
    assert found["persistence"] == "true"
    assert found["autosave_interval"] == "15"
    assert found["persistent_client_expiration"] == "7d"


@pytest.mark.parametrize(("devices", "connections"), [(1, 256), (126, 256), (127, 512), (1000, 2048)])
def test_there_is_room_for_two_connections_of_everybody(devices: int, connections: int) -> None:
    accounts = {f"d{number}": Account() for number in range(devices)}
    assert options(Record(federation="f").with_accounts(accounts))["max_connections"] == str(connections)


@pytest.mark.parametrize(
    ("login", "asks"),
    [
        ("both", {"password_file", "require_certificate", "crlfile"}),
        ("certificate", {"require_certificate", "use_identity_as_username", "crlfile"}),
        ("password", {"password_file"}),
    ],
)
def test_each_login_asks_for_what_it_is_called(login: Login, asks: set[str]) -> None:
    found = options(Record(federation="f", login=login))
    questions = {"password_file", "require_certificate", "use_identity_as_username", "crlfile"}
    assert found.keys() & questions == asks
    assert found["allow_anonymous"] == "false"
    assert found["use_username_as_clientid"] == "true"


def test_no_right_is_a_pattern_and_none_is_for_everybody() -> None:
    lines = rules(Record(federation="f").with_accounts({"dev-1": Account()})).decode().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "user f.aggregator"  # what stands before the first is for those without a name
    assert {line.split()[0] for line in lines} == {"user", "topic"}
    assert {line.split()[1] for line in lines if line.startswith("topic")} == {"read", "write", "readwrite"}
