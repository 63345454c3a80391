"""A strategy that waits for clients that do not come says so; one that goes on as usual says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.strategies import fedavg, multi_krum
from fedmq.aggregator.waiting import Waiting
from fedmq.status_text import run_text
from tests.aggregator.door import LAYOUT, VERSION, Door
from tests.aggregator.small_run import RUN, SmallRun, plain_fedbuff

FLEET = ("ada", "bob", "cleo", "dan")


class Clock:
    """Looks once a second."""

    def __init__(self, core: AggregatorCore) -> None:
        self.waiting = Waiting()
        self.now = 0.0
        self._core = core

    def passes(self, seconds: int) -> str:
        """What is said after that."""
        for _ in range(seconds):
            self.now += 1.0
            self.waiting.look(self._core, self.now)
        return self.waiting.said


def test_a_buffer_with_slots_for_more_clients_than_there_are_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run = SmallRun(multi_krum(one_per_client=True))
    clock = Clock(run.core)
    assert clock.passes(600) == "", "nobody is here yet"
    for client in FLEET:
        run.deliver(client, 1.0)
    assert clock.passes(25) == ""
    said = clock.passes(10)
    assert said == (
        "multi_krum waits for 5 clients, with one update of each (one_per_client), and has those of 4: ada, bob, cleo,"
        " dan; the rule needs so many: start more clients, or set one_per_client = false"
    )
    assert clock.passes(3600) == said
    assert [said in line for line in caplog.messages] == [True] * 6, "after 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 minutes"
    run.deliver("eve", 1.0)
    assert clock.passes(1) == ""


@pytest.mark.parametrize(
    ("buffer_size", "way"),
    [(100, "set aggregator.buffer_size lower"), (2, "set one_per_client = false")],  # with it, 1 would be refused
)
def test_a_timer_that_ends_the_wait_is_named(buffer_size: int, way: str) -> None:
    run = SmallRun(plain_fedbuff(buffer_size, one_per_client=True))
    clock = Clock(run.core)
    run.deliver("ada", 1.0)
    clock.passes(1)
    assert f"{way}; else the flush timer makes a version without them" in clock.passes(35)


def test_clients_that_were_here_before_may_be_training_for_longer() -> None:
    run = SmallRun(plain_fedbuff(4, one_per_client=True))
    clock = Clock(run.core)
    for client in FLEET:
        run.deliver(client, 1.0)
    run.deliver("ada", 1.0)
    assert clock.passes(290) == ""
    assert "waits for 4 clients" in clock.passes(20)


def test_what_versions_usually_take_is_no_wait(caplog: pytest.LogCaptureFixture) -> None:
    run = SmallRun(fedavg(clients=2))
    clock = Clock(run.core)
    for client in FLEET[:2]:
        run.core.presence(client, True, 0.0)
    for _ in range(4):
        assert clock.passes(200) == ""
        run.deliver("ada", 1.0)
        run.deliver("bob", 1.0)
    assert clock.passes(590) == ""
    assert "a round of fedavg waits for 2 more of its 2 updates" in clock.passes(20)
    assert len(caplog.messages) == 1


def test_a_round_for_which_too_few_are_online_says_how_many_are() -> None:
    run = SmallRun(fedavg(clients=3))
    clock = Clock(run.core)
    run.core.presence("ada", True, 0.0)
    assert clock.passes(25) == ""
    said = "a round of fedavg waits for 3 clients to be online, 1 is; start more, or set aggregator.clients lower"
    assert clock.passes(10) == said
    run.core.presence("bob", True, clock.now)
    assert clock.passes(1) == said.replace("1 is", "2 are")


@pytest.mark.parametrize(
    ("deadline", "says"),
    [(None, "aggregator.deadline would end a round without them"), (900.0, "its deadline ends it without them")],
)
def test_a_round_that_waits_for_who_is_online_and_silent_names_it(deadline: float | None, says: str) -> None:
    run = SmallRun(fedavg(clients=2, deadline=deadline))
    clock = Clock(run.core)
    for client in FLEET[:2]:
        run.core.presence(client, True, 0.0)
    run.deliver("ada", 1.0)
    said = clock.passes(310)
    assert said.startswith("a round of fedavg waits for 1 more of its 2 updates; online and silent is bob; ")
    assert says in said


def test_who_let_a_deadline_pass_is_none_that_a_round_waits_for() -> None:
    run = SmallRun(fedavg(clients=4))
    for client in FLEET:
        run.core.presence(client, True, 0.0)
    run.publish()
    run.core.cohort.silent.add("dan")
    clock = Clock(run.core)
    run.deliver("ada", 1.0, now=0.0)
    said = clock.passes(600)
    assert "waits for 2 more of its 3 updates; online and silent are bob, cleo;" in said


def test_a_round_all_of_whose_clients_went_says_that_others_are_refused() -> None:
    run = SmallRun(fedavg(clients=2))
    clock = Clock(run.core)
    for online in (True, False):
        for client in FLEET[:2]:
            run.core.presence(client, online, 0.0)
    assert "offline are ada, bob, and others are refused until one of them has come" in clock.passes(35)


def test_a_strategy_that_takes_updates_of_any_client_and_a_finished_run_wait_for_none() -> None:
    run = SmallRun(plain_fedbuff(100))
    run.deliver("ada", 1.0)
    assert Clock(run.core).passes(4000) == ""
    run = SmallRun(multi_krum(one_per_client=True))
    run.deliver("ada", 1.0)
    run.core.finish("enough", run.seconds)
    assert Clock(run.core).passes(4000) == ""


def test_a_time_without_a_connection_is_no_wait() -> None:
    run = SmallRun(multi_krum(one_per_client=True))
    clock = Clock(run.core)
    run.deliver("ada", 1.0)
    assert clock.passes(40)
    clock.waiting.begin()
    assert clock.waiting.said == ""
    assert clock.passes(25) == ""
    assert clock.passes(10)


def test_it_is_in_the_log_and_in_the_progress_as_long_as_it_lasts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), strategy=plain_fedbuff(2, one_per_client=True))
    assert door.ask(door.offer()) is None
    assert door.progress().waits == ""
    door.work(40.0)
    said = door.progress().waits
    assert said.startswith(
        "fedbuff waits for 2 clients, with one update of each (one_per_client), and has those of 1: dev"
    )
    assert f"waits: {said}" in run_text(None, door.progress())
    assert sum(said in line for line in caplog.messages) == 1
    door.work(400.0)  # the timer
    assert door.state.version == VERSION + 1
    assert door.progress().waits == ""
    door.end()
