"""When a certificate is spoken of, and how."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmq.broker_config.provision import certificates
from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.connect import mqtt_link
from fedmq.settings import load_settings
from fedmq.transport import certificate
from fedmq.transport.certificate import Certificate, of_this_login
from fedmq.transport.mqtt_login import Login
from fedmq.transport.mqtt_settings import MqttSettings

DAY = 86_400.0


def test_a_lifetime_is_counted_without_what_provisioning_dates_back() -> None:
    assert certificates._BACKDATED.total_seconds() == certificate._DATED_BACK


@pytest.mark.parametrize(
    ("days", "left", "soon"),
    [
        (730, 31, False),
        (730, 29, True),
        (730, -1, True),
        (9, 4, False),
        (9, 2.9, True),
        (90, 31, False),
        (60, 21, False),
        (365 + 20, 7, False),  # as provisioned for 20 days
        (365 + 20, 6, True),
    ],
)
def test_soon_is_within_30_days_or_a_third_of_its_life(days: float, left: float, soon: bool) -> None:
    assert Certificate("it", 0.0, days * DAY, "").ends_soon((days - left) * DAY) is soon


def test_it_is_said_when_it_ends_and_what_to_do() -> None:
    shown = Certificate("the certificate", 0.0, 10 * DAY, "renew it")
    assert shown.warning(1.9 * DAY) == "the certificate ends on 1970-01-11, in 8 days; renew it"
    assert shown.ends(8.5 * DAY) == "1970-01-11, in 36 hours"
    assert shown.ends(11 * DAY) == "1970-01-11, which is over"


def made(folder: Path, days_ago: float) -> MqttSettings:
    """The login of a device whose certificate was made for 20 days so many days ago."""
    request = Request("f", clients=("dev-1",), changes={"device_days": 20})
    provision(folder, request, datetime.now(UTC) - timedelta(days=days_ago))
    bundle = folder / "devices" / "dev-1"
    ca_file, identity = bundle / "ca.pem", bundle / "identity.pem"
    return MqttSettings(tls=True, ca_file=ca_file, cert_file=identity, key_file=identity)


def test_who_uses_a_certificate_that_ends_says_so_at_the_start_and_daily(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    login = Login(made(tmp_path / "secure", days_ago=18))
    for hour in range(72):
        login.remind(1000.0 + hour * 3600)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 3
    date = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%d")
    assert f"secure/devices/dev-1/identity.pem ends on {date}, in " in said[0]
    assert "`fedmq provision --renew`" in said[0]


def test_of_one_that_lasts_or_was_renewed_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = made(tmp_path / "secure", days_ago=18)
    login = Login(settings)
    provision(tmp_path / "secure", Request(renew=("dev-1",)), datetime.now(UTC))
    login.remind(0.0)
    assert caplog.records == []


def test_a_link_that_is_polled_reminds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path / "secure", days_ago=18)
    settings = load_settings(tmp_path / "secure" / "devices" / "dev-1" / "federation.toml", environment={})
    link = mqtt_link(settings.broker.model_copy(update={"url": "mqtts://localhost:1"}), "f-dev-1")
    link.open()
    try:
        link.poll(0.0)
    finally:
        link.close()
    assert [record.getMessage() for record in caplog.records if "certificate ends" in record.getMessage()]


def test_without_the_package_cryptography_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = made(tmp_path / "secure", days_ago=18)
    assert settings.cert_file is not None
    assert of_this_login(settings.cert_file) is not None
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert of_this_login(settings.cert_file) is None
    Login(settings).remind(0.0)
