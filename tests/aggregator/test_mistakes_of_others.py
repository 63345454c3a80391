"""What other aggregators got wrong, one test for each mistake: none of them may be made here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmq.aggregator.judged import Judged
from fedmq.aggregator.strategies import STRATEGIES, Strategy, fedasync, fedasync_delta, fedavg, fedbuff
from tests.aggregator.small_run import SmallRun, plain_fedbuff


def of_one(name: str, **settings: Any) -> Strategy:
    """The strategy of this name with a version for each update."""
    return plain_fedbuff(**settings) if name == "fedbuff" else STRATEGIES[name](**settings)


asynchronous = pytest.mark.parametrize("name", ["fedbuff", "fedasync", "fedasync_delta"])


def test_full_weights_are_not_added_without_the_factor_1_minus_w() -> None:
    # A device that trained to exactly the present weights changes nothing: 0.4 * 10 + 0.6 * 10.
    run = SmallRun(fedasync(), [10.0])
    run.deliver("alice", 0.0)
    assert run.weights == [10.0]
    # And one that trained from 10 to 20 moves it to 0.4 * 10 + 0.6 * 20, not to 10 + 0.6 * 20.
    run.deliver("alice", 10.0)
    assert run.weights == [pytest.approx(16.0, rel=1e-6)]


@asynchronous
def test_a_fresh_update_does_not_replace_the_model(name: str) -> None:
    # Alice moved it by 1 meanwhile; that remains, whatever a fresh update of bob says.
    run = SmallRun(plain_fedbuff(4) if name == "fedbuff" else of_one(name), [0.0])
    for client in ("alice", "carol", "dave", "bob") if name == "fedbuff" else ("alice", "bob"):
        run.deliver(client, -1.0 if client == "bob" else 1.0)
    # FedBuff: (1 + 1 + 1 - 1) / 4. FedAsync: 0.6 after alice, then 0.6 less: 0.4 * 0.6 + 0.6 * (0.6 - 1).
    assert run.weights == [pytest.approx(0.5 if name == "fedbuff" else 0.0, abs=1e-6)]
    if name != "fedbuff":
        assert run.weights[0] != pytest.approx(-1.0)


@asynchronous
def test_the_base_rate_does_not_shrink_from_update_to_update(name: str) -> None:
    run = SmallRun(of_one(name), [0.0])
    steps = []
    for _ in range(200):
        before = run.weights[0]
        run.deliver("alice", 1.0)
        steps.append(run.weights[0] - before)
    assert steps == [pytest.approx(steps[0], rel=1e-4)] * 200
    assert steps[0] == pytest.approx(1.0 if name == "fedbuff" else 0.6, rel=1e-6)


def test_a_delta_counts_against_its_base_and_not_against_the_current_model() -> None:
    # Both start from 0; alice trains to 1, bob to -1. Bob's update comes second, at staleness 1.
    mixing = SmallRun(fedasync(), [0.0])
    mixing.deliver("alice", 1.0, base_version=0)
    mixing.deliver("bob", -1.0, base_version=0)
    w = 0.6 * 2**-0.5
    assert mixing.weights == [pytest.approx((1 - w) * 0.6 + w * -1.0, rel=1e-6)]  # y = 0 - 1, not 0.6 - 1

    adding = SmallRun(plain_fedbuff(), [0.0])
    adding.deliver("alice", 1.0, base_version=0)
    adding.deliver("bob", -1.0, base_version=0)
    assert adding.weights == [pytest.approx(0.0, abs=1e-6)]  # 1 - 1: as it came, and not 1 + (-1 - 1)


def test_staleness_goes_down_to_0_and_a_fresh_update_weighs_1() -> None:
    run = SmallRun(fedasync_delta(alpha=1.0), [0.0])
    for version in range(3):
        receipt = run.deliver("alice", 1.0)
        assert (receipt.staleness, receipt.version) == (0, version)
    assert run.weights == [3.0]


def test_late_full_weights_are_not_averaged_into_another_cohort() -> None:
    run = SmallRun(fedavg(clients=2), [0.0])
    for client in ("alice", "bob"):
        run.core.presence(client, True, 0.0)
    run.deliver("alice", 1.0)
    run.core.presence("bob", False, 1.0)
    assert (run.state.version, run.weights) == (1, [1.0])
    run.core.presence("bob", True, 2.0)
    late = run.judge("bob", [100.0], base_version=0)
    assert isinstance(late, Judged)
    assert (late.verdict, late.reason) == ("rejected", "late")
    run.deliver("alice", 1.0)
    run.deliver("bob", 3.0)
    assert run.weights == [3.0]  # 1 + (1 + 3) / 2


@pytest.mark.parametrize("name", STRATEGIES)
def test_batchnorm_is_not_forgotten(name: str) -> None:
    run = SmallRun(of_one(name), [0.0], [0.0, 1.0])
    run.core.presence("alice", True, 0.0)
    for _ in range(30 * run.state.tempo.buffer_size):
        run.deliver("alice", 0.0, 5.0, 3.0)
    assert run.weights == [0.0, pytest.approx(5.0, abs=1e-3), pytest.approx(3.0, abs=1e-3)]


@pytest.mark.parametrize(
    ("name", "staleness", "settings"),
    [
        ("fedbuff", 20, {}),
        ("fedbuff", 20, {"statistics_rate": 1.0, "normalisation": "sum"}),
        ("fedasync_delta", 20, {}),
        ("fedasync", 15, {}),  # the oldest base that is held
    ],
)
def test_running_variances_stay_positive_over_a_thousand_stale_versions(
    name: str, staleness: int, settings: dict[str, Any]
) -> None:
    # Each device sees another variance and trains nine tenths of the way to it, from a base that is long gone.
    random = np.random.default_rng(7)
    run = SmallRun(of_one(name, **settings), [0.0], [1.0])
    variances = [1.0]
    for version in range(1000):
        base = max(0, version - staleness)
        trained = 0.1 * variances[base] + 0.9 * random.choice([0.01, 4.0])
        run.deliver(f"client-{version % 21}", 0.0, trained, base_version=base)
        variances.append(run.weights[1])
    assert min(variances) > 0
    assert max(variances) <= 4.0


def test_one_fast_device_fills_a_buffer_that_is_for_many() -> None:
    # This is how it is: every update counts, however many are one device's. What is left of the fast device's influence
    # over the slow one's is what staleness does, and staleness works against the slow one.
    run = SmallRun(plain_fedbuff(4), [0.0])
    for _ in range(3):
        run.deliver("fast", 1.0)
    run.deliver("slow", -1.0)
    assert run.weights == [0.5]


def test_one_fast_device_counts_once_in_a_cohort() -> None:
    run = SmallRun(fedavg(clients=2), [0.0])
    for client in ("fast", "slow"):
        run.core.presence(client, True, 0.0)
    run.deliver("fast", 1.0)
    again = run.judge("fast", [1.0])
    assert isinstance(again, Judged)
    assert (again.verdict, again.reason) == ("rejected", "late")
    run.deliver("slow", -1.0)
    assert run.weights == [0.0]


@pytest.mark.parametrize(
    "strategy", [fedbuff(buffer_size=1), fedbuff(buffer_size=1, normalisation="paper"), fedasync_delta()],
    ids=["fedbuff", "fedbuff in the paper's form", "fedasync_delta"],
)  # fmt: skip
def test_with_a_buffer_of_one_a_stale_update_moves_the_model_less_than_a_fresh_one(strategy: Strategy) -> None:
    # Dividing by the sum of the weights undoes the weighing there; that form is an option, never the default.
    run = SmallRun(strategy, [0.0])
    run.make_versions(100)
    run.deliver("fresh", 1.0)
    fresh = run.weights[0]
    run.deliver("stale", 1.0, base_version=1)
    assert run.weights[0] - fresh < 0.25 * fresh


@pytest.mark.parametrize("strategy", [fedavg(clients=21), plain_fedbuff(21, sample_weights=True)],
                         ids=["fedavg", "fedbuff"])  # fmt: skip
def test_a_claim_of_a_trillion_samples_counts_as_ten_once_other_counts_are_known(strategy: Strategy) -> None:
    run = SmallRun(strategy, [0.0])
    honest = [f"client-{number}" for number in range(20)]
    for client in [*honest, "liar"]:
        run.core.presence(client, True, 0.0)
    for client in [*honest, "liar"]:
        run.deliver(client, 0.0, num_samples=100)
    assert run.state.version == 1
    run.deliver("liar", -1.0, num_samples=10**12)
    for client in honest:
        run.deliver(client, 1.0, num_samples=100)
    # It counts as ten medians: (20 * 100 - 1000) / (20 * 100 + 1000).
    assert run.weights == [pytest.approx(1 / 3, rel=1e-5)]


def test_a_claim_of_a_trillion_samples_owns_the_first_version_if_it_comes_first_and_no_later_one() -> None:
    # Nothing is known before the first update, so nothing caps it.
    run = SmallRun(fedavg(clients=2), [0.0])
    for client in ("liar", "honest"):
        run.core.presence(client, True, 0.0)
    moves = []
    for _ in range(4):
        before = run.weights[0]
        run.deliver("liar", 1.0, num_samples=10**12)
        run.deliver("honest", 0.0, num_samples=100)
        moves.append(run.weights[0] - before)
    assert moves == pytest.approx([1.0, *[10 / 11] * 3], abs=1e-6)
