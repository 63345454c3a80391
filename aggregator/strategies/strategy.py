"""What a strategy is: a small record of pure functions that say how much, while `buffer` does the arithmetic.

Notation: x global weights, D an update's delta, y its trained weights, tau its staleness, s(tau) the weight of that
staleness, K the buffer size, n the updates in the buffer when it is flushed, w an update's weight in the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fedmq.aggregator.clipping import Bound
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Vector

__all__ = [
    "Arrival",
    "Batch",
    "Cohort",
    "Combine",
    "Rates",
    "Rule",
    "Strategy",
    "require",
    "require_slots",
    "sample_factor",
]


class Arrival(NamedTuple):
    """What is known of an update when it is weighed.

    Attributes:
        staleness: tau, in versions, counted at this moment.
        num_samples: what its sender says that it trained on.
        median_samples: running median of what all senders said; infinite before the first.

    """

    staleness: int
    num_samples: int
    median_samples: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A buffer that is about to be flushed.

    Attributes:
        size: K.
        count: n.
        weight: the sum of the updates' weights, > 0.
        mass: the same sum if every update had been fresh.

    """

    size: int
    count: int
    weight: float
    mass: float


@dataclass(frozen=True, slots=True)
class Rates:
    """How far a version moves.

    Attributes:
        parameters: r in x += r * sum(w D).
        statistics: beta in x += beta * (sum(w y) / sum(w) - x), in [0, 1].
        damping: how much of a full step this is, in [0, 1]; server momentum goes as far.

    """

    parameters: float
    statistics: float
    damping: float = 1.0


@dataclass(frozen=True, slots=True)
class Cohort:
    """What makes a strategy synchronous: who is waited for.

    Attributes:
        clients: how many have to be online before a cohort is frozen.
        over_selection: >= 1; a cohort of m is closed by its first ceil(m / over_selection) updates.
        deadline: seconds after which it is closed with what has come; None for ten times as long as half of it took.

    """

    clients: int
    over_selection: float = 1.0
    deadline: float | None = None


Combine = Callable[[Sequence[Vector], Sequence[float], int], Vector]
"""Updates float32 [layout.size] each, their weights, and layout.parameter_size -> one update of them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How the updates themselves become one, where a sum of them is not enough.

    Attributes:
        needs: updates; a buffer with fewer waits for them, and if the run ends first they move nothing.
        combine: of so many or more.

    """

    needs: int
    combine: Combine


@dataclass(frozen=True, slots=True)
class Strategy:
    """How updates become versions.

    Attributes:
        name: as in the settings.
        weigh: an arrival -> (w, w if it were fresh).
        rates: a batch -> how far the version moves.
        buffer_size: K; None to follow the number of clients at work.
        momentum: of the server, in [0, 1); 0 is off.
        mixes: an update counts as its trained weights y = x_base + D against the present x, not as D.
            The aggregator has to hold x_base then, or weights near it.
        timed: flush a buffer that has waited for twice the time that K updates usually take.
        cohort: for a synchronous strategy; then K is the cohort's.
        one_per_client: a client's second update waits until the buffer with its first has become a version.
        clip: the bound on an update's norm; None without one.
        rule: what makes one update of those in the buffer, which are kept then; None for their weighted sum.

    """

    name: str
    weigh: Callable[[Arrival], tuple[float, float]]
    rates: Callable[[Batch], Rates]
    buffer_size: int | None = 1
    momentum: float = 0.0
    mixes: bool = False
    timed: bool = False
    cohort: Cohort | None = None
    one_per_client: bool = False
    clip: Bound | None = None
    rule: Rule | None = None


def sample_factor(arrival: Arrival) -> float:
    """min(n_i, 10 * running median), so that a claim of 10^12 samples counts as ten.

    The first update of a run has no median before it and is not capped: such a claim in it owns the first version.
    """
    return min(float(arrival.num_samples), 10.0 * arrival.median_samples)


def require_slots(strategy: str, one_per_client: bool, flush_timer: bool, buffer_size: int | None) -> None:
    """Refuse slots without a timer, for fewer clients than K could never fill a buffer, and a single one, always free.

    Raises:
        ConfigError: one_per_client without flush_timer, or with a buffer_size of 1.

    """
    if one_per_client and buffer_size == 1:
        raise ConfigError(
            f"strategy {strategy!r}: one_per_client with buffer_size = 1, where a client's slot is free again at once;"
            " expected a buffer_size of 2 at least, or none"
        )
    if one_per_client and not flush_timer:
        raise ConfigError(
            f"strategy {strategy!r}: one_per_client needs flush_timer, or fewer clients than buffer_size wait for ever"
        )


def require(strategy: str, key: str, value: float, holds: bool, expected: str) -> None:
    """Refuse a setting that cannot work.

    Raises:
        ConfigError: it does not hold.

    """
    if not holds:
        raise ConfigError(f"strategy {strategy!r}: {key} = {value}, expected {expected}")
