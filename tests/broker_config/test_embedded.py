from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedmq.broker_config.start import start_broker
from fedmq.transport.link import Connected, Disconnected
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import expect, opened, subscribed


@pytest.mark.skipif(sys.platform != "linux", reason="writes to the standard error of another process through /proc")
def test_after_a_panic_the_embedded_broker_is_there_again_on_the_same_ports(tmp_path: Path) -> None:
    with start_broker("embedded", folder=tmp_path) as broker:
        link = opened(MqttLink(MqttSettings(port=broker.ports["5"], reconnect_max_seconds=0.2), "ada"))
        Path(f"/proc/{broker.pid}/fd/2").write_text("thread 'v5' panicked at server/broker.rs:544:40:\n")
        expect(link, Disconnected)
        expect(link, Connected)
        subscribed(link, "ada/a")
        link.close()
        assert broker.running
        assert "panicked at" in broker.log.read_text()
