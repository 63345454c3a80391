"""Each fault by itself, at its worst moment, so that none of them is left to luck."""

from __future__ import annotations

import math

import pytest

from fedmq.failpoints import AGGREGATOR_POINTS, CLIENT_POINTS
from fedmq.transport.memory import Faults
from tests.chaos.virtual.accounts import violations
from tests.chaos.virtual.one_hot import LAYOUT
from tests.chaos.virtual.schedules import play, start_rival
from tests.chaos.virtual.strategies import RULES, STRATEGIES
from tests.chaos.virtual.world import World, a_world

ROUGH = ("network", Faults(delay=(0.0, 0.2), loss=0.1, duplication=0.2, reordering=True))


def assert_all_is_well(world: World) -> None:
    world.settle()
    assert violations(world) == []
    assert world.seen["accepted"] >= 10


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_in_peace_every_update_is_accepted(strategy: str) -> None:
    with a_world(STRATEGIES[strategy]) as world:
        play(world, [("pass", 30.0)])
        assert_all_is_well(world)
        assert set(world.seen) == {"accepted"}
        assert world.seen["accepted"] == len(world.trainings.vectors)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_no_part_is_sent_twice_but_what_was_on_its_way_to_an_aggregator_that_died(strategy: str) -> None:
    with a_world(STRATEGIES[strategy], part_bytes=512) as world:
        parts = math.ceil(4 * LAYOUT.size / 512)
        play(world, [("pass", 8.0)])
        whole = sum(len(device.stored) for device in world.devices)
        assert parts * (whole - len(world.devices)) <= world.broker.parts <= parts * whole
        play(world, [("aggregator dies", 2.0, False), ("pass", 8.0)])
        assert_all_is_well(world)
        assert 0 <= world.broker.parts - parts * len(world.trainings.vectors) <= parts * len(world.devices)


@pytest.mark.parametrize("power", [False, True], ids=["killed", "without power"])
@pytest.mark.parametrize("point", AGGREGATOR_POINTS)
def test_an_aggregator_crashes_three_times_at(point: str, power: bool) -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        for passings in (1, 2, 3):
            play(world, [ROUGH, ("aggregator crashes at", point, passings, 0.3, power)])
            assert world.pass_time(300.0, lambda: world.seen[point] == passings)  # noqa: B023 (called at once)
        assert_all_is_well(world)


@pytest.mark.parametrize("strategy", sorted(RULES))
def test_what_is_kept_for_a_rule_outlives_a_power_cut_at_every_point(strategy: str) -> None:
    with a_world(STRATEGIES[strategy]) as world:
        for point in AGGREGATOR_POINTS:
            play(world, [ROUGH, ("aggregator crashes at", point, 2, 0.3, True)])
            assert world.pass_time(300.0, lambda: world.seen[point] == 1)  # noqa: B023 (called at once)
        assert_all_is_well(world)


@pytest.mark.parametrize("point", CLIENT_POINTS)
def test_a_client_crashes_three_times_at(point: str) -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        for passings in (1, 2, 3):
            play(world, [ROUGH, ("client crashes at", 1, point, passings, 0.3)])
            assert world.pass_time(300.0, lambda: world.seen[point] == passings)  # noqa: B023 (called at once)
        assert_all_is_well(world)


@pytest.mark.parametrize("forget", [False, True], ids=["with its state", "empty"])
def test_a_broker_comes_back(forget: bool) -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        play(world, [ROUGH, ("pass", 5.0), ("broker dies", 300.0, forget), ("pass", 310.0)])
        assert_all_is_well(world)


def test_a_full_disk_answers_later_and_nothing_is_lost() -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        play(world, [ROUGH, ("pass", 5.0), ("disk is full", 20.0), ("pass", 30.0)])
        assert any(reply.later for _, reply in world.broker.replies)
        assert_all_is_well(world)


