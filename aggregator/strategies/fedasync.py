"""FedAsync: every update makes a version. Xie, Koyejo and Gupta 2019, arXiv 1903.03934."""

from __future__ import annotations

from fedmq.aggregator.clipping import Bound, clip_of
from fedmq.aggregator.staleness import Staleness, polynomial
from fedmq.aggregator.strategies.strategy import Arrival, Batch, Rates, Strategy, require

__all__ = ["fedasync", "fedasync_delta"]


def fedasync(
    *,
    staleness: Staleness | None = None,
    alpha: float = 0.6,
    momentum: float = 0.0,
    clip_norm: float | None = None,
    clip_medians: float | None = None,
) -> Strategy:
    """The paper's rule, mixing weights: x <- (1 - alpha s) x + alpha s y.

    The aggregator needs the weights that y was trained from. It holds 16 snapshots: the last few, and older ones ever
    further apart. For a base between two of them the nearer one stands.

    Args:
        staleness: s(tau); polynomial with a = 0.5 if None.
        alpha: how far a fresh update moves the model, in (0, 1]; never changed in place.
        momentum: of the server.
        clip_norm: no delta counts as longer than this; None without such a bound.
        clip_medians: the same bound as a multiple of the clients' median norm.

    Raises:
        ConfigError: a number out of its range.

    """
    return _every_update(
        "fedasync", staleness, alpha, momentum, clip_of("fedasync", clip_norm, clip_medians), mixes=True
    )


def fedasync_delta(
    *,
    staleness: Staleness | None = None,
    alpha: float = 0.6,
    momentum: float = 0.0,
    clip_norm: float | None = None,
    clip_medians: float | None = None,
) -> Strategy:
    """FedAsync on deltas: x <- x + alpha s D. Needs no old weights; statistics mix as in `fedasync`.

    Args:
        staleness: s(tau); polynomial with a = 0.5 if None.
        alpha: in (0, 1].
        momentum: of the server.
        clip_norm: no delta counts as longer than this; None without such a bound.
        clip_medians: the same bound as a multiple of the clients' median norm.

    Raises:
        ConfigError: a number out of its range.

    """
    return _every_update(
        "fedasync_delta", staleness, alpha, momentum, clip_of("fedasync_delta", clip_norm, clip_medians), mixes=False
    )


def _every_update(
    name: str, staleness: Staleness | None, alpha: float, momentum: float, clip: Bound | None, *, mixes: bool
) -> Strategy:
    s = staleness or polynomial()
    require(name, "alpha", alpha, 0 < alpha <= 1, "more than 0, at most 1")
    require(name, "momentum", momentum, 0 <= momentum < 1, "0 up to but not 1")

    def weigh(arrival: Arrival) -> tuple[float, float]:
        return s(arrival.staleness), 1.0

    def rates(batch: Batch) -> Rates:
        # Its own buffers hold one update of mass 1. What another strategy left in one is damped like its mean.
        damping = batch.weight / batch.mass
        return Rates(alpha / batch.mass, statistics=alpha * damping, damping=damping)

    return Strategy(name, weigh, rates, buffer_size=1, momentum=momentum, mixes=mixes, clip=clip)
