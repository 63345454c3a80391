"""Rules that need the updates themselves: each against a few lines of numpy, and what they are for."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator import kept_updates
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.folding import BLOCK
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.staleness import constant
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import Strategy, median, multi_krum, trimmed_mean
from fedmq.aggregator.strategies.multi_krum import _squared_distances
from fedmq.schemas.errors import ConfigError
from tests.aggregator.small_run import SmallRun, layout_of, plain_fedbuff
from tests.aggregator.test_store import commit, everything_of, opened
from tests.generators import unhurried

ALL = {"median": median, "trimmed_mean": trimmed_mean, "multi_krum": multi_krum}
NEEDS = {"median": 3, "trimmed_mean": 3, "multi_krum": 5}
each = pytest.mark.parametrize("name", ALL)

Rows = npt.NDArray[np.float32]


def combined(strategy: Strategy, rows: Rows, weights: list[float] | None = None, parameters: int | None = None) -> Rows:
    assert strategy.rule is not None
    ones = [1.0] * len(rows) if weights is None else weights
    return strategy.rule.combine(list(rows), ones, rows.shape[1] if parameters is None else parameters)


def krum_by_hand(rows: Rows, f: int) -> list[int]:
    """The subset of the m updates with the smallest scores, each the best of all sums over n - f - 2 others."""
    n, scores = len(rows), []
    for i in range(n):
        apart = [float(np.sum((rows[i].astype(float) - rows[j].astype(float)) ** 2)) for j in range(n) if j != i]
        scores.append(min(sum(some) for some in itertools.combinations(apart, n - f - 2)))
    return sorted(range(n), key=lambda i: (scores[i], i))[: n - 2 * f]


def random_rows(seed: int, count: int, size: int = 6) -> Rows:
    return np.random.default_rng(seed).normal(0, 1, (count, size)).astype(np.float32)


@pytest.mark.parametrize("count", [3, 4, 7, 10])
def test_the_median_is_numpys(count: int) -> None:
    rows = random_rows(count, count, BLOCK + 9)
    np.testing.assert_allclose(combined(median(), rows), np.median(rows, axis=0), atol=1e-6)


@pytest.mark.parametrize(("count", "trim"), [(3, 1), (4, 1), (7, 3), (10, 3)])
def test_the_trimmed_mean_leaves_out_the_ends_of_each_coordinate(count: int, trim: int) -> None:
    rows = random_rows(count, count, BLOCK + 9)
    expected = np.sort(rows, axis=0)[trim : count - trim].mean(axis=0)
    np.testing.assert_allclose(combined(trimmed_mean(), rows), expected, atol=1e-6)


@unhurried
@given(st.integers(0, 1000), st.sampled_from([(5, 1), (6, 1), (7, 2), (9, 3), (10, 3)]))
def test_multi_krum_picks_what_brute_force_picks(seed: int, size: tuple[int, int]) -> None:
    count, f = size
    rows = random_rows(seed, count)
    expected = rows[krum_by_hand(rows, f)].mean(axis=0)
    np.testing.assert_allclose(combined(multi_krum(), rows), expected, atol=1e-6)


@pytest.mark.parametrize("count", [5, 40])
def test_distances_of_updates_that_are_nearly_the_same_are_those_of_their_differences(count: int) -> None:
    rng = np.random.default_rng(count)
    rows = (1024 + rng.integers(-9, 9, (count, 3000)) * 2.0**-13).astype(np.float32)
    rows[0] = 1e9
    rows[2] = rows[1]
    exact = [[np.sum((one - other) ** 2) for other in rows.astype(float)] for one in rows.astype(float)]
    found = _squared_distances(list(rows), [1.0] * count, rows.shape[1])
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert found[1, 2] == 0.0


def test_small_numbers_by_hand() -> None:
    rows = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]], np.float32)
    assert combined(median(), rows) == [3.0]
    assert combined(trimmed_mean(hostile=0.2), rows) == [3.0]  # 2, 3 and 4
    # f = 1, each has two neighbours: 1 + 4, 1 + 1, 1 + 1, 1 + 4, far; of 1 and 4, which are equal, the first.
    assert combined(multi_krum(hostile=0.2), rows) == [2.0]


@each
def test_stale_deltas_are_scaled_before_the_rule_and_statistics_are_not(name: str) -> None:
    rows = np.full((5, 2), 8.0, np.float32)
    assert list(combined(ALL[name](), rows, [0.5] * 5, parameters=1)) == [4.0, 8.0]


@each
@unhurried
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_matter(name: str, seed: int, shuffle: Any) -> None:
    rows = random_rows(seed, 9)
    order = list(range(9))
    shuffle.shuffle(order)
    np.testing.assert_allclose(combined(ALL[name](), rows[order]), combined(ALL[name](), rows), atol=1e-5)


@each
@unhurried
@given(st.integers(0, 1000), st.sampled_from([-1e15, -50.0, 50.0, 1e15]))
def test_three_of_ten_whose_parameters_look_honest_do_not_move_the_statistics_beyond_the_others(
    name: str, seed: int, sent: float
) -> None:
    honest = random_rows(seed, 7)
    hostile = np.repeat(honest.mean(axis=0)[None], 3, axis=0)
    hostile[:, 4:] = sent
    statistics = combined(ALL[name](), np.concatenate([hostile, honest]), parameters=4)[4:]
    assert (statistics >= honest[:, 4:].min(axis=0) - 1e-6).all()
    assert (statistics <= honest[:, 4:].max(axis=0) + 1e-6).all()


@pytest.mark.parametrize(("share", "count"), [(0.07, 100), (0.28, 25), (0.14, 50)])
def test_a_share_that_is_a_whole_number_is_that_many(share: float, count: int) -> None:
    assert share * count > 7  # by a rounding error
    most = 7
    rows = np.arange(count, dtype=np.float32)[:, None] ** 3
    expected = rows[most : count - most].mean(dtype=np.float64)
    np.testing.assert_allclose(combined(trimmed_mean(hostile=share), rows), [expected], rtol=1e-6)


@each
@unhurried
@given(st.integers(0, 1000), st.lists(st.sampled_from([-1e15, -50.0, 0.0, 50.0, 1e15]), min_size=3, max_size=3))
def test_three_of_ten_do_not_move_the_result_beyond_the_others(name: str, seed: int, sent: list[float]) -> None:
    honest = random_rows(seed, 7)
    rows = np.concatenate([honest, np.repeat(np.array(sent, np.float32)[:, None], 6, axis=1)])
    result = combined(ALL[name](), rows)
    if name == "multi_krum":  # it may choose a hostile one, if that lies among the others
        assert np.abs(result).max() <= np.abs(honest).max() + 1e-6
    else:
        assert (result >= honest.min(axis=0) - 1e-6).all()
        assert (result <= honest.max(axis=0) + 1e-6).all()


@each
def test_a_buffer_waits_for_what_the_rule_needs_whatever_the_timer_says(name: str) -> None:
    run = SmallRun(ALL[name](server_learning_rate=1.0))
    for _ in range(NEEDS[name]):
        run.deliver("alice", 1.0)
    assert run.state.version == 1
    for number in range(NEEDS[name] - 1):
        run.deliver("alice", 1.0)
        run.core.tick(run.seconds + (1e6 if number == NEEDS[name] - 2 else 0))
        assert run.core.deadline() is None
        assert run.state.version == 1
    run.core.finish("the end", run.seconds)  # an accepted update is in a version, but too few move nothing
    assert run.state.version == 2
    assert len(run.core.news.versions[-1].updates) == NEEDS[name] - 1
    assert run.weights == [1.0]


@each
def test_the_core_goes_the_set_part_of_the_way_and_statistics_go_with_the_rule(name: str) -> None:
    run = SmallRun(ALL[name](buffer_size=5, server_learning_rate=0.5, statistics_rate=0.25), [1.0], [0.0])
    for client in range(5):
        run.deliver(f"client-{client}", 2.0, 8.0)
    assert run.weights == [2.0, 2.0]


def test_what_another_strategy_summed_moves_nothing_under_a_rule_and_what_was_kept_is_summed_without_one() -> None:
    run = SmallRun(plain_fedbuff(4), [0.0])
    run.deliver("alice", 9.0)
    run.core = AggregatorCore(run.state, median(buffer_size=4, server_learning_rate=1.0), run.core.rules, Goal())
    for client in ("bob", "carol", "dave"):
        run.deliver(client, 1.0)
    assert (run.state.version, run.weights) == (1, [1.0])
    for client in ("bob", "carol"):
        run.deliver(client, 3.0)
    run.core = AggregatorCore(run.state, plain_fedbuff(4), run.core.rules, Goal())
    run.deliver("alice", 1.0)
    run.deliver("bob", 1.0)
    assert run.weights == [1.0 + 8.0 / 4]


@each
def test_a_buffer_that_does_not_fit_is_refused_and_the_automatic_one_stays_within_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_updates, "KEPT_BYTES", 6 * 4)
    with pytest.raises(ConfigError, match="keeps 7 updates of 4 bytes, expected at most 24 bytes"):
        SmallRun(ALL[name](buffer_size=7))
    run = SmallRun(ALL[name](staleness=constant()))
    for number in range(200):
        run.deliver(f"client-{number}", 1.0, base_version=0)
    assert run.state.tempo.buffer_size == 6


@each
def test_an_automatic_buffer_is_one_that_a_rule_is_soon_done_with_and_a_set_one_is_as_it_is_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_updates, "_MOST_AUTOMATIC", 6)
    run = SmallRun(ALL[name](staleness=constant()))
    for number in range(200):
        run.deliver(f"client-{number}", 1.0, base_version=0)
    assert run.state.tempo.buffer_size == 6
    assert SmallRun(ALL[name](buffer_size=7)).state.tempo.buffer_size == 7


@each
@pytest.mark.parametrize("given", [{"buffer_size": 2}, {"statistics_rate": 2.0}, {"momentum": 1.0}])
def test_settings_out_of_range_are_refused(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"strategy '{name}': {next(iter(given))}"):
        ALL[name](**given)


@pytest.mark.parametrize("hostile", [0.0, 0.5])
def test_half_of_a_buffer_is_too_much_to_be_hostile(hostile: float) -> None:
    for rule in (trimmed_mean, multi_krum):
        with pytest.raises(ConfigError, match="hostile"):
            rule(hostile=hostile)


def test_a_commit_writes_each_update_once_and_a_version_removes_them(tmp_path: Path) -> None:
    run, store = SmallRun(median(buffer_size=3), [0.5, -0.5], [1.0]), Store(tmp_path, "kitchen")
    commit(store, run)

    def kept() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("update-*")}

    run.deliver("alice", 1.0, 2.0, 3.0)
    commit(store, run)
    first = kept()
    run.deliver("bob", 1.0, 2.0, 3.0)
    commit(store, run)
    assert len(kept()) == 2
    assert first.items() <= kept().items()
    assert not list(tmp_path.glob("buffer-*"))
    run.deliver("carol", 1.0, 2.0, 3.0)
    commit(store, run)
    assert not kept()
    store.close()


_KILLED = """
import os, signal, sys
from pathlib import Path
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import median
from tests.aggregator.small_run import SmallRun
from tests.aggregator.test_store import commit

