"""What the page on security says to do when something is stolen, done: what the thief has is worth nothing then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedmq.broker_config.provision.passwords import read_password_file, verifies
from fedmq.keys import aggregator_keys, device_keys
from fedmq.settings import load_settings
from tests.broker_config.provisioned import Provision


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
