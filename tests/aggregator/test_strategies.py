"""Each strategy against the same rule written anew in ten lines of float64."""

from __future__ import annotations

from statistics import median_low
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedmq.aggregator.strategies import STRATEGIES, fedasync, fedasync_delta, fedavg, fedbuff
from tests.aggregator.small_run import SmallRun, plain_fedbuff

PARAMETERS, STATISTICS = 5, 2
START = [0.5, -1.0, 2.0, 0.0, 3.0, 1.0, 4.0]
SEEDS = pytest.mark.parametrize("seed", [1, 2, 3])

Update = tuple[int, int, npt.NDArray[np.float64]]
"""How many versions behind, if there are so many; samples; deltas and then trained statistics."""


def random_updates(seed: int, count: int = 60, most_behind: int = 12) -> list[Update]:
    random = np.random.default_rng(seed)
    return [
        (int(random.integers(0, most_behind + 1)), int(random.integers(1, 500)), random.normal(0, 1, len(START)))
        for _ in range(count)
    ]


def weights_after(strategy: Any, updates: list[Update]) -> npt.NDArray[np.float64]:
    """What the real core makes of the updates, each from a client of its own."""
    run = SmallRun(strategy, START[:PARAMETERS], START[PARAMETERS:])
    for number, (behind, samples, values) in enumerate(updates):
        base = max(0, run.state.version - behind)
        run.deliver(f"client-{number}", *values, base_version=base, num_samples=samples)
    return run.state.weights.astype(np.float64)


def fedbuff_by_hand(
    updates: list[Update], k: int, eta: float, beta: float, form: str, sample_weights: bool
) -> npt.NDArray[np.float64]:
    x, version, buffer, seen = np.array(START), 0, [], [float("inf")]
    for behind, samples, values in updates:
        s = (1 + min(behind, version)) ** -0.5
        buffer.append((s, min(samples, 10 * median_low(seen[-101:])) if sample_weights else 1.0, values))
        seen = [n for n in seen if n < float("inf")] + [samples]
        if len(buffer) == k:
            total = sum(s * n * values for s, n, values in buffer)
            stale, fresh = sum(s * n for s, n, _ in buffer), sum(n for _, n, _ in buffer)
            divisor = {"paper": fresh, "sum": stale, "reference": max(stale, fresh * 5**-0.5)}[form]
            x[:PARAMETERS] += eta * total[:PARAMETERS] / divisor
            x[PARAMETERS:] += beta * stale / divisor * (total[PARAMETERS:] / stale - x[PARAMETERS:])
            version, buffer = version + 1, []
    return x


@SEEDS
@pytest.mark.parametrize("form", ["reference", "sum", "paper"])
@pytest.mark.parametrize("sample_weights", [False, True])
@pytest.mark.parametrize("k", [1, 4])
def test_fedbuff_is_the_weighted_mean_of_its_buffer(form: Any, sample_weights: bool, k: int, seed: int) -> None:
    updates = random_updates(seed)
    strategy = fedbuff(
        buffer_size=k,
        server_learning_rate=0.7,
        normalisation=form,
        statistics_rate=0.3,
        sample_weights=sample_weights,
    )
    expected = fedbuff_by_hand(updates, k, 0.7, 0.3, form, sample_weights)
    np.testing.assert_allclose(weights_after(strategy, updates), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["reference", "sum", "paper"])
def test_all_forms_of_fedbuff_are_the_plain_mean_when_every_update_is_fresh(form: Any) -> None:
    run = SmallRun(plain_fedbuff(4, normalisation=form), [10.0])
    for client, delta in enumerate([1.0, 2.0, 3.0, 6.0]):
        run.deliver(f"client-{client}", delta)
    assert run.weights == [10 + 3]


