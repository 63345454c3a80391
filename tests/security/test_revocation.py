"""A device that is revoked while it is connected, in each kind of login; and what the broker makes of other changes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.revoked_topics import clear_topics
from fedmq.schemas.errors import TransportError
from fedmq.settings import load_settings
from tests.brokers import PATIENCE
from tests.security.access import FENCE
from tests.security.ground import EYE, FEDERATION, Ground, ground, seen_between, settle
from tests.security.peers import Login, Peer
from tests.system.processes import until

pytestmark = pytest.mark.broker


@pytest.fixture(params=["both", "password", "certificate"])
def here(mosquitto_installed: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Ground]]:
    with ground(tmp_path, request.param) as made:
        yield request.param, made


def change(at: Ground, request: Request) -> None:
    """Provision, and keep the eye's rules, which are none of the generated ones."""
    provision(at.folder, request, datetime.now(UTC))
    rules = at.folder / "broker" / "rules"
    rules.write_text(rules.read_text() + f"\nuser {FEDERATION}.{EYE}\ntopic readwrite #\n")


def test_a_connection_of_a_device_that_is_revoked_is_worth_nothing(here: tuple[str, Ground], tmp_path: Path) -> None:
    login, at = here
    bundle = shutil.copytree(at.folder / "devices" / "dev-2", tmp_path / "dev-2")
    stolen = Login.of(Path(bundle), "f.dev-2")
    status, update = "fedmq/f/status/dev-2", "fedmq/f/update/dev-2"
    with at.peer(EYE) as eye, at.peer("dev-1") as other, at.peer("dev-2", will=status) as peer:
        eye.subscribe("fedmq/#", "eye/#")
        for each in (peer, other):
            each.subscribe("fedmq/f/model", FENCE)
        assert peer.publish(status, b"online", retain=True)
        assert peer.publish(update, b"for ever", retain=True)
        eye.waits_for(lambda got: got.payload == b"for ever")
        change(at, Request(revoke=("dev-2",)))
        assert "rules, passwords, revoked.pem changed" in settle(at.broker)
        # It is done only when the broker has read its rules again.
        clear_topics(load_settings(at.folder / "operator" / "federation.toml", environment={}), ["dev-2"], 10.0)
        eye.waits_for(lambda got: (got.topic, got.payload) == (status, b""))
        eye.waits_for(lambda got: (got.topic, got.payload) == (update, b""))

        def try_everything() -> None:
            if login == "certificate":
                # Mosquitto keeps the connection, and gives it nothing.
                assert peer.there
                assert peer.publish("fedmq/f/update/dev-2", b"evil") is False
                assert peer.publish(status, b"evil", retain=True) is False
                eye.publish("fedmq/f/model", b"secret")
                other.waits_for(lambda got: got.payload == b"secret")
                peer.die()
            else:
                assert peer.is_cut_off()
            with Peer(stolen, at.port, "f-dev-2") as again:
                assert again.refusal is not None

        seen = seen_between(eye, try_everything)
        assert {got.payload for got in seen} <= {b"secret"}  # no last will either
        assert [got.topic for got in peer.got] == []
        assert other.there
        assert other.publish("fedmq/f/update/dev-1", b"as ever")
        kept = seen_between(eye, lambda: eye.subscribe(status, update))
        assert [got for got in kept if got.topic in (status, update)] == []


def test_nothing_is_cleared_before_the_broker_knows_of_the_revocation(at: Ground) -> None:
    settings = load_settings(at.folder / "operator" / "federation.toml", environment={})
    with pytest.raises(TransportError, match="it has not read its rules again"):
        clear_topics(settings, ["dev-1"], 1.0)
    clear_topics(settings, ["gone"], 10.0)


