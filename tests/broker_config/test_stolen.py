"""What the page on security says to do when something is stolen, done: what the thief has is worth nothing then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fedmq.broker_config.provision.passwords import read_password_file, verifies
from fedmq.edge_client.outbox import Outbox
from fedmq.keys import aggregator_keys, device_keys
from fedmq.schemas.messages import Reply
from fedmq.schemas.signing import sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.settings import load_settings
from fedmq.signed_link import SignedLink, in_order
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker
from tests.broker_config.provisioned import Provision
from tests.security.signed_world import newest_heard

TOPICS = Topics("f")
GREATEST = (1 << 63) - 1
"""The greatest session that there is."""


@pytest.mark.parametrize("account", ["aggregator", "operator"])
def test_a_bundle_that_is_taken_away_and_renewed_has_another_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], account: str
) -> None:
    provision = Provision(tmp_path / "secure", capsys)
    provision.begin("dev-1")
    stolen = tmp_path / "stolen"
    shutil.move(provision.root / account, stolen)
    provision("--renew", account)
    line = read_password_file((provision.root / "broker" / "passwords").read_bytes())[f"f.{account}"]
    assert not verifies(line, (stolen / "password").read_text().rstrip("\n"))
    assert verifies(line, (provision.root / account / "password").read_text().rstrip("\n"))


def test_what_the_aggregators_stolen_key_signs_is_not_believed_after_two_renewals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provision = Provision(tmp_path / "secure", capsys)
    provision.begin("dev-1")
    stolen = tmp_path / "stolen"
    shutil.move(provision.root / "aggregator", stolen)
    provision("--renew", "aggregator")
    provision("--renew", "aggregator")
    thief = aggregator_keys(load_settings(stolen / "federation.toml", environment={}).signing)
    new = aggregator_keys(load_settings(provision.root / "aggregator" / "federation.toml", environment={}).signing)
    assert thief is not None
    assert new is not None
    keys = provision.root / "aggregator" / "aggregator-keys"
    device = provision.root / "devices" / "dev-1"
    shutil.copy(keys, device / "aggregator-keys")
    told = device_keys(load_settings(device / "federation.toml", environment={}).signing, "dev-1")
    assert told is not None
    assert told.verify("aggregator", b"x", new.sign(b"x"))
    assert not told.verify("aggregator", b"x", thief.sign(b"x"))


def test_a_thief_that_made_all_else_old_is_heard_no_more_and_the_aggregator_is_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provision = Provision(tmp_path / "secure", capsys)
    provision.begin("dev-1")
    shutil.copytree(provision.root / "devices" / "dev-1", tmp_path / "device")
    old = signer(provision.root / "aggregator")
    stolen = tmp_path / "stolen"
    with closing(Device(tmp_path / "device", tmp_path / "state")) as device:
        assert device.hears(old, 1_000)
        assert not device.hears(old, GREATEST + 1)  # no device could keep it
        assert device.hears(old, GREATEST)  # by the thief, who has the same key
        shutil.move(provision.root / "aggregator", stolen)
        provision("--renew", "aggregator")
        provision("--renew", "aggregator")
        thief, new = signer(stolen), signer(provision.root / "aggregator")
        assert not device.hears(new, 1_001)
        shutil.copy(provision.root / "operator" / "aggregator-keys", tmp_path / "device")
        assert device.hears(new, 1_001)
        assert not device.hears(new, 1_000)
        assert not device.hears(thief, GREATEST)
    with closing(Device(tmp_path / "device", tmp_path / "state")) as again:
        assert not again.hears(new, 1_000)
        assert not again.hears(thief, GREATEST)
        assert again.hears(new, 1_001)


class Device:
    """What a device makes of an aggregator's answers: with its bundle, and a folder for what it remembers."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        keys = device_keys(load_settings(bundle / "federation.toml", environment={}).signing, "dev-1")
        assert keys is not None
        self._outbox = Outbox(folder)
        self._inner = MemoryBroker().link("dev-1")
        fresh = in_order(TOPICS, newest_heard(keys, self._outbox))
        self._link = SignedLink(self._inner, TOPICS, keys, self._outbox.begin_session(), fresh)
        self._link.open()
        self._link.poll(1.0)

    def hears(self, sign: Callable[[bytes], bytes], session: int) -> bool:
        """Whether an answer of this session counts."""
        said = encode(Reply(run="a" * 32, incarnation="b" * 32))
        self._inner.receive(Message(TOPICS.reply("dev-1"), sealed(TOPICS.reply("dev-1"), said, session, sign)))
        return self._link.poll(1.0) is not None

    def close(self) -> None:
        self._outbox.close()


def signer(bundle: Path) -> Callable[[bytes], bytes]:
    keys = aggregator_keys(load_settings(bundle / "federation.toml", environment={}).signing)
    assert keys is not None
    return keys.sign
