"""The run's folder: all of the state comes back, and a folder that cannot be used stays as it is."""

from __future__ import annotations

import copy
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.judged import Judged
from fedmq.aggregator.state import News, State
from fedmq.aggregator.store import FORMAT, Store
from fedmq.aggregator.strategies import STRATEGIES as EVERY_STRATEGY
from fedmq.aggregator.strategies import Strategy, fedasync, fedavg, fedbuff, median
from fedmq.schemas.errors import ConfigError, StoreError, UnusableError
from fedmq.schemas.messages import Evaluation
from tests.aggregator.small_run import SmallRun, layout_of, offer_of, outbox, plain_fedbuff


def everything_of(state: State) -> dict[str, Any]:
    """All that a restart goes on from, in a form that compares."""
    ledger = {
        client: (state.ledger.outboxes(client), state.ledger.retired(client), state.ledger.forgotten(client))
        for client in state.ledger.clients()
    }
    remembered = {
        "run": state.run,
        "layout": state.layout,
        "weights": state.weights.tobytes(),
        "version": state.version,
        "buffer": (state.buffer.total.tobytes(), state.buffer.weight, state.buffer.mass, state.buffer.opened),
        "rows": [row.tobytes() for row in state.buffer.rows],
        "buffered": state.buffer.updates,
        "velocity": None if state.velocity is None else state.velocity.tobytes(),
        "ledger": ledger,
        "tempo": state.tempo,
        "scores": dict(state.scores.newest),
        "norms": list(state.norms.newest.items()),
        "bases": {version: base.tobytes() for version, base in state.bases.items()},
        "totals": (state.accepted, state.rejected, state.staleness_sum, state.uplink_bytes),
        "seconds": state.seconds,
        "finished": state.finished,
        "replaced": state.replaced,
    }
    return copy.deepcopy(remembered)


def commit(store: Store, run: SmallRun) -> None:
    run.state.seconds = run.seconds
    store.commit(run.state, run.core.take())


def opened(folder: Path, layout_size: tuple[int, int] = (2, 1)) -> tuple[Store, State]:
    store = Store(folder, "kitchen")
    state = store.load(layout_of(*layout_size))
    assert state is not None
    return store, state


def eventful(strategy: Strategy) -> SmallRun:
    """A run in which everything that is remembered has happened."""
    run = SmallRun(strategy, [0.5, -0.5], [1.0])
    for client in ("client-0", "client-1"):
        run.core.presence(client, True, 0.0)
    for number in range(10):
        evaluation = Evaluation(num_samples=5, metrics={"accuracy": number / 10})
        values = [0.1 * number, 1.0, 2.0]
        run.judge(f"client-{number % 3}", values, evaluation=evaluation, num_samples=10 + number)
        run.publish()
    for box in (1, 2, 3):  # the first of them is retired
        run.judge("bob", [float("nan"), 0, 0], sequence=0, outbox_id=outbox(box))
    run.judge("carol", [0.1, 0.2, 0.3], run="f" * 32)
    run.state.replaced.append("d" * 32)
    assert run.state.version
    assert run.state.buffer.updates or strategy.mixes
    return run


STRATEGIES = pytest.mark.parametrize(
    "strategy",
    [
        plain_fedbuff(4),
        plain_fedbuff(4, momentum=0.9),
        plain_fedbuff(4, clip_medians=1.0),
        median(buffer_size=4),
        fedasync(momentum=0.5),
        fedavg(clients=2),
    ],
    ids=["with a buffer", "with momentum", "with clipping", "with kept updates", "with bases", "with a cohort"],
)


def test_a_new_folder_has_no_run_in_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs" / "kitchen", "kitchen")
    assert (store.layout(), store.load(layout_of(1)), list(store.history())) == (None, None, [])
    store.close()


@STRATEGIES
def test_the_whole_state_comes_back(strategy: Strategy, tmp_path: Path) -> None:
    run = eventful(strategy)
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    assert everything_of(state) == everything_of(run.state)
    assert store.layout() == run.layout
    store.close()