@pytest.mark.parametrize("name", ["passwords", "rules", "revoked.pem"])
def test_each_file_counts_for_what_the_security_page_says(mosquitto_installed: None, tmp_path: Path, name: str) -> None:
    with ground(tmp_path) as at:
        broker = at.folder / "broker"
        bundle = shutil.copytree(at.folder / "devices" / "dev-2", tmp_path / "dev-2")
        others = {other: (broker / other).read_bytes() for other in ("passwords", "rules", "revoked.pem")}
        del others[name]
        with at.peer(EYE) as eye, at.peer("dev-2", will="fedmq/f/status/dev-2") as peer:
            eye.subscribe("#")
            change(at, Request(revoke=("dev-2",)))
            for other, before in others.items():
                (broker / other).write_bytes(before)
            assert name in settle(at.broker)

            own = Login.of(Path(bundle), "f.dev-2")
            # Its certificate with another's name, which takes no connection of its own.
            certificate = replace(at.login("dev-1"), identity=own.identity)

            def comes_in(login: Login) -> bool:
                with Peer(login, at.port, "another") as again:
                    return again.there

            def works() -> bool:
                return peer.publish("fedmq/f/update/dev-2", b"update") is True

            if name == "passwords":
                assert peer.is_cut_off()
                assert not comes_in(own)
                assert "fedmq/f/status/dev-2" not in {got.topic for got in seen_between(eye, lambda: None)}
                assert "fedmq/f/status/dev-2" not in {got.topic for got in eye.got}
            elif name == "rules":
                until(lambda: not works(), "the rules to be read again")
                assert peer.there
            else:
                until(lambda: not comes_in(certificate), "the list to be read again")
                assert works()


def test_renewed_certificates_are_taken_while_all_goes_on_and_the_old_ones_are_too(
    mosquitto_installed: None, tmp_path: Path
) -> None:
    with ground(tmp_path) as at, at.peer("dev-1") as peer:
        kept = tmp_path / "old.pem"
        shutil.copy(at.folder / "devices" / "dev-2" / "identity.pem", kept)
        change(at, Request(renew_all=True))
        assert "identity.pem" in settle(at.broker)
        login = at.login("dev-2")
        assert login.identity is not None
        assert login.identity.read_bytes() != kept.read_bytes()
        own = (at.folder / "broker" / "identity.pem").read_text().partition("-----END PRIVATE KEY-----\n")[2]
        until(lambda: served(at, login) == ssl.PEM_cert_to_DER_cert(own), "the broker to show its new certificate")
        for each in (login, replace(login, identity=kept)):
            with Peer(each, at.port, "f-dev-2") as again:
                assert again.there
        assert peer.publish("fedmq/f/status/dev-1", b"still here")


def served(at: Ground, login: Login) -> bytes | None:
    """The certificate that the broker shows."""
    with (
        socket.create_connection(("127.0.0.1", at.port), PATIENCE) as sock,
        login.context().wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        return tls.getpeercert(binary_form=True)


def test_an_added_device_comes_in_without_a_restart(mosquitto_installed: None, tmp_path: Path) -> None:
    with ground(tmp_path) as at, at.peer("dev-1") as peer:
        running = at.broker.running
        change(at, Request(add=("dev-9",)))
        assert "rules, passwords changed: Mosquitto has read its files again" in settle(at.broker)
        with at.peer("dev-9") as added:
            assert added.publish("fedmq/f/update/dev-9", b"hello")
        assert peer.there
        assert at.broker.running is running


def test_another_configuration_is_a_restart_that_keeps_what_is_retained(
    mosquitto_installed: None, tmp_path: Path
) -> None:
    with ground(tmp_path) as at:
        with at.peer("aggregator") as aggregator:
            assert aggregator.publish("fedmq/f/model", b"kept", retain=True)
        running = at.broker.running
        change(at, Request(changes={"memory_bytes": 1 << 29}))
        assert "Mosquitto was started again" in settle(at.broker)
        assert at.broker.running.pid != running.pid
        assert not running.running
        with at.peer("dev-1") as peer:
            peer.subscribe("fedmq/f/model")
            peer.waits_for(lambda got: got.payload == b"kept" and got.retained)


def test_what_the_broker_keeps_on_the_disk_is_for_its_owner_only(mosquitto_installed: None, tmp_path: Path) -> None:
    with ground(tmp_path) as at:
        with at.peer("aggregator") as aggregator:
            assert aggregator.publish("fedmq/f/model", b"a secret model", retain=True)
        os.kill(at.broker.running.pid, signal.SIGTERM)
    kept = [path for path in (at.folder / "broker").rglob("*") if path.is_file()]
    assert at.folder / "broker" / "data" / "mosquitto.db" in kept
    assert at.folder / "broker" / "broker.log" in kept
    assert [path for path in kept if path.stat().st_mode & 0o077] == []