@pytest.mark.parametrize("how", ["killed", "without power", "with a full disk"])
def test_a_commit_for_which_several_updates_in_parts_of_one_device_wait_fails(how: str) -> None:
    with a_world(STRATEGIES["fedbuff"], part_bytes=512, commit_every=3.0) as world:
        play(world, [("aggregator dies", 20.0, False), ("pass", 20.0)])  # the devices go on without it
        assert world.pass_time(20.0, lambda: world.server.most_whole() >= 2)
        if how == "with a full disk":
            world.fill_disk(20.0)
        else:
            play(world, [("aggregator dies", 0.3, how == "without power")])
        world.pass_time(10.0)
        assert_all_is_well(world)


def test_a_device_whose_old_image_is_put_back_reuses_ids_and_is_told_so() -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        play(world, [("connection breaks", 1), ("pass", 5.0), ("image put back", 1, 0, 0.0), ("pass", 10.0)])
        play(world, [("image put back", 1, 1, 0.0), ("pass", 10.0)])
        assert world.devices[1].service is not None
        assert_all_is_well(world)
        assert world.seen["id reused"] >= 1


@pytest.mark.parametrize("as_new_run", [False, True], ids=["and the real folder goes on", "and becomes another run"])
def test_an_old_backup_of_the_run_is_refused(as_new_run: bool) -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        play(world, [("connection breaks", 0), ("pass", 10.0), ("backup put back", 1, as_new_run), ("pass", 10.0)])
        assert world.seen["old backup"] == 1
        assert_all_is_well(world)


def test_of_two_aggregators_on_two_copies_one_stops() -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        for _ in range(3):
            play(world, [("two aggregators",), ("pass", 5.0)])
        assert world.seen["two aggregators"] == 3
        assert_all_is_well(world)


def test_a_new_run_takes_nothing_of_the_old_one() -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        play(world, [ROUGH, ("pass", 10.0), ("new run",), ("pass", 10.0)])
        assert_all_is_well(world)
        assert world.seen["wrong run"] >= 1


def test_an_image_that_is_put_back_again_and_again_counts_nothing_twice() -> None:
    with a_world(STRATEGIES["fedasync_delta"]) as world:
        used_again = [("aggregator dies", 5.0, False), ("image put back", 1, 2, 0.0), ("pass", 2.5)]
        image_of_that = [("connection breaks", 2), ("pass", 10.0), ("image put back", 1, 1, 0.0), ("pass", 10.0)]
        play(world, [("connection breaks", 2), ("pass", 3.0), *used_again, *image_of_that])
        assert_all_is_well(world)


def test_an_old_backup_of_the_same_version_is_refused() -> None:
    with a_world(STRATEGIES["fedbuff"]) as world:
        real = world.server
        assert world.pass_time(20.0, lambda: real.core is not None and len(real.core.state.buffer.updates) == 1)
        old = world.machine(real.copy_folder(world.new_folder()), world.starts[world.run])
        assert world.pass_time(20.0, lambda: real.core is not None and len(real.core.state.buffer.updates) == 3)
        world.trainings.over = True
        world.pass_time(1.5)  # until the progress is shown
        real.kill()
        world.server = old
        world.pass_time(20.0, lambda: old.ending is not None)
        assert old.ending is not None
        assert old.ending.code == 2


def test_of_two_aggregators_that_start_at_the_same_moment_one_stops_and_nothing_is_lost() -> None:
    for seed in range(6):
        with a_world(STRATEGIES["fedbuff"], seed=seed) as world:
            world.pass_time(5.0)
            world.server.kill()
            twin = world.machine(world.server.copy_folder(world.new_folder()), world.starts[world.run])
            world.pass_time(10.0, lambda: world.server.service is not None)
            start_rival(world, twin)
            assert_all_is_well(world)


def test_a_receipt_for_what_was_sent_before_an_image_was_put_back_is_not_taken_for_what_came_after() -> None:
    deaf = ("network", Faults(loss=1.0))  # nobody hears that the aggregator is gone: the broker keeps the offers for it
    with a_world(STRATEGIES["fedasync_delta"]) as world:
        before = [("connection breaks", 2), ("pass", 3.0), deaf, ("aggregator dies", 20.0, False), ("pass", 5.0)]
        play(world, [*before, ("network", Faults()), ("image put back", 1, 2, 0.0), ("pass", 30.0)])
        assert_all_is_well(world)
