"""A fleet whose bundles were taken to their machines: what ends is said, and no renewal cuts anybody off unasked."""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import Outcome
from fedmq.broker_config.provision.provisioning import provision as run
from fedmq.broker_config.secure import SecureBroker
from fedmq.connect import mqtt_link
from fedmq.settings import load_settings
from fedmq.transport.link import Connected
from tests.broker_config.provisioned import Provision, check_signatures, content
from tests.security.ground import free_port, settle
from tests.system.processes import until

NOW = datetime.now(UTC)


@pytest.fixture
def provision(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Provision:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return Provision(tmp_path / "secure", capsys)


def taken(provision: Provision, *bundles: str) -> Path:
    """Take bundles to their machines, as the page on security advises; where they are now."""
    field = provision.root.with_name("field")
    field.mkdir()
    for bundle in bundles:
        shutil.move(provision.root / bundle, field / Path(bundle).name)
    return field


ALL = ("aggregator", "operator", "devices/dev-1", "devices/dev-2")


def test_what_ends_is_said_of_bundles_that_were_taken_away_too(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2", options=("--device-days", "30"))
    taken(provision, *ALL)
    before = content(provision.root)
    said = provision()
    assert "nothing to do" in said
    assert "not here, so left as it is: aggregator, operator, dev-1 and 1 more;" in said
    end = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    assert f"ends within 60 days: aggregator on {end}, operator on {end}, dev-1 on {end} and 1 more;" in said
    assert content(provision.root) == before


@pytest.mark.parametrize("arguments", [("--renew",), ("--renew", "--all")])
def test_a_renewal_of_the_whole_fleet_changes_no_password_that_only_a_machine_has(
    provision: Provision, arguments: tuple[str, ...]
) -> None:
    provision.begin("dev-1", "dev-2", options=("--device-days", "30"))
    field = taken(provision, *ALL)
    passwords = (provision.root / "broker" / "passwords").read_bytes()
    said = provision(*arguments)
    assert (provision.root / "broker" / "passwords").read_bytes() == passwords
    assert "only their machines have: aggregator, operator, dev-1 and 1 more; copy the files over those" in said
    assert "cut off" not in said
    assert set(content(provision.root / "devices" / "dev-1")) == {
        *("ca.pem", "identity.pem", "signing.pem", "aggregator-keys"),
    }
    # What is copied over what is there makes a bundle that is whole, and no settings of its user are lost.
    for bundle in ALL:
        shutil.copytree(provision.root / bundle, field / Path(bundle).name, dirs_exist_ok=True)
    for device in ("dev-1", "dev-2"):
        check_signatures(field / device, field / "aggregator", device)
    renewed = content(provision.root)
    provision()
    assert content(provision.root) == renewed


def test_a_device_that_is_named_gets_a_new_password_and_it_is_said_that_it_is_cut_off(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    taken(provision, *ALL)
    passwords = (provision.root / "broker" / "passwords").read_text().splitlines()
    said = provision("--renew", "dev-1")
    assert "a new password: dev-1; cut off until the new bundle is on its machine" in said
    after = (provision.root / "broker" / "passwords").read_text().splitlines()
    assert [line.partition(":")[0] for line in passwords if line not in after] == ["f.dev-1"]
    assert "federation.toml" in content(provision.root / "devices" / "dev-1")


@pytest.mark.broker
def test_a_device_in_the_field_stays_connected_while_all_is_renewed(
    mosquitto_installed: None, provision: Provision
) -> None:
    provision.begin("dev-1", "dev-2", options=("--port", str(free_port()), "--listen", "127.0.0.1"))
    field = taken(provision, "devices/dev-1")
    settings = load_settings(field / "dev-1" / "federation.toml", environment={}).broker
    with SecureBroker(provision.root) as broker:
        link = mqtt_link(settings, "f-dev-1")
        link.open()
        try:
            until(lambda: isinstance(link.poll(0.2), Connected), "the device to come in")
            provision("--renew", "--all")
            settle(broker)
            broker.running.stop()
            with SecureBroker(provision.root):  # so that it has to log in again
                until(lambda: isinstance(link.poll(0.2), Connected), "the device to come in again")
        finally:
            link.close()


def test_new_keys_are_there_to_be_carried_also_where_the_bundles_are_not(provision: Provision) -> None:
    provision.begin("dev-1", "dev-2")
    taken(provision, *ALL)
    said = provision("--add", "dev-3")
    for account in ("aggregator", "operator"):
        assert b"dev-3 " in content(provision.root)[f"{account}/device-keys"]
    assert f"{provision.root}/aggregator/device-keys goes to the aggregator's and the operator's machine" in said
    said = provision("--renew", "aggregator")
    file = provision.root / "aggregator" / "aggregator-keys"
    assert f"take {file} to every device" in said
    assert len(file.read_text().split()) == 2


def test_a_device_of_any_name_hides_nothing_of_the_broker(provision: Provision) -> None:
    provision.begin("broker", options=("--server-days", "30"))
    assert "ends within 60 days: the broker's certificate on 2" in provision()


def test_what_ends_first_is_named_first(provision: Provision) -> None:
    provision.begin("dev-1", options=("--server-days", "30", "--device-days", "40"))
    provision("--add", "dev-2", "--device-days", "20")
    named = provision().partition("ends within 60 days: ")[2].partition(" and ")[0]
    assert re.sub(r" on [\d-]+", "", named).split(", ") == ["dev-2", "the broker's certificate", "aggregator"]


def test_a_certificate_that_ends_with_the_authority_and_so_sooner_than_was_asked_for_is_told_of(
    provision: Provision,
) -> None:
    said = provision.begin("dev-1", options=("--authority-days", "100", "--device-days", "5000", "--server-days", "50"))
    end = f"{datetime.now(UTC) + timedelta(days=100):%Y-%m-%d}"
    assert f"the authority ends on {end}, and what was made now ends with it, before its 5000 days" in said
    assert "the authority ends" not in provision()
    assert "the authority ends" not in provision("--add", "dev-2", "--device-days", "90")


def test_an_authority_that_lasts_shorter_than_devices_is_not_renewed_each_time(tmp_path: Path) -> None:
    def renewed(days: int) -> bool:
        now = NOW + timedelta(days=days)
        return "authority/ca.pem" in run(tmp_path / "secure", Request(renew_due=True), now).changed

    run(tmp_path / "secure", Request("f", clients=("dev-1",), changes={"authority_days": 700}), NOW)
    assert [renewed(days) for days in (0, 30, 61, 62, 120, 122)] == [False, False, True, False, False, True]


def test_what_was_not_told_is_told_by_the_next_run(tmp_path: Path) -> None:
    class NobodyHeardError(Exception):
        pass

    def fails(outcome: Outcome) -> None:
        raise NobodyHeardError

    root = tmp_path / "secure"
    with pytest.raises(NobodyHeardError):
        run(root, Request("f", clients=("dev-1", "dev-2")), NOW, fails)
    assert run(root, Request(), NOW).new
    with pytest.raises(NobodyHeardError):
        run(root, Request(revoke=("dev-2",), renew=("dev-1",)), NOW, fails)
    outcome = run(root, Request(), NOW)
    assert (outcome.revoked, outcome.bundles) == (("dev-2",), ("dev-1",))
    assert {"aggregator/revoked", "aggregator/device-keys", "broker/revoked.pem"} <= outcome.changed
    assert not run(root, Request(), NOW).changed
