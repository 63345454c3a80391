"""Certificates that have ended: what a device that runs says of them, and that it needs no restart for new ones."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.broker_config.secure import SecureBroker
from fedmq.connect import mqtt_link
from fedmq.settings import load_settings
from fedmq.transport.link import Connected, Disconnected
from tests.brokers import expect
from tests.security.ground import free_port, settle

pytestmark = pytest.mark.broker


@pytest.mark.parametrize(
    ("days", "says"),
    [
        ("device_days", "says that this certificate has ended, by its clock; put a renewed one in its place"),
        ("server_days", "or of its authority, has ended by this machine's clock, on which it is 2"),
    ],
)
def test_a_device_that_runs_uses_renewed_files_without_a_restart(
    mosquitto_installed: None, tmp_path: Path, days: str, says: str
) -> None:
    root, now = tmp_path / "secure", datetime.now(UTC)
    changes = {"port": free_port(), "listen": "127.0.0.1", days: 1}
    provision(root, Request("f", clients=("dev-1",), changes=changes), now - timedelta(days=2))
    broker = load_settings(root / "devices" / "dev-1" / "federation.toml", environment={}).broker
    link = mqtt_link(broker.model_copy(update={"reconnect_max_seconds": 0.2}), "f-dev-1")
    with SecureBroker(root) as running, closing(link):
        link.open()
        assert says in expect(link, Disconnected).reason
        provision(root, Request(renew_all=True), now)
        settle(running)
        expect(link, Connected)
