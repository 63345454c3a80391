"""Clients that call themselves what they are not."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from tests.brokers import PATIENCE
from tests.security.access import access
from tests.security.ground import EYE, Ground, ground, seen_between
from tests.security.peers import VERSIONS, Peer
from tests.security.test_access import expected, without

pytestmark = pytest.mark.broker

CLIENT_IDS = (
    *("dev-2", "f-dev-2", "f.dev-2", "f-aggregator", "f.aggregator", "f.operator", "aggregator"),
    *("dev-2/evil", "f.dev-2/evil", "#", "+", "f.+", "f.#", "$SYS", "../dev-2", "dev-2 ", "é" * 30_000),
)
USERNAMES = (
    *("dev-1", "dev-2", "f.dev-2", "f.aggregator", "aggregator", "f.dev-1/evil", "dev-1/evil", "f.dev-1 ", "F.DEV-1"),
    *("#", "+", "f.#", "f.+", "f", "f.", ".dev-1", "f.dev-1:", "f.dev-1\n", "eve", "x" * 60_000),
)


@pytest.mark.parametrize("version", VERSIONS)
def test_whatever_a_device_calls_itself_it_is_who_logged_in(at: Ground, version: str) -> None:
    for client_id in (*CLIENT_IDS, ""):
        found = access(at, at.login("dev-1"), client_id, version)
        # An empty id may be refused; it brings nothing else in any case.
        assert found == expected("dev-1") or (client_id == "" and found.refusal), client_id[:20]


@pytest.mark.parametrize("version", VERSIONS)
def test_nobody_takes_anothers_connection(at: Ground, version: str) -> None:
    with at.peer("dev-2") as other, at.peer("aggregator") as aggregator:
        for client_id in CLIENT_IDS:
            with at.peer("dev-1", client_id, version=version) as peer:
                assert peer.there
                peer.subscribe("fedmq/f/model")
        assert other.publish("fedmq/f/status/dev-2", b"here")
        assert aggregator.publish("fedmq/f/model", b"here")


def test_without_the_name_in_place_of_the_client_id_it_would(mosquitto_installed: None, tmp_path: Path) -> None:
    with (
        ground(tmp_path, configuration=without("use_username_as_clientid true\n")) as at,
        at.peer("dev-2") as other,
        at.peer("dev-1", other.client_id),
    ):
        assert other.is_cut_off()


def test_even_then_nobody_comes_in_without_a_name(mosquitto_installed: None, tmp_path: Path) -> None:
    """Two lines keep them out, and each is enough."""
    with ground(tmp_path, configuration=without("use_username_as_clientid true\n")) as at:
        nobody = replace(at.login("dev-1"), username=None, password=None)
        with Peer(nobody, at.port, "whoever") as peer:
            assert peer.refusal is not None


def test_rules_by_client_id_would_believe_what_a_client_calls_itself(mosquitto_installed: None, tmp_path: Path) -> None:
    def by_client_id(text: str) -> str:
        # As they are for dev-1 and dev-2, but with %c.
        without_devices = re.sub(r"user f\.dev-[12]\n(?:topic .*\n)+", "", text)
        return without_devices + "\npattern write fedmq/f/update/%c\npattern read fedmq/f/progress\n"

    with ground(tmp_path, rules=by_client_id, configuration=without("use_username_as_clientid true\n")) as at:
        found = access(at, at.login("dev-1"), "dev-2")
    assert "fedmq/f/update/dev-2" in found.writes


@pytest.mark.parametrize("version", VERSIONS)
def test_a_name_that_is_not_the_accounts_own_does_not_come_in(at: Ground, version: str) -> None:
    for username in USERNAMES:
        with Peer(replace(at.login("dev-1"), username=username), at.port, "whoever", version=version) as peer:
            assert peer.refusal is not None, username[:20]


def test_two_with_one_account_take_the_connection_from_each_other_whatever_they_call_themselves(at: Ground) -> None:
    with at.peer("dev-1", "one") as first, at.peer("dev-1", "two") as second:
        assert first.is_cut_off()
        assert second.there


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_older_tls_is_refused(at: Ground) -> None:
    def shake_hands(newest: ssl.TLSVersion) -> str | None:
        context = at.login("dev-1").context()
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # which OpenSSL needs to offer the old ones at all
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
        with (
            socket.create_connection(("127.0.0.1", at.port), PATIENCE) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as tls,
        ):
            return tls.version()

    assert shake_hands(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        shake_hands(ssl.TLSVersion.TLSv1_1)


def test_a_packet_above_the_limit_ends_the_connection_and_nothing_else(at: Ground) -> None:
    with at.peer(EYE) as eye, at.peer("dev-1") as peer:
        eye.subscribe("#")
        seen = seen_between(eye, lambda: peer.publish("fedmq/f/update/dev-1", bytes(122_880 + 7_168)))
        assert [len(got.payload) for got in seen] == [130_048]
        assert peer.publish("fedmq/f/update/dev-1", bytes(131_072)) is None
        assert peer.is_cut_off()
        assert seen_between(eye, lambda: None) == []