@STRATEGIES
def test_many_small_commits_are_as_good_as_one(strategy: Strategy, tmp_path: Path) -> None:
    run = SmallRun(strategy, [0.5, -0.5], [1.0])
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    for number in range(12):
        run.judge(f"client-{number % 2}", [0.1 * number, 1.0, 2.0], outbox_id=outbox(1 + number // 5))
        if number % 3 == 0:
            run.publish()
        commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    assert everything_of(state) == everything_of(run.state)
    store.close()


@STRATEGIES
def test_a_run_that_was_restarted_goes_on_to_the_same_bits(strategy: Strategy, tmp_path: Path) -> None:
    def go_on(core: AggregatorCore, numbers: range) -> None:
        for number in numbers:
            core.presence("client-0", True, float(number))
            version = core.state.version
            offer, body = offer_of([0.3 * number, 1.0, 2.0], core.state.layout, client_id=f"client-{number % 2}",
                                   sequence=number, base_version=version)  # fmt: skip
            core.judge(offer.client_id, offer, body, float(number))
            if core.state.version > version:
                core.published(core.state.version, core.state.weights.copy, float(number))

    whole, first = (SmallRun(strategy, [0.5, -0.5], [1.0]) for _ in range(2))
    go_on(whole.core, range(11))
    go_on(first.core, range(6))
    store = Store(tmp_path, "kitchen")
    commit(store, first)
    store.close()
    store, state = opened(tmp_path)
    second = AggregatorCore(state, strategy, first.core.rules, Goal())
    second.cohort = first.core.cohort  # presence is heard again after a restart; it is not stored
    go_on(second, range(6, 11))
    assert state.version == whole.state.version
    assert state.weights.tobytes() == whole.state.weights.tobytes()
    assert state.buffer.total.tobytes() == whole.state.buffer.total.tobytes()
    store.close()


def test_a_verdict_is_the_same_after_a_restart(tmp_path: Path) -> None:
    run = SmallRun(parameters=[0.0, 0.0], statistics=[1.0])
    accepted, body = offer_of([1, 1, 1], run.layout)
    receipt = run.core.judge("alice", accepted, body, 0.0)
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    again = AggregatorCore(state, run.strategy, run.core.rules, Goal())
    assert again.judge("alice", accepted, body, 9.0) == receipt
    assert state.accepted == 1
    store.close()


def test_retired_outboxes_keep_their_order_over_a_restart_so_that_the_oldest_is_forgotten(tmp_path: Path) -> None:
    run = SmallRun(parameters=[0.0, 0.0], statistics=[1.0])
    boxes = [outbox(1000 - 7 * number) for number in range(67)]  # not in the order of their names
    for box in boxes[:66]:
        run.deliver("alice", 1.0, 1.0, 1.0, outbox_id=box)
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    store.close()
    assert list(state.ledger.retired("alice")) == boxes[:64]
    offer, body = offer_of([1.0, 1.0, 1.0], run.layout, outbox_id=boxes[66])
    AggregatorCore(state, run.strategy, run.core.rules, Goal()).judge("alice", offer, body, 99.0)
    assert list(state.ledger.retired("alice")) == boxes[1:65]


def test_an_update_of_an_outbox_that_is_forgotten_is_not_counted_again_after_a_restart_either(tmp_path: Path) -> None:
    run = SmallRun(parameters=[0.0, 0.0], statistics=[1.0])
    first, body = offer_of([1.0, 1.0, 1.0], run.layout, outbox_id=outbox(0))
    run.core.judge("alice", first, body, 0.0)
    for box in range(1, 67):
        run.deliver("alice", 1.0, 1.0, 1.0, outbox_id=outbox(box), base_version=run.state.version)
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    store.close()
    core = AggregatorCore(state, run.strategy, run.core.rules, Goal())
    newer, _ = offer_of([1.0, 1.0, 1.0], run.layout, outbox_id=outbox(99), base_version=1)
    for once in (run.core, core):
        again = once.judge("alice", first, body, 99.0)
        assert isinstance(again, Judged)
        assert again.reason == "expired"
        assert once.state.accepted == 67
        accepted = once.judge("alice", newer, body, 99.0)
        assert isinstance(accepted, Judged)
        assert accepted.reason is None


@pytest.mark.parametrize("name", EVERY_STRATEGY)
@pytest.mark.parametrize(
    "left_by",
    [fedbuff(buffer_size=8), fedbuff(buffer_size=8, sample_weights=True), fedavg(clients=8)],
    ids=["fedbuff", "fedbuff by samples", "fedavg"],
)  # FedAsync never leaves anything in its buffer
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_what_another_strategy_left_in_the_buffer_moves_the_model_no_further_than_a_mean_of_it(
    left_by: Strategy, name: str, momentum: float, tmp_path: Path
) -> None:
    run = SmallRun(left_by, [0.0, 0.0], [1.0])
    for number in range(8):
        run.core.presence(f"client-{number}", True, 0.0)
    for number in range(13):  # a version, and five updates in the buffer, which may be stale
        base = run.state.version if left_by.cohort else 0
        values = (0.5 + number / 26, -1.0, 0.5 + number / 26)
        run.deliver(f"client-{number % 8}", *values, base_version=base, num_samples=200 + number)
    assert (run.state.version, len(run.state.buffer.updates)) == (1, 5)
    before = run.weights
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    store.close()

    core = AggregatorCore(state, EVERY_STRATEGY[name](momentum=momentum), run.core.rules, Goal())
    core.finish("enough", 999.0)
    assert state.version == 2
    first, second, statistic = (float(x) for x in state.weights)
    if core.strategy.rule is not None:  # sums cannot be taken apart again, and are not a silent mean
        assert [first, second, statistic] == before
        return
    assert 0 < first - before[0] <= 1 + 1e-6
    assert -1 - 1e-6 <= second - before[1] < 0
    assert 0.5 <= statistic <= 1


def test_what_was_kept_for_a_rule_and_is_summed_again_is_on_the_disk_before_anything_comes(tmp_path: Path) -> None:
    run, store = SmallRun(plain_fedbuff(4), [0.0, 0.0], [0.0]), Store(tmp_path, "kitchen")
    run.deliver("alice", 1.0, 1.0, 1.0)
    commit(store, run)
    for strategy, client in ((median(buffer_size=4), "bob"), (plain_fedbuff(4), None), (plain_fedbuff(4), None)):
        store.close()
        store, state = opened(tmp_path)
        run.core = AggregatorCore(state, strategy, run.core.rules, Goal())
        if client is not None:
            run.deliver(client, 2.0, 2.0, 2.0)
        commit(store, run)
    assert list(run.state.buffer.total) == [3.0, 3.0, 3.0]
    store.close()


def test_nothing_of_a_run_piles_up_in_its_folder(tmp_path: Path) -> None:
    run = SmallRun(fedasync())
    store = Store(tmp_path, "kitchen")
    for _ in range(40):
        run.deliver("alice", 1.0)
        commit(store, run)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors*"))
    assert len([name for name in names if name.startswith("weights-")]) == 1
    assert len([name for name in names if name.startswith("base-")]) == 16
    store.close()


def test_the_history_has_a_row_for_every_version_with_what_was_measured_of_it(tmp_path: Path) -> None:
    run = SmallRun(plain_fedbuff(2))
    store = Store(tmp_path, "kitchen")
    for number in range(4):
        evaluation = Evaluation(num_samples=10, metrics={"accuracy": 0.25 * (number % 2 + 1)}) if number > 1 else None
        run.deliver(f"client-{number}", 1.0, now=float(number), evaluation=evaluation)
        commit(store, run)
    run.core.measured(2, {"loss": 0.5})
    commit(store, run)
    first, second = store.history()
    store.close()

    assert (first["version"], first["why"], first["buffer_size"], first["seconds"]) == (1, "full", 2, 1.0)
    assert [update["client_id"] for update in first["updates"]] == ["client-0", "client-1"]
    assert first["updates"][0]["update"] == {"outbox_id": outbox(1), "sequence": 0}
    assert (first["updates"][0]["weight"], first["updates"][0]["num_samples"]) == (1.0, 10)
    assert first["devices"]["mean"] == {"accuracy": 0.375}
    assert (first["aggregator"], second["aggregator"]) == (None, {"loss": 0.5})
    assert second["devices"] is None


def test_what_was_measured_of_a_version_outlives_a_restart_and_one_late_device(tmp_path: Path) -> None:
    run = SmallRun(plain_fedbuff(1))
    store = Store(tmp_path, "kitchen")
    run.deliver("alice", 1.0)
    for base in (1, 2):  # both measure version 1, and then version 2
        for client in ("alice", "bob"):
            run.deliver(client, 1.0, base_version=base, evaluation=Evaluation(num_samples=10, metrics={"loss": 0.5}))
    commit(store, run)
    before = next(store.history())["devices"]
    assert before["clients"] == 2
    store.close()
    store = Store(tmp_path, "kitchen")
    state = store.load(run.layout)
    assert state is not None
    run.core = AggregatorCore(state, run.strategy, run.core.rules, run.core.goal)
    run.deliver("carol", 1.0, base_version=1, evaluation=Evaluation(num_samples=10, metrics={"loss": 9.0}))
    commit(store, run)
    assert next(store.history())["devices"] == before
    store.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def newer_format(folder: Path) -> None:
    database = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    database.execute("UPDATE state SET value = ? WHERE key = 'format'", (json.dumps(FORMAT + 1),))
    database.close()


@pytest.mark.parametrize(
    ("federation", "layout", "change", "says"),
    [
        ("garden", (2, 1), lambda folder: None, "of federation 'kitchen', expected 'garden'"),
        ("kitchen", (2, 1), newer_format, f"format {FORMAT + 1}, this FedMQ reads {FORMAT}; update FedMQ"),
        ("kitchen", (3, 1), lambda folder: None, r"parameter 'weight' float32\[3\] here, .* float32\[2\] there"),
        ("kitchen", (2, 0), lambda folder: None, "entry 1 'mean' is there and not here"),
        (
            "kitchen",
            (2, 1),
            lambda folder: (folder / "weights-1.safetensors").write_bytes(b"torn"),
            "weights-1.safetensors cannot be read",
        ),
        (
            "kitchen",
            (2, 1),
            lambda folder: (folder / "weights-1.safetensors").unlink(),
            "weights-1.safetensors cannot be read",
        ),
        ("kitchen", (2, 1), lambda folder: (folder / "run.sqlite").write_bytes(b"no database" * 99), "not a database"),
    ],
    ids=["federation", "format", "shape", "entries", "torn vectors", "no vectors", "no database"],
)
def test_a_folder_that_does_not_fit_is_refused_and_stays_byte_for_byte_as_it_was(
    federation: str, layout: tuple[int, int], change: Callable[[Path], Any], says: str, tmp_path: Path
) -> None:
    run = eventful(plain_fedbuff(4))
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    store.close()
    change(tmp_path)
    before = contents(tmp_path)

    def open_and_load() -> None:
        store = Store(tmp_path, federation)
        try:
            store.load(layout_of(*layout))
        finally:
            store.close()

    with pytest.raises(StoreError, match=says) as refusal:
        open_and_load()
    of_the_disk = "cannot be read" in says or "database" in says
    assert isinstance(refusal.value, ConfigError) != of_the_disk
    assert str(tmp_path) in str(refusal.value)
    assert contents(tmp_path) == before


def test_a_second_aggregator_is_refused_with_the_process_id_of_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path, "kitchen")
    with pytest.raises(StoreError, match=rf"an aggregator \(process {os.getpid()}\) works in it"):
        Store(tmp_path, "kitchen")
    script = (
        "import sys, pathlib\n"
        "from fedmq.aggregator.store import Store\n"
        "from fedmq.schemas.errors import StoreError\n"
        "try: Store(pathlib.Path(sys.argv[1]), 'kitchen')\n"
        "except StoreError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"(process {os.getpid()})" in said.stdout
    store.close()
    Store(tmp_path, "kitchen").close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path, why in (
        (tmp_path / "file" / "run", "a part of this path is a file"),
        (tmp_path / "file", "it is a file"),
    ):
        said = re.escape(f"run folder {path}: {why} and no folder; choose another with [aggregator] folder")
        with pytest.raises(UnusableError, match=said):
            Store(path, "kitchen")


def test_a_commit_of_nothing_new_writes_no_vectors(tmp_path: Path) -> None:
    run = SmallRun()
    store = Store(tmp_path, "kitchen")
    commit(store, run)
    vectors = next(tmp_path.glob("weights-*"))
    stamp = vectors.stat().st_mtime_ns, vectors.name
    run.judge("alice", [float("nan")])
    store.commit(run.state, News())
    vectors = next(tmp_path.glob("weights-*"))
    assert (vectors.stat().st_mtime_ns, vectors.name) == stamp
    store.close()


def test_more_outboxes_of_one_client_in_one_commit_than_are_remembered_do_no_harm(tmp_path: Path) -> None:
    run = SmallRun(parameters=[0.0, 0.0], statistics=[1.0])
    store = Store(tmp_path, "kitchen")
    run.deliver("alice", 1.0, 1.0, 1.0, outbox_id=outbox(999))
    commit(store, run)
    for number in range(70):
        run.deliver("alice", 1.0, 1.0, 1.0, outbox_id=outbox(number))
    commit(store, run)
    run.deliver("alice", 1.0, 1.0, 1.0, outbox_id=outbox(999))  # so old that it is new again
    commit(store, run)
    store.close()
    store, state = opened(tmp_path)
    assert everything_of(state) == everything_of(run.state)
    store.close()
    database = sqlite3.connect(tmp_path / "run.sqlite")
    assert database.execute("SELECT count(*) FROM outbox WHERE place >= 0").fetchone() == (2,)
    database.close()
