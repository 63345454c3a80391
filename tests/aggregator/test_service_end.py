"""How a run ends: committed first, the last version measured, and said to a broker that is there."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.evaluator import ThreadEvaluator
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.service import AggregatorService
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import fedbuff
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.messages import Head, Metrics, Progress
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode
from fedmq.transport.memory import MemoryBroker, MemoryLink

TOPICS = Topics("ending")
LAYOUT = Layout.of([Entry("w", (3,))])


class Ending:
    """An aggregator whose run ends after five seconds."""

    def __init__(self, store: Store | None = None, evaluator: ThreadEvaluator | None = None) -> None:
        self.broker = MemoryBroker()
        self.link: MemoryLink = self.broker.link("aggregator")
        state = State.initial("a" * 32, LAYOUT, np.zeros(3, np.float32))
        core = AggregatorCore(state, fedbuff(buffer_size=1), Rules(state.run, LAYOUT), Goal(seconds=5))
        self.service = AggregatorService(
            link=self.link,
            topics=TOPICS,
            core=core,
            publisher=Publisher(self.link, TOPICS, Plan(), codec_named("float32"), interval=0.0),
            incarnation="b" * 32,
            store=store,
            evaluator=evaluator,
            clock=lambda: self.broker.time.now,
        )
        self.link.open()
        self.pass_time(1.0)

    def pass_time(self, seconds: float) -> None:
        until = self.broker.time.now + seconds
        while self.broker.time.now < until and self.service.ended is None:
            event = self.link.poll(0.1)
            if event is not None:
                self.service.handle(event)
            if self.service.ended is None:
                self.service.tick()

    def shown(self) -> str:
        return decode(self.broker.retained[TOPICS.model], Head)[0].state


def test_a_run_that_ends_while_the_broker_is_away_says_so_when_it_is_back() -> None:
    run = Ending()
    run.broker.stop()
    run.pass_time(10.0)
    assert run.service.ended is None
    assert run.shown() == "training"
    run.broker.start()
    run.pass_time(5.0)
    assert run.service.ended is not None
    assert run.service.ended.code == 0
    assert run.shown() == "finished"


def test_the_end_is_committed_before_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, "ending")
    run = Ending(store=store)

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(StoreError):
        run.pass_time(10.0)
    assert run.shown() == "training"
    store.close()


def test_the_last_version_is_measured_before_the_run_ends() -> None:
    def slowly(weights: Vector) -> Metrics:
        time.sleep(0.1)  # in a thread of its own, while virtual time flies
        return {"accuracy": float(len(weights))}

    run = Ending(evaluator=ThreadEvaluator(slowly, lambda: None))
    deadline = time.monotonic() + 20
    while run.service.ended is None and time.monotonic() < deadline:
        run.pass_time(0.1)
        time.sleep(0.001)
    assert run.service.ended is not None
    progress = decode(run.broker.retained[TOPICS.progress], Progress)[0]
    assert (progress.state, progress.aggregator_version, progress.aggregator) == ("finished", 0, {"accuracy": 3.0})
