from __future__ import annotations

import json

import pytest

from fedmq.schemas.messages import Head
from fedmq.tasks.initial import read_weights
from tests.system.handmade import HandmadeClient
from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def test_a_run_that_reached_its_goal_sends_everyone_home(fed: Federation) -> None:
    fed.set(aggregator__goal__versions=5)
    aggregator = fed.aggregator()
    clients = [fed.client("ada"), fed.client("bob")]
    assert [program.ends() for program in (aggregator, *clients)] == [0, 0, 0]
    assert "finished: 5 versions" in aggregator.log
    for client in clients:
        fed.until(lambda c=client: fed.status(c.name).activity == "finished", "its status")  # type: ignore[misc]
        assert (fed.status(client.name).state, fed.status(client.name).detail) == ("offline", "the run is finished")
    with HandmadeClient(fed, "zoe") as zoe:
        head: Head = zoe.head
    assert (head.state, head.version) == ("finished", 5)

    late = fed.client("late")
    assert late.ends() == 0
    assert "trained" not in late.log

    shown = json.loads(fed.command("status", "--json").stdout)
    assert (shown["aggregator"]["state"], shown["progress"]["state"]) == ("offline", "finished")
    assert (shown["progress"]["version"], shown["progress"]["updates"]) == (5, 5)
    out = fed.folder / "model.safetensors"
    done = fed.command("export", "--out", str(out))
    assert done.stdout == f"{out}: version 5, 4 floats, run {head.run}\n"
    # Ada and bob added 1 each time, whichever version they started from.
    assert read_weights(out)[1].tolist() == fed.read_run().weights.tolist() != [0.0] * 4


def test_a_goal_that_lies_further_on_makes_a_finished_run_go_on(fed: Federation) -> None:
    fed.set(aggregator__goal__versions=2)
    fed.aggregator()
    assert fed.client("ada").ends() == 0
    first = fed.read_run()
    again = fed.aggregator()
    assert again.ends() == 0  # the same goal: it is finished still
    assert "the run has reached its goal (2 versions) and ends again; set another [aggregator.goal], or" in again.log
    assert "start the clients" not in again.log
    assert fed.read_run().version == 2
    fed.set(aggregator__goal__versions=4)
    further = fed.aggregator()
    further.says("fedmq.aggregator connected")
    assert "the run was finished (2 versions); it goes on to its goal, start the clients again" in further.log
    assert fed.client("ada").ends() == 0
    second = fed.read_run()
    assert (second.run, second.version) == (first.run, 4)
