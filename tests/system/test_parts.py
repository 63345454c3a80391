"""Models that do not fit into one message, over a Mosquitto that takes no large ones and queues few.

`make parts` runs the long form: 1,000 versions and 20 deaths, and a link of 100 kB/s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmq.broker_config.start import RunningBroker
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import RunMosquitto, fence, opened
from tests.slow_link import SlowLink
from tests.system.processes import PATIENCE, Federation

pytestmark = pytest.mark.broker

FLOATS = 600_000
PARTS = 20  # of 120 KiB
LONG = os.environ.get("PARTS") == "long"
DEATHS, VERSIONS = (20, 50) if LONG else (4, 3)  # and so many versions between two of them
SLOW = 100_000 if LONG else 400_000  # bytes a second


@pytest.fixture
def narrow(run_mosquitto: RunMosquitto, federation: str, tmp_path: Path) -> Iterator[Federation]:
    """A federation on a broker as a cloud might run it."""
    url = run_mosquitto("max_packet_size 131072", "max_queued_messages 20", "set_tcp_nodelay true")
    with Federation(tmp_path / "federation", federation, url) as made:
        save_file({"w": np.zeros(FLOATS, np.float32)}, made.folder / "weights.safetensors")
        yield made


def retained(fed: Federation) -> set[str]:
    """The topics of the federation's models under which the broker keeps something."""
    host, port = fed.settings["broker.url"].removeprefix("mqtt://").split(":")
    link = opened(MqttLink(MqttSettings(host=host, port=int(port)), f"{fed.name}-look"))
    prefix = f"fedmq/{fed.name}/model"
    topics = [prefix, *(f"{prefix}/{slot}" for slot in range(3))]
    topics += [f"{prefix}/{slot}/{part}" for slot in range(3) for part in range(PARTS + 3)]
    kept = set[str]()
    for first in range(0, len(topics), 8):  # the broker queues few
        link.subscribe(*topics[first : first + 8])
        kept |= {message.topic for message in fence(link, f"{fed.name}/fence")}
        link.unsubscribe(*topics[first : first + 8])
    link.close()
    return kept


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_model_of_many_parts_is_trained_by_several_devices(narrow: Federation, version: str) -> None:
    narrow.set(broker__mqtt_version=version, aggregator__goal__versions=6)
    narrow.aggregator()
    devices = [narrow.client(name) for name in ("ada", "bob", "carl")]
    assert [device.ends() for device in devices] == [0, 0, 0]
    run = narrow.read_run()
    assert run.version == 6
    assert run.weights.min() == run.weights.max() > 0  # every update moved every weight as far
    assert run.figures["uplink_bytes"] == run.figures["accepted"] * 4 * FLOATS
    assert list((narrow.run_folder / "parts").glob("*.body*")) == []


def test_a_model_of_many_parts_is_trained_over_the_embedded_broker(
    embedded: RunningBroker, federation: str, tmp_path: Path
) -> None:
    with Federation(tmp_path, federation, embedded.url) as fed:
        save_file({"w": np.zeros(FLOATS, np.float32)}, fed.folder / "weights.safetensors")
        fed.set(aggregator__goal__versions=4)
        fed.aggregator()
        assert [device.ends() for device in [fed.client("ada"), fed.client("bob")]] == [0, 0]
        run = fed.read_run()
        assert run.version == 4
        assert run.weights.min() == run.weights.max() > 0


@pytest.mark.timeout(1800)
def test_topics_do_not_pile_up_with_versions_and_deaths(narrow: Federation) -> None:
    narrow.set(aggregator__publish_interval=0.05, plan__continuous=True, device__pace=0.0)
    narrow.client("ada")
    both_slots = 1 + 2 * (1 + PARTS)  # the model's head, and two slots of a head and twenty parts
    for number in range(DEATHS):
        aggregator = narrow.aggregator()
        if number == 0:
            narrow.until(lambda: len(retained(narrow)) == both_slots, "both slots in use")
        narrow.goes_on(VERSIONS, seconds=PATIENCE + VERSIONS)
        aggregator.kill()
        assert len(retained(narrow)) == both_slots
    assert narrow.read_run().version >= DEATHS * VERSIONS


def test_what_was_sent_before_a_death_of_either_side_is_not_sent_again(narrow: Federation) -> None:
    """The uplink of one device for one update, with the aggregator and the device killed half way."""
    narrow.set(aggregator__goal__versions=1)
    aggregator = narrow.aggregator()
    spool = narrow.run_folder / "parts" / "ada.body.parts"

    def there() -> int:
        lines = spool.read_text().splitlines()[1:] if spool.exists() else []
        return sum(json.loads(line)[1] for line in lines if line.endswith("]"))

    with slow(narrow, 600_000) as link:
        device = narrow.client("ada", "--broker", link.url)
        narrow.until(lambda: there() > 2 * FLOATS, "half of it")
        device.kill()
        aggregator.kill()
        kept = there()
        assert 2 * FLOATS < kept < 4 * FLOATS
        narrow.aggregator()
        before = link.carried
        # It goes on with the model that it has as well; a job that lasts leaves the link to the update.
        assert narrow.client("ada", "--broker", link.url, "--set", "device.pace=4").ends() == 0
        assert link.carried - before < 4 * FLOATS - kept + 2 * 130_000
    assert narrow.read_run().version == 1


def test_a_link_that_breaks_at_80_percent_of_an_update_delivers_it(narrow: Federation) -> None:
    narrow.set(aggregator__goal__versions=1)
    narrow.aggregator()
    with slow(narrow, 2e6, cut_up_at=int(0.8 * 4 * FLOATS)) as link:
        assert narrow.client("ada", "--broker", link.url).ends() == 0
        assert link.cuts >= 1
        assert link.carried < 1.6 * 4 * FLOATS  # what came through the first time is not sent again
    assert narrow.read_run().version == 1


@pytest.mark.timeout(1000)
def test_over_a_slow_link_that_is_cut_now_and_then_updates_arrive_once_each(narrow: Federation) -> None:
    narrow.set(aggregator__goal__versions=2)
    narrow.aggregator()
    with slow(narrow, SLOW, cut=0.05) as link:
        assert narrow.client("ada", "--broker", link.url).ends(900 if LONG else 120) == 0
        assert link.cuts >= 1
    run = narrow.read_run()
    assert run.figures["accepted"] == run.version == 2


def test_a_device_that_is_slower_than_the_model_still_gets_one(narrow: Federation) -> None:
    """Its download takes as long as a dozen versions; without a slot that is kept it would never end."""
    narrow.set(aggregator__publish_interval=0.05, device__pace=0.05)
    narrow.aggregator()
    narrow.client("bob")
    narrow.goes_on(2)
    with slow(narrow, 400_000) as link:
        slow_device = narrow.client("ada", "--broker", link.url, "--log-level=debug")
        begun = narrow.version
        slow_device.says("trained client=ada")
        narrow.refresh()
        assert narrow.version - begun > 4
        narrow.work("ada")


def slow(fed: Federation, bytes_per_second: float, **how: Any) -> SlowLink:
    port = int(fed.settings["broker.url"].rpartition(":")[2])
    return SlowLink(port, bytes_per_second=bytes_per_second, **how)
