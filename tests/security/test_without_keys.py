"""A device whose federation.toml was written before there were signatures, in a federation that has them now."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import fedmq
from fedmq.broker_config.settings import BrokerSettings
from fedmq.broker_config.start import RunningBroker
from fedmq.connect import mqtt_link
from fedmq.schemas.messages import AggregatorPresence
from fedmq.schemas.signing import sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.settings import load_settings
from tests.brokers import opened
from tests.system.processes import until

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("signed", [True, False])
def test_it_says_that_it_has_no_keys_where_the_aggregator_has_some(
    mosquitto: RunningBroker, federation: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, signed: bool
) -> None:
    caplog.set_level(logging.INFO, "fedmq")
    topic = Topics(federation).aggregator
    presence = encode(AggregatorPresence(state="online", run="a" * 32, incarnation="b" * 32, version=1))
    link = opened(mqtt_link(BrokerSettings(url=mosquitto.url), f"{federation}-mouth"))
    link.publish(topic, sealed(topic, presence, 1, lambda content: bytes(64)) if signed else presence, retain=True)
    assert link.flush(10.0)
    link.close()
    settings = load_settings(
        None, [f"federation={federation}", f"broker.url={mosquitto.url}", f"device.folder={tmp_path}"], {}
    )
    with fedmq.EdgeClient(settings, client_id="dev-1", train=lambda weights, plan: fedmq.Trained(weights, 1)):
        until(lambda: "aggregator online client=dev-1" in caplog.text, "the aggregator to be heard")
    said = [text for text in caplog.messages if text.startswith("unsigned client=dev-1")]
    assert len(said) == signed
    assert all("add the [signing] section of its bundle to" in text for text in said)
