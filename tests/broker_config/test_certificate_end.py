"""What is said of the broker's certificate, and how often."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmq.broker_config.certificate_end import CertificateEnd
from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision

MADE = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A federation whose broker's certificate ends after 100 days."""
    provision(tmp_path / "secure", Request("f", clients=("dev-1",), changes={"server_days": 100}), MADE)
    return tmp_path / "secure"


def watch(folder: Path) -> CertificateEnd:
    return CertificateEnd(folder / "broker" / "identity.pem", 60, "secure")


def test_it_is_said_each_day_from_when_it_is_due_until_it_is_renewed(folder: Path) -> None:
    end = watch(folder)
    assert end.look(MADE + 39 * DAY) is None
    near = (
        "the broker's certificate ends at 2027-03-06 09:30 UTC; no device connects then; `fedmq provision --out secure"
    )
    for day in (40, 41, 99):
        assert end.look(MADE + day * DAY) == f"{near} --renew` renews it"
        assert end.look(MADE + day * DAY + timedelta(hours=23)) is None
    over = "the broker's certificate ended at 2027-03-06 09:30 UTC: no device connects any more; `fedmq provision --out"
    assert end.look(MADE + 100 * DAY) == f"{over} secure --renew` renews it"
    provision(folder, Request(renew_due=True), MADE + 100 * DAY)
    assert end.look(MADE + 101 * DAY) is None


def test_a_clock_that_was_wrong_keeps_nothing_from_being_said(folder: Path) -> None:
    end = watch(folder)
    assert end.look(MADE + 5000 * DAY) is not None
    assert end.look(MADE) is None
    assert end.look(MADE + 50 * DAY) is not None


def test_what_cannot_be_read_is_said_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "broker" / "identity.pem"
    path.write_text("")
    said = f"{path}: it holds no certificate in PEM; put it back from a copy"
    assert watch(folder).look(MADE) == said
    path.unlink()
    assert watch(folder).look(MADE) == said
    monkeypatch.setitem(sys.modules, "fedmq.broker_config.provision.certificates", None)
    end = watch(folder)
    assert '"pip install fedmq[secure]" installs what reads it' in str(end.look(MADE))
    assert end.look(MADE + DAY) is None
