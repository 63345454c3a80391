"""What may happen to a federation, drawn by Hypothesis, and how it is done to a world."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from fedmq.failpoints import AGGREGATOR_POINTS, CLIENT_POINTS
from fedmq.transport.memory import Faults, MemoryLink
from tests.chaos.virtual.server import Server
from tests.chaos.virtual.world import World

__all__ = ["Happening", "happenings", "play", "start_rival"]

Happening = tuple[Any, ...]

_devices = st.integers(0, 2)
_down = st.sampled_from([0.0, 0.3, 2.0, 20.0])
_passings = st.integers(1, 4)
_ago = st.integers(1, 4)
_networks = st.builds(
    Faults,
    delay=st.sampled_from([(0.001, 0.001), (0.0, 0.2), (0.05, 3.0)]),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    duplication=st.sampled_from([0.0, 0.3]),
    reordering=st.booleans(),
)
_waits = st.tuples(st.just("pass"), st.sampled_from([0.01, 0.3, 1.0, 3.0, 8.0]))
_one = st.one_of(
    _waits,  # what a shrunk schedule is full of
    st.tuples(st.just("aggregator crashes at"), st.sampled_from(AGGREGATOR_POINTS), _passings, _down, st.booleans()),
    st.tuples(st.just("aggregator dies"), _down, st.booleans()),
    st.tuples(st.just("client crashes at"), _devices, st.sampled_from(CLIENT_POINTS), _passings, _down),
    st.tuples(st.just("client dies"), _devices, _down),
    st.tuples(st.just("broker dies"), st.sampled_from([0.1, 2.0, 20.0]), st.booleans()),
    st.tuples(st.just("disk is full"), st.sampled_from([0.3, 5.0])),
    st.tuples(st.just("connection breaks"), st.integers(0, 3)),
    st.tuples(st.just("network"), _networks),
    st.tuples(st.just("redelivery"), st.floats(0, 1), st.integers(0, 3)),
    st.tuples(st.just("image put back"), _devices, _ago, _down),
    st.tuples(st.just("backup put back"), _ago, st.booleans()),
    st.just(("new run",)),
    st.just(("two aggregators",)),
)

happenings: st.SearchStrategy[list[Happening]] = st.lists(st.tuples(_one, _waits), min_size=8, max_size=16).map(
    lambda pairs: [happening for pair in pairs for happening in pair]
)
"""Faults, and some time to work after each."""


def play(world: World, schedule: list[Happening]) -> None:
    """Let it happen, one after the other."""
    world.pass_time(3.0)
    for happening in schedule:
        if happening[0] != "pass":
            world.copy_folders()
        _do(world, happening)


def _do(world: World, happening: Happening) -> None:
    server = world.server
    match happening:
        case ("pass", seconds):
            world.pass_time(seconds)
        case ("aggregator crashes at", point, passings, down, power):
            server.down_seconds, server.power_fails = down, power
            server.points.arm(point, passings)
        case ("aggregator dies", down, power):
            server.down_seconds, server.power_fails = down, power
            server.kill()
        case ("client crashes at", number, point, passings, down):
            world.devices[number].down_seconds = down
            world.devices[number].points.arm(point, passings)
        case ("client dies", number, down):
            world.devices[number].down_seconds = down
            world.devices[number].kill()
        case ("broker dies", seconds, forget):
            world.stop_broker(seconds, forget=forget)
        case ("disk is full", seconds):
            world.fill_disk(seconds)
        case ("connection breaks", number):
            link = _link(world, number)
            if link is not None:
                link.drop()
        case ("network", faults):
            world.broker.faults = faults
        case ("redelivery", which, number):
            _deliver_again(world, which, number)
        case ("image put back", number, ago, down):
            world.devices[number].down_seconds = down
            world.devices[number].restore(ago)
        case ("backup put back", ago, as_new_run):
            _put_backup_back(world, ago, as_new_run=as_new_run)
        case ("new run",):
            _begin_new_run(world)
        case ("two aggregators",):
            _copy_to_a_rival(world)
        case _:
            raise AssertionError(happening)


def _link(world: World, number: int) -> MemoryLink | None:
    """The aggregator's connection, or that of a device counted from 1."""
    return world.devices[number - 1].link if number else world.server.link


def _deliver_again(world: World, which: float, number: int) -> None:
    """Any earlier message, once more, to a connection that could have had it."""
    link = _link(world, number)
    topics = world.topics
    heard = {topics.aggregator, topics.model, topics.layout}
    if number:
        heard |= {topics.reply(f"client-{number - 1}"), topics.status(f"client-{number - 1}")}
    else:
        heard = {topics.aggregator, *(topics.update(device.client_id) for device in world.devices)}
    earlier = [message for message in world.broker.messages if message.topic in heard]
    if link is not None and earlier:
        link.receive(earlier[min(int(which * len(earlier)), len(earlier) - 1)])


def _begin_new_run(world: World) -> None:
    """In a new folder, from the weights of the old run, over its head."""
    old = world.server
    old.kill()
    world.seen["new run"] += 1
    state = old.state() if old.folder.exists() else None
    if state is None:
        return
    world.server = world.machine(world.new_folder(), state.weights)
    world.server.replaces = True


def _put_backup_back(world: World, ago: int, *, as_new_run: bool) -> None:
    """A copy of the run's folder from so many happenings ago is started: the head that the broker keeps must stop it.

    Only where that head is newer than the copy: what nobody was ever shown, nobody can know.
    """
    real = world.server
    if len(world.backups) <= ago or not world.broker.running or real.core is None:
        return
    old = world.machine(shutil.copytree(world.backups[-1 - ago], world.new_folder()), real.core.state.weights)
    world.disk.sync_all(old.folder)
    state, head = old.state(), world.shown()
    if state is None or head is None or head.run != state.run or head.version <= state.version:
        return
    real.points.disarm()
    real.kill()
    world.server = old
    world.seen["old backup"] += 1
    with _orderly(world):
        stopped = world.pass_time(120.0, lambda: old.ending is not None)
    if not stopped or old.ending is None or old.ending.code != 2:
        world.wrong.append(f"an old backup was taken for the run: {old.ending}")
    if any(reply.incarnation == old.incarnation for _, reply in world.broker.replies):
        world.wrong.append("an old backup answered")
    if as_new_run:
        old.kill()
        world.server = world.machine(world.new_folder(), state.weights)
        world.server.replaces = True
    else:
        world.server = real


@contextmanager
def _orderly(world: World) -> Iterator[None]:
    """What every connection to an MQTT broker is. The fence rests on it; the conversation about updates does not."""
    faults, world.broker.faults = world.broker.faults, Faults()
    yield
    world.broker.faults = faults


def start_rival(world: World, second: Server) -> None:
    """A second aggregator on a copy of the folder: one of the two must stop."""
    first = world.server
    world.seen["two aggregators"] += 1
    world.rival = second
    with _orderly(world):
        world.pass_time(120.0, lambda: first.ending is not None or second.ending is not None)
    world.rival = None
    if first.ending is not None:
        first.kill()
        world.server = second
    else:
        second.kill()
        if second.ending is None:
            world.wrong.append("two aggregators serve one run")


def _copy_to_a_rival(world: World) -> None:
    first = world.server
    if world.broker.running and first.core is not None:
        first.points.disarm()
        start_rival(world, world.machine(first.copy_folder(world.new_folder()), first.core.state.weights))