@pytest.mark.parametrize(("tau", "moves"), [(0, 1.0), (4, 1.0), (20, 0.49), (100, 0.22)])
def test_with_a_buffer_of_one_the_default_damps_only_beyond_the_staleness_that_is_planned_for(
    tau: int, moves: float
) -> None:
    run = SmallRun(plain_fedbuff())
    run.make_versions(tau)
    run.deliver("late", 1.0, base_version=0)
    assert run.weights[0] == pytest.approx(moves, abs=0.005)


def test_a_buffer_that_the_timer_flushes_moves_as_far_as_it_is_full() -> None:
    run = SmallRun(plain_fedbuff(4), [0.0])
    for second in range(8):
        run.deliver(f"client-{second}", 1.0, now=float(second))
    assert run.weights == [2.0]
    run.deliver("alone", 1.0, now=8.0)
    run.core.tick(100.0)
    assert run.weights == [2.25]


@SEEDS
def test_fedasync_mixes_weights(seed: int) -> None:
    updates = random_updates(seed, most_behind=7)  # of the newest eight all are held
    versions = [np.array(START)]
    for behind, _, values in updates:
        tau = min(behind, len(versions) - 1)
        w = 0.6 * (1 + tau) ** -0.5
        y = np.concatenate([versions[-1 - tau][:PARAMETERS] + values[:PARAMETERS], values[PARAMETERS:]])
        versions.append((1 - w) * versions[-1] + w * y)
    np.testing.assert_allclose(weights_after(fedasync(), updates), versions[-1], rtol=0, atol=1e-5)


@SEEDS
def test_fedasync_delta_adds_deltas_and_mixes_statistics(seed: int) -> None:
    updates = random_updates(seed)
    x = np.array(START)
    for version, (behind, _, values) in enumerate(updates):
        w = 0.6 * (1 + min(behind, version)) ** -0.5
        x[:PARAMETERS] += w * values[:PARAMETERS]
        x[PARAMETERS:] = (1 - w) * x[PARAMETERS:] + w * values[PARAMETERS:]
    np.testing.assert_allclose(weights_after(fedasync_delta(), updates), x, rtol=0, atol=1e-5)


@SEEDS
def test_fedavg_is_ten_lines_of_fedavg(seed: int) -> None:
    cohort = [f"client-{number}" for number in range(4)]
    updates = [(samples % 90 + 60, values) for _, samples, values in random_updates(seed, count=20)]
    run = SmallRun(fedavg(clients=4), START[:PARAMETERS], START[PARAMETERS:])
    for client in cohort:
        run.core.presence(client, True, 0.0)
    for number, (samples, values) in enumerate(updates):
        run.deliver(cohort[number % 4], *values, num_samples=samples)
    assert run.state.version == 5

    x = np.array(START)
    for first in range(0, 20, 4):
        total = sum(samples for samples, _ in updates[first : first + 4])
        average = np.zeros_like(x)
        for samples, values in updates[first : first + 4]:
            y = np.concatenate([x[:PARAMETERS] + values[:PARAMETERS], values[PARAMETERS:]])
            average += samples / total * y
        x = average
    np.testing.assert_allclose(run.state.weights, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_moves_the_model_towards_a_fresh_update_and_never_past_it(name: str) -> None:
    strategy = STRATEGIES[name](**({"buffer_size": 1} if name == "fedbuff" else {}))
    run = SmallRun(strategy, [0.0], [0.0])
    for number in range(strategy.rule.needs if strategy.rule else 1):
        run.core.presence("alice", True, 0.0)
        run.deliver(f"client-{number}" if strategy.rule else "alice", 1.0, 1.0)
    assert run.state.version == 1
    assert 0 < run.weights[0] <= 1
    assert 0 < run.weights[1] <= 1


def test_a_strategy_leaves_no_trace_of_one_buffer_in_the_next() -> None:
    run = SmallRun(plain_fedbuff(2), [0.0], [0.0])
    for client in range(2):
        run.deliver(f"client-{client}", 1e6, 1e6)
    before = run.weights
    for client in range(2):
        run.deliver(f"client-{client}", 0.0, before[1])
    assert run.weights == before
