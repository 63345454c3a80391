"""A copy of the run folder that is older by a rejection alone may not go on: it might accept what was refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.state import State
from fedmq.schemas.wire import encode
from fedmq.transport.memory import MemoryBroker
from tests.aggregator import test_commits
from tests.aggregator.small_run import offer_of
from tests.aggregator.test_commits import LAYOUT, RULES, STRATEGY, TOPICS, Kitchen


class OneTask(Kitchen):
    """It takes updates of task version 1."""

    def core(self, state: State) -> AggregatorCore:
        return AggregatorCore(state, STRATEGY, replace(RULES, task_versions=frozenset({"1"})), Goal())

    def judge(self, sequence: int, task_version: str) -> str:
        offer, body = offer_of(np.ones(4, np.float32), LAYOUT, sequence=sequence, task_version=task_version)
        self.client.publish(TOPICS.update("alice"), encode(offer, body))
        self.until(lambda: sequence in self.receipts)
        self.pass_time(3.0)  # the progress shows it
        return self.receipts[sequence].verdict


@pytest.mark.parametrize("folder", ["run", "copy"])
def test_it_ends_and_the_newest_goes_on(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OneTask(tmp_path / "run")
    assert run.judge(0, "1") == "accepted"
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert run.judge(1, "2") == "rejected"
    run.close()
    run.client.close()

    def the_same_broker() -> MemoryBroker:
        return run.broker

    monkeypatch.setattr(test_commits, "MemoryBroker", the_same_broker)
    again = Kitchen(tmp_path / folder)
    again.pass_time(5.0)
    if folder == "run":
        assert again.service.ended is None
    else:
        assert again.service.ended is not None
        assert again.service.ended.code == 2
        assert "2 verdicts on updates of this run, this folder holds 1" in again.service.ended.why
    again.close()
