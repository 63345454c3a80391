"""No delta counts as longer than a bound, and the bound is not dragged up by who sends often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.clipping import Bound, Norms, norm, scaled
from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.folding import BLOCK
from fedmq.aggregator.strategies import fedasync, fedavg
from tests.aggregator.small_run import SmallRun, plain_fedbuff, vector
from tests.generators import unhurried


def scale_of(norms: Norms, bound: Bound, client_id: str, found: float) -> float:
    """Of an update that is accepted."""
    scale = norms.scale(bound, client_id, found)
    norms.count(client_id, found)
    return scale


def test_a_delta_is_shortened_to_the_norm_and_its_statistics_stay() -> None:
    run = SmallRun(plain_fedbuff(statistics_rate=1.0, clip_norm=1.0), [0.0, 0.0], [0.0])
    run.deliver("alice", 3.0, 4.0, 7.0)
    assert run.weights == [pytest.approx(0.6), pytest.approx(0.8), 7.0]
    assert run.core.news.versions[-1].updates[0].scale == pytest.approx(0.2)


def test_a_delta_within_the_norm_is_folded_as_it_is() -> None:
    update = vector(0.3, 0.4, 9.0)
    assert scaled(update, Norms().scale(Bound(norm=1.0), "alice", norm(update[:2])), 2) is update


def test_fedasync_clips_the_step_from_the_base_and_fedavg_each_of_its_cohort() -> None:
    run = SmallRun(fedasync(clip_norm=1.0), [10.0])
    run.deliver("alice", 5.0)
    assert run.weights == [pytest.approx(10.6)]
    run = SmallRun(fedavg(clients=2, clip_norm=1.0))
    for client in ("alice", "bob"):
        run.core.presence(client, True, 0.0)
    run.deliver("alice", 5.0)
    run.deliver("bob", 0.5)
    assert run.weights == [0.75]


def test_the_bound_is_a_multiple_of_the_lower_median_of_the_clients_newest_norms() -> None:
    norms, clip = Norms(), Bound(medians=2.0)
    assert scale_of(norms, clip, "alice", 100.0) == 1.0  # nothing else is known
    assert scale_of(norms, clip, "bob", 1.0) == 1.0  # of 1 and 100 the lower
    assert scale_of(norms, clip, "carol", 3.0) == 1.0  # 2 * 3
    assert scale_of(norms, clip, "alice", 100.0) == pytest.approx(0.06)
    assert scale_of(norms, clip, "dave", 0.0) == 1.0
    assert list(norms.newest) == ["bob", "carol", "alice"]  # what moves nothing says nothing of the others


@unhurried
@given(st.integers(1, 300), st.floats(2, 1e15))
def test_a_minority_of_clients_cannot_drag_the_bound_up_however_often_it_sends(times: int, length: float) -> None:
    norms, clip = Norms(), Bound(medians=1.0)
    for honest in range(11):
        scale_of(norms, clip, f"honest-{honest}", 1.0 + honest / 10)
    for number in range(times):
        scale = scale_of(norms, clip, f"hostile-{number % 10}", length)
        assert scale * length <= 2.0 * (1 + 1e-9)


def test_what_is_remembered_of_norms_is_bounded() -> None:
    norms = Norms()
    for number in range(500):
        scale_of(norms, Bound(medians=1.0), f"client-{number}", 1.0)
    assert list(norms.newest) == [f"client-{number}" for number in range(399, 500)]


@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK + 7])
def test_a_norm_is_numpys(size: int) -> None:
    some = np.random.default_rng(size).normal(0, 1, size).astype(np.float32)
    assert norm(some) == pytest.approx(float(np.linalg.norm(some.astype(np.float64))), rel=1e-5)


@pytest.mark.parametrize("name", ["fedbuff", "fedasync", "fedasync_delta", "fedavg"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"clip_norm": 0.0}, "clip_norm = 0.0, expected more than 0"),
        ({"clip_medians": -1.0}, "clip_medians = -1.0, expected more than 0"),
        ({"clip_norm": 1.0, "clip_medians": 1.0}, "are both given, expected one of them"),
    ],
)
def test_a_bound_that_cannot_be_meant_is_refused(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AggregatorSettings(strategy=name, **given)
