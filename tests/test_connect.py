from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.broker_config.settings import BrokerSettings
from fedmq.broker_config.start import RunningBroker
from fedmq.connect import mqtt_link
from fedmq.schemas.errors import ConfigError
from fedmq.transport.link import Message, Will
from tests.brokers import expect, opened, subscribed


def test_the_broker_section_makes_a_link(embedded: RunningBroker, federation: str) -> None:
    settings = BrokerSettings(url=embedded.url)
    watcher = opened(mqtt_link(settings, f"{federation}-watcher"))
    subscribed(watcher, f"{federation}/a")
    link = opened(mqtt_link(settings, federation, will=Will(f"{federation}/status", b"offline"), durable=True))
    link.publish(f"{federation}/a", b"hello")
    assert expect(watcher, Message).payload == b"hello"
    link.close()
    watcher.close()


def test_an_unreadable_password_is_an_error_before_connecting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        mqtt_link(BrokerSettings(username="ada", password_file=tmp_path / "missing"), "ada")
