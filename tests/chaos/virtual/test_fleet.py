"""A thousand devices come back at once: without a storm, and nothing is lost."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fedmq.transport.memory import Faults
from tests.chaos.virtual.fleet import Fleet
from tests.chaos.virtual.one_hot import CAPACITY, counts
from tests.chaos.virtual.strategies import STRATEGIES
from tests.chaos.virtual.world import World, a_world

SIZE = 1000


def offered_and_unanswered(world: World) -> Fleet:
    """A fleet that has trained, and whose offers were all lost on their way to the aggregator."""
    assert world.pass_time(10.0, lambda: world.shown() is not None)
    fleet = Fleet(SIZE, world.broker, world.topics, seed=5)
    world.others.append(fleet)
    world.pass_time(0.003)
    world.broker.faults = Faults(loss=1.0)
    world.pass_time(1.3)
    world.broker.faults = Faults()
    assert len(fleet.waiting) == SIZE
    return fleet


def offers_after(world: World, begin: float) -> list[tuple[float, int]]:
    """Of each device the first offer from then on: seconds after the first of all, and bytes of its body."""
    first: dict[str, tuple[float, int]] = {}
    for at, offer, size in world.broker.offers:
        if at > begin:
            first.setdefault(offer.client_id, (at, size))
    start = min(at for at, _ in first.values())
    return [(at - start, size) for at, size in first.values()]


def assert_no_storm(offers: list[tuple[float, int]]) -> None:
    assert len(offers) == SIZE
    tenths = Counter(int(at * 10) for at, _ in offers)
    assert set(tenths) <= set(range(11)), "all within the greeting second, and the time that a message takes"
    assert all(0.5 < tenths[tenth] / (SIZE / 10) < 1.5 for tenth in range(10)), tenths
    assert {size for _, size in offers} == {0}, "an offer that was made before carries no bytes"


def assert_nothing_is_lost(world: World, fleet: Fleet) -> None:
    assert world.pass_time(600.0, lambda: not fleet.waiting), f"{len(fleet.waiting)} have no verdict"
    world.server.kill()
    state = world.server.state()
    assert state is not None
    expected = np.bincount(np.arange(SIZE) % CAPACITY, minlength=CAPACITY)
    assert (counts(state.weights) + counts(state.buffer.total)).tolist() == expected.tolist()


def test_after_an_aggregator_s_restart_a_thousand_devices_offer_within_a_second_without_bytes() -> None:
    with a_world(STRATEGIES["fedbuff"], devices=0) as world:
        fleet = offered_and_unanswered(world)
        begin = world.time.now
        world.server.down_seconds = 30.0
        world.server.kill()
        world.pass_time(35.0)
        assert_no_storm(offers_after(world, begin))
        assert_nothing_is_lost(world, fleet)


@pytest.mark.parametrize("forget", [False, True], ids=["that kept its state", "that forgot everything"])
def test_after_a_restart_of_a_broker_a_thousand_devices_offer_within_a_second_without_bytes(forget: bool) -> None:
    with a_world(STRATEGIES["fedbuff"], devices=0) as world:
        fleet = offered_and_unanswered(world)
        begin = world.time.now
        world.stop_broker(30.0, forget=forget)
        world.pass_time(35.0)
        assert_no_storm(offers_after(world, begin))
        assert_nothing_is_lost(world, fleet)
