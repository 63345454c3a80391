"""Every topic with every login, publishing and subscribing, on a real Mosquitto with the generated configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import security_page
from tests.security.access import ACCOUNTS, FENCE, TOPICS, VERSION, Access, access, logins, measured, table
from tests.security.ground import EYE, GONE, Ground, ground, seen_between
from tests.security.peers import VERSIONS

pytestmark = pytest.mark.broker

PUBLIC = {f"fedmq/f/{name}" for name in ("aggregator", "model", "model/0", "model/0/7", "layout", "progress")}
EVERYBODY = ("dev-1", "dev-2", GONE)


def expected(account: str) -> Access:
    """What the protocol's page says that an account reads and writes."""
    if account == "aggregator":
        heard = {f"fedmq/f/{kind}/{device}" for kind in ("update", "status") for device in EVERYBODY}
        replies = {f"fedmq/f/reply/{device}" for device in EVERYBODY}
        own = {f"fedmq/f/{name}" for name in ("aggregator", "model", "progress")}
        return Access(None, frozenset(heard | own), frozenset(PUBLIC | replies | {f"fedmq/f/status/{GONE}"}))
    if account == "operator":
        statuses = {f"fedmq/f/status/{device}" for device in EVERYBODY}
        seen = {"fedmq/f/aggregator", "fedmq/f/progress"}
        return Access(None, frozenset(statuses | seen), frozenset({f"fedmq/f/status/{GONE}", f"fedmq/f/update/{GONE}"}))
    reads = PUBLIC | {f"fedmq/f/reply/{account}", f"fedmq/f/status/{account}"}
    return Access(None, frozenset(reads), frozenset({f"fedmq/f/update/{account}", f"fedmq/f/status/{account}"}))


@pytest.fixture(scope="module")
def found(at: Ground) -> dict[str, Access]:
    return measured(at)


def test_every_account_may_do_what_the_protocol_says_and_nothing_else(found: dict[str, Access]) -> None:
    assert {account: found[account] for account in ACCOUNTS} == {account: expected(account) for account in ACCOUNTS}


def test_nobody_else_comes_in(found: dict[str, Access]) -> None:
    assert {name for name, one in found.items() if one.refusal is None} == set(ACCOUNTS)
    assert len(found) > len(ACCOUNTS) + 6


def test_the_table_in_the_security_page_is_what_was_found(found: dict[str, Access]) -> None:
    assert security_page.written_table() == table(found), "write it again: python -m tests.security_page"


def test_mqtt_3_1_1_gives_nobody_more(at: Ground, found: dict[str, Access]) -> None:
    def known(all_of_them: dict[str, Access]) -> dict[str, Access]:
        return {name: one for name, one in all_of_them.items() if one.refusal is None}

    assert known(measured(at, "3.1.1")) == known(found)


@pytest.mark.parametrize("qos", [0, 2])
def test_another_quality_of_service_gives_a_device_no_more(at: Ground, qos: int) -> None:
    assert access(at, at.login("dev-1"), version="3.1.1", qos=qos) == expected("dev-1")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("account", ["dev-1", "operator"])
def test_a_filter_with_wildcards_brings_nothing_but_what_may_be_read(at: Ground, account: str, version: str) -> None:
    filters = ("#", "+/#", "fedmq/#", "fedmq/+/+/+", "/#", "$SYS/#", "+/+/+", "$share/all/#", "$share/all/fedmq/f/+/+")
    with at.peer(EYE) as eye, at.peer(account, version=version) as peer:
        for retained in (False, True):
            peer.got.clear()
            if retained:
                eye.send(TOPICS, b"kept", retain=True)
            for each in filters:
                peer.subscribe(each)
            eye.send(TOPICS, b"read")
            eye.publish(FENCE, b"fence")
            peer.waits_for(lambda got: got.payload == b"fence")
            # Mosquitto 2.0.11 may send what came last before what still waits for acknowledgements.
            for topic in expected(account).reads:
                peer.waits_for(lambda got: (got.topic, got.payload) == (topic, b"read"))  # noqa: B023 (used at once)
            assert {got.topic for got in peer.got} <= expected(account).reads
        eye.send(TOPICS, b"", retain=True)


def test_a_retained_message_stays_only_where_a_device_may_write(at: Ground) -> None:
    with at.peer("dev-1") as peer:
        peer.send((*TOPICS, VERSION), b"evil", retain=True)
    with at.peer(EYE) as eye:
        kept = seen_between(eye, lambda: eye.subscribe("#"))
        assert {got.topic for got in kept if got.payload == b"evil"} == expected("dev-1").writes
        for got in kept:
            eye.publish(got.topic, b"", retain=True)
        eye.subscribe(VERSION)
        eye.waits_for(lambda got: got.topic == VERSION)
        assert [got for got in eye.got if got.topic == VERSION and got.payload == b"evil"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_last_will_is_published_only_where_a_device_may_write(at: Ground, version: str) -> None:
    def die_everywhere() -> None:
        for topic in TOPICS:
            with at.peer("dev-1", version=version, will=topic) as peer:
                peer.die()
        # Its name is free again only when the broker has buried the last of them.
        with at.peer("dev-1", version=version):
            pass

    with at.peer(EYE) as eye:
        eye.subscribe("#")
        seen = seen_between(eye, die_everywhere)
        assert {got.topic for got in seen if got.payload == b"will"} == expected("dev-1").writes
        for got in seen:
            eye.publish(got.topic, b"", retain=True)


@pytest.mark.parametrize(
    ("login", "more"),
    [
        ("certificate", {"certificate, no password", "wrong password"}),  # the certificate is the login
        ("password", {"password, no certificate", "revoked certificate", "other authority"}),  # so is the password
    ],
)
def test_the_other_logins_let_in_whom_they_should_and_give_the_same_rights(
    mosquitto_installed: None, tmp_path: Path, login: str, more: set[str]
) -> None:
    with ground(tmp_path, login) as at:
        found = {name: access(at, one) for name, one in logins(at).items()}
    inside = {name: one for name, one in found.items() if one.refusal is None}
    assert set(inside) == {*ACCOUNTS, *more}
    for name, one in inside.items():
        assert one == expected(name if name in ACCOUNTS else "dev-1")


def without(line: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert text.count(line) == 1
        return text.replace(line, "")

    return change


@pytest.mark.parametrize(
    ("line", "who"),
    [
        ("crlfile revoked.pem\n", "revoked certificate"),
        ("require_certificate true\n", "password, no certificate"),
    ],
)
def test_with_one_line_less_the_configuration_would_let_somebody_in(
    mosquitto_installed: None, tmp_path: Path, line: str, who: str
) -> None:
    with ground(tmp_path, configuration=without(line)) as at:
        assert access(at, logins(at)[who]).refusal is None
