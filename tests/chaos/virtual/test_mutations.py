"""A proof that cannot fail is none: on the same few bad days each of these mistakes has to be noticed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.service import AggregatorService
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.edge_client.service import ClientService
from fedmq.failpoints import AGGREGATOR_POINTS
from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Layout
from fedmq.transport.memory import Faults
from tests.chaos.virtual.accounts import violations
from tests.chaos.virtual.forgetful_disk import ForgetfulDisk
from tests.chaos.virtual.schedules import play
from tests.chaos.virtual.strategies import STRATEGIES
from tests.chaos.virtual.world import a_world

Sync = Callable[[int], None]
DAYS = 3


def bad_days(sync: Callable[[ForgetfulDisk], Sync] | None = None, *, strategy: str = "fedbuff") -> str:
    """What is wrong after days on which the power fails at every point of a commit, in a network that loses much."""
    wrong: list[str] = []
    for seed in range(DAYS):
        with a_world(STRATEGIES[strategy], seed=seed, sync=sync) as world:
            play(world, [("network", Faults(delay=(0.0, 0.2), loss=0.3, duplication=0.3, reordering=True))])
            for point in AGGREGATOR_POINTS:
                play(world, [("aggregator crashes at", point, 1, 0.3, True), ("pass", 5.0)])
            world.settle()
            wrong += violations(world)
    return "; ".join(wrong)


sum_or_rule = pytest.mark.parametrize("strategy", ["fedbuff", "median"])


@sum_or_rule
def test_without_a_mistake_nothing_is_noticed(strategy: str) -> None:
    assert bad_days(strategy=strategy) == ""


@sum_or_rule
def test_receipts_before_the_commit_are_noticed(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    commit = AggregatorService._commit

    def told_first(self: AggregatorService, now: float) -> None:
        self._verdicts.answer(self._commits.replies.take())
        self._link.flush(1.0)  # a disk takes longer than a network
        commit(self, now)

    monkeypatch.setattr(AggregatorService, "_commit", told_first)
    assert "was accepted and is not in the weights" in bad_days(strategy=strategy)


@sum_or_rule
def test_an_aggregator_without_a_ledger_is_noticed(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    monkeypatch.setattr(AggregatorCore, "_remember", lambda *nothing: None)
    wrong = bad_days(strategy=strategy)
    assert "counts 2.0" in wrong
    assert "has 2 verdicts" in wrong


def test_updates_that_a_store_gives_back_in_another_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Store.load

    def the_other_way_round(self: Store, layout: Layout, **more: Any) -> State | None:
        state = load(self, layout, **more)
        if state is not None:
            state.buffer.rows.reverse()
        return state

    monkeypatch.setattr(Store, "load", the_other_way_round)
    assert "does not give version" in bad_days(strategy="median")


def test_an_outbox_that_is_cleared_when_the_offer_is_published_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    send = ClientService._send

    def sent_and_forgotten(self: ClientService, sequence: int, *more: Any) -> None:
        send(self, sequence, *more)
        self._outbox.delete(sequence)
        self._core.offers._pending.pop(sequence, None)

    monkeypatch.setattr(ClientService, "_send", sent_and_forgotten)
    assert "gone without a verdict" in bad_days()


def test_a_store_that_does_not_sync_its_files_is_noticed() -> None:
    def folders_only(disk: ForgetfulDisk) -> Sync:
        return lambda descriptor: disk.sync(descriptor) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else None

    with pytest.raises(StoreError, match="cannot be read"):
        bad_days(folders_only)


def test_a_store_that_does_not_sync_its_folder_is_noticed() -> None:
    def files_only(disk: ForgetfulDisk) -> Sync:
        return lambda descriptor: None if stat.S_ISDIR(os.fstat(descriptor).st_mode) else disk.sync(descriptor)

    with pytest.raises(StoreError, match="No such file"):
        bad_days(files_only)
