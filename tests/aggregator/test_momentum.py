"""Server momentum: scaled by 1 - beta, damped as the step is."""

from __future__ import annotations

import numpy as np
import pytest

from fedmq.aggregator.buffer import Buffer, Folded, step
from fedmq.aggregator.strategies import Rates, fedasync_delta
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import UpdateId
from tests.aggregator.small_run import SmallRun, layout_of, outbox, plain_fedbuff, vector

LAYOUT = layout_of(3, 1)


def buffer_with(*numbers: float, weight: float = 1.0) -> Buffer:
    """A buffer with one update in it."""
    buffer = Buffer.empty(LAYOUT)
    folded = Folded("alice", UpdateId(outbox_id=outbox(1), sequence=0), 0, 0, weight, 10)
    buffer.fold(vector(*numbers), folded, 1.0, 0.0)
    return buffer


def test_a_step_of_weight_0_changes_nothing_not_even_a_bit() -> None:
    weights, velocity = vector(0.1, -0.2, 0.3, 5.0), vector(0.7, 0.11, -0.13)
    moved, moved_velocity = step(weights, buffer_with(1, 2, 3, 9), Rates(0.0, 0.0, damping=0.0), LAYOUT, velocity, 0.9)
    assert moved_velocity is not None
    assert (moved.tobytes(), moved_velocity.tobytes()) == (weights.tobytes(), velocity.tobytes())


@pytest.mark.parametrize("beta", [None, 0.9])
def test_what_is_still_written_or_shown_does_not_move(beta: float | None) -> None:
    weights, velocity = vector(1, 2, 3, 4), vector(5, 6, 7) if beta else None
    moved, moved_velocity = step(weights, buffer_with(1, 1, 1, 9), Rates(1.0, 1.0), LAYOUT, velocity, beta or 0.0)
    assert moved.tolist() != weights.tolist() == [1, 2, 3, 4]
    assert velocity is None or (velocity.tolist() == [5, 6, 7] and moved_velocity is not velocity)


def test_momentum_0_is_the_plain_step_bit_for_bit() -> None:
    plain, with_velocity = vector(0.1, -0.2, 0.3, 5.0), vector(0.1, -0.2, 0.3, 5.0)
    velocity: Vector | None = np.zeros(3, np.float32)
    for number in range(5):
        sums, rates = (number, 0.3, -1.7, 6.0), Rates(0.37, 0.5, damping=0.6)
        plain, _ = step(plain, buffer_with(*sums), rates, LAYOUT, None, 0.0)
        with_velocity, velocity = step(with_velocity, buffer_with(*sums), rates, LAYOUT, velocity, 0.0)
    assert plain.tobytes() == with_velocity.tobytes()


def test_two_steps_by_hand() -> None:
    # beta 0.5, full steps u = 8: x = 4, m = 4; then x += 0.5 * 4 + 0.5 * 8, m = 0.5 * 4 + 0.5 * 8.
    weights, velocity = vector(0, 0, 0, 0), vector(0, 0, 0)
    for expected_x, expected_m in ((4.0, 4.0), (10.0, 6.0)):
        weights, moved = step(weights, buffer_with(8, 8, 8, 0), Rates(1.0, 0.0), LAYOUT, velocity, 0.5)
        assert moved is not None
        velocity = moved
        assert (weights[0], velocity[0]) == (expected_x, expected_m)


def test_half_a_step_goes_half_as_far_and_moves_the_velocity_half_as_much() -> None:
    # w = 0.5, u = 8, m = 4, beta = 0.5: x += 0.5 (0.5 * 4 + 0.5 * 8) = 3, m += 0.5 * 0.5 (8 - 4) = 1.
    weights, velocity = vector(0, 0, 0, 0), vector(4, 4, 4)
    moved, moved_velocity = step(weights, buffer_with(8, 8, 8, 0), Rates(0.5, 0.0, damping=0.5), LAYOUT, velocity, 0.5)
    assert moved_velocity is not None
    assert (moved[0], moved_velocity[0]) == (3.0, 5.0)


@pytest.mark.parametrize("behind", [0, 20])
def test_under_a_constant_push_every_step_becomes_the_full_step(behind: int) -> None:
    # FedBuff with K = 1 moves 1 at staleness 0 and sqrt(5/21) at 20; momentum must not change where that ends.
    run = SmallRun(plain_fedbuff(momentum=0.9))
    for _ in range(400):
        before = run.weights[0]
        run.deliver("alice", 1.0, base_version=max(0, run.state.version - behind))
    full = 1.0 if behind == 0 else (5 / 21) ** 0.5
    assert run.weights[0] - before == pytest.approx(full, abs=1e-3)


def test_statistics_have_no_momentum() -> None:
    run = SmallRun(fedasync_delta(alpha=0.5, momentum=0.9), [0.0], [0.0])
    run.deliver("alice", 0.0, 8.0)
    run.deliver("alice", 0.0, 4.0)
    assert run.weights[1] == 4.0