def end(step):
    if step == sys.argv[2] and run.state.accepted == 2:
        os.kill(os.getpid(), signal.SIGKILL)

run = SmallRun(median(buffer_size=3), [0.5, -0.5], [1.0])
store = Store(Path(sys.argv[1]), "kitchen", step=end)
commit(store, run)
for number, client in enumerate(("alice", "bob")):
    run.deliver(client, 1.0 + number, 2.0, 3.0)
    commit(store, run)
"""


@pytest.mark.parametrize(
    ("step", "there"), [("vectors-written", 1), ("vectors-renamed", 1), ("transaction-open", 1), ("committed", 2)]
)
def test_a_kill_between_acceptance_and_version_goes_on_with_the_same_updates(
    step: str, there: int, tmp_path: Path
) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), step], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    store, state = opened(tmp_path)
    assert [list(row) for row in state.buffer.rows] == [[1.0, 2.0, 3.0], [2.0, 2.0, 3.0]][:there]
    assert len(list(tmp_path.glob("update-*"))) == there  # what nothing refers to is gone
    straight = SmallRun(median(buffer_size=3), [0.5, -0.5], [1.0])
    for number, client in enumerate(("alice", "bob")[:there]):
        straight.deliver(client, 1.0 + number, 2.0, 3.0)
    straight.state.seconds = straight.seconds
    assert everything_of(state) == everything_of(straight.state)
    assert store.layout() == layout_of(2, 1)
    store.close()
