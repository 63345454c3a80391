"""A device that is revoked while it is connected, in each kind of login; and what the broker makes of other changes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.revoked_status import clear_statuses
from fedmq.schemas.errors import TransportError
from fedmq.settings import load_settings
from tests.security.access import FENCE
from tests.security.ground import EYE, FEDERATION, Ground, ground, seen_between, settle
from tests.security.peers import Login, Peer

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
    status = "fedmq/f/status/dev-2"
    with at.peer(EYE) as eye, at.peer("dev-1") as other, at.peer("dev-2", will=status) as peer:
        eye.subscribe("fedmq/#", "eye/#")
        for each in (peer, other):
            each.subscribe("fedmq/f/model", FENCE)
        assert peer.publish(status, b"online", retain=True)
        eye.waits_for(lambda got: got.payload == b"online")
        change(at, Request(revoke=("dev-2",)))
        assert "rules, passwords, revoked.pem changed" in settle(at.broker)
        # It is done only when the broker has read its rules again.
        clear_statuses(load_settings(at.folder / "operator" / "federation.toml", environment={}), ["dev-2"], 10.0)
        eye.waits_for(lambda got: (got.topic, got.payload) == (status, b""))

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
        kept = seen_between(eye, lambda: eye.subscribe(status))
        assert [got for got in kept if got.topic == status] == []


def test_a_status_is_not_cleared_before_the_broker_knows_of_the_revocation(at: Ground) -> None:
    settings = load_settings(at.folder / "operator" / "federation.toml", environment={})
    with pytest.raises(TransportError, match="it has not read its rules again"):
        clear_statuses(settings, ["dev-1"], 1.0)
    clear_statuses(settings, ["gone"], 10.0)


def test_a_renewed_certificate_of_the_broker_and_of_a_device_is_taken_while_all_goes_on(
    mosquitto_installed: None, tmp_path: Path
) -> None:
    with ground(tmp_path) as at, at.peer("dev-1") as peer:
        old = at.login("dev-2")
        change(at, Request(renew_all=True))
        assert "identity.pem" in settle(at.broker)
        assert peer.publish("fedmq/f/status/dev-1", b"still here")
        kept = Login(old.username, old.password, tmp_path / "old.pem", old.authority)
        shutil.copy(at.other / "devices" / "dev-2" / "identity.pem", tmp_path / "old.pem")
        for login, comes_in in ((at.login("dev-2"), True), (kept, False)):
            with Peer(login, at.port, "f-dev-2") as again:
                assert (again.refusal is None) == comes_in


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
