"""The history and the updates give every version again, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.buffer import Buffer, step
from fedmq.aggregator.clipping import scaled
from fedmq.aggregator.folding import BLOCK, LARGEST, add_scaled, is_bounded
from fedmq.aggregator.state import VersionRecord
from fedmq.aggregator.strategies import STRATEGIES, Strategy, fedavg, fedbuff, median, multi_krum, trimmed_mean
from fedmq.schemas.layout import Layout, Vector
from tests.aggregator.small_run import SmallRun
from tests.generators import unhurried

SIZE = BLOCK + 1000  # so that a vector is more than one block

Updates = dict[tuple[str, int], npt.NDArray[np.float32]]


def recorded(strategy: Strategy, seed: int = 3) -> tuple[SmallRun, Updates]:
    """A run of 25 random updates, some in time, some late, some after a long pause."""
    random = np.random.default_rng(seed)
    start = random.normal(0, 1, SIZE).astype(np.float32)
    run = SmallRun(strategy, list(start[:-100]), list(start[-100:]))
    if strategy.cohort:
        for member in range(3):
            run.core.presence(f"client-{member}", True, 0.0)
    updates: Updates = {}
    now = 0.0
    for number in range(25):
        now += float(random.choice([0.5, 1.0, 60.0]))
        run.core.tick(now)
        client, version = f"client-{number % 3}", run.state.version
        base = version if strategy.cohort else int(random.integers(max(0, version - 12), version + 1))
        update = random.normal(0, 1, SIZE).astype(np.float32)
        run.judge(client, update, base_version=base, sequence=number, num_samples=int(random.integers(1, 99)), now=now)
        if run.state.version > version:
            run.publish()
        updates[client, number] = update
    return run, updates


def replayed(
    strategy: Strategy, start: Vector, layout: Layout, history: list[VersionRecord], updates: Updates
) -> Vector:
    """The newest version from version 0, following the history."""
    weights, buffer = start.copy(), Buffer.empty(layout)
    velocity = np.zeros(layout.parameter_size, np.float32) if strategy.momentum else None
    shown = {0: weights}
    for record in history:
        for folded in record.updates:
            mass = folded.weight if strategy.cohort else 1.0
            update = scaled(updates[folded.client_id, folded.update.sequence], folded.scale, layout.parameter_size)
            (buffer.fold if strategy.rule is None else buffer.keep)(update, folded, mass, 0.0)
            if folded.held_base is not None:
                buffer.fold_parameters(folded.weight, 1.0, shown[folded.held_base], layout.parameter_size)
                buffer.fold_parameters(folded.weight, -1.0, weights, layout.parameter_size)
        rates = strategy.rates(buffer.batch(record.buffer_size))
        weights, velocity = step(weights, buffer, rates, layout, velocity, strategy.momentum, strategy.rule)
        buffer = Buffer.empty(layout)
        shown[record.version] = weights
    return weights


@pytest.mark.parametrize(
    "strategy",
    [
        fedbuff(buffer_size=3),
        fedbuff(),
        fedbuff(buffer_size=3, momentum=0.9, normalisation="paper"),
        STRATEGIES["fedasync"](),
        STRATEGIES["fedasync_delta"](),
        fedbuff(buffer_size=3, clip_medians=0.9),
        STRATEGIES["fedasync_delta"](clip_norm=100.0),
        fedavg(clients=3),
        median(buffer_size=3, clip_medians=0.9),
        trimmed_mean(momentum=0.5),
        multi_krum(buffer_size=5),
    ],
    ids=[
        "fedbuff",
        "fedbuff with its own K",
        "fedbuff with momentum",
        "fedasync",
        "fedasync_delta",
        "clipping by the median",
        "clipping by a norm",
        "fedavg",
        "median with clipping",
        "trimmed_mean with momentum",
        "multi_krum",
    ],
)
def test_following_the_history_gives_the_same_bits(strategy: Strategy) -> None:
    run, updates = recorded(strategy)
    history = run.core.news.versions
    assert run.state.version == len(history) >= 4
    random = np.random.default_rng(3)
    start = random.normal(0, 1, SIZE).astype(np.float32)
    assert replayed(strategy, start, run.layout, history, updates).tobytes() == run.state.weights.tobytes()


def test_the_history_says_why_each_version_was_made_and_when() -> None:
    run, _ = recorded(fedbuff(buffer_size=3))
    history = run.core.news.versions
    assert {record.why for record in history} == {"full", "timer"}
    assert all(len(record.updates) == 3 for record in history if record.why == "full")
    assert all(len(record.updates) < 3 for record in history if record.why == "timer")
    assert [record.version for record in history] == list(range(1, len(history) + 1))
    assert [record.seconds for record in history] == sorted(record.seconds for record in history)


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_aggregators_that_hear_the_same_decide_the_same(name: str) -> None:
    settings = {"clients": 3} if name == "fedavg" else {}
    one, _ = recorded(STRATEGIES[name](**settings))
    two, _ = recorded(STRATEGIES[name](**settings))
    assert one.state.weights.tobytes() == two.state.weights.tobytes()
    assert one.core.news.versions == two.core.news.versions


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_folding_in_blocks_is_plain_arithmetic_bit_for_bit(size: int) -> None:
    random = np.random.default_rng(size)
    total, vector = random.normal(0, 1, (2, size)).astype(np.float32)
    plain = total + np.float32(0.37) * vector
    add_scaled(total, 0.37, vector)
    assert total.tobytes() == plain.tobytes()


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_a_nan_is_found_in_any_block(place: int) -> None:
    vector = np.zeros(2 * BLOCK + 1, np.float32)
    assert is_bounded(vector)
    vector[place] = np.nan
    assert not is_bounded(vector)


@unhurried
@given(
    st.lists(
        st.floats(width=32) | st.sampled_from([LARGEST, -LARGEST, 1.01 * LARGEST, 3e14, 3e38]), min_size=1, max_size=9
    ),
    st.integers(0, 3),
)
def test_what_is_bounded_is_so_by_each_of_its_numbers_wherever_they_lie(numbers: list[float], shift: int) -> None:
    data = bytes(shift) + np.array(numbers, "<f4").tobytes()
    vector = np.frombuffer(memoryview(data)[shift:], "<f4")
    assert is_bounded(vector) == all(abs(float(number)) <= np.float32(LARGEST) for number in vector)
