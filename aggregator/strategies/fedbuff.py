"""FedBuff: average the deltas of K updates, whoever sent them. Nguyen et al. 2022, arXiv 2106.06639."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fedmq.aggregator.clipping import clip_of
from fedmq.aggregator.staleness import Staleness, polynomial
from fedmq.aggregator.strategies.strategy import Arrival, Batch, Rates, Strategy, require, require_slots, sample_factor

__all__ = ["fedbuff"]

Normalisation = Literal["reference", "sum", "paper"]


def fedbuff(
    *,
    staleness: Staleness | None = None,
    buffer_size: int | None = None,
    server_learning_rate: float = 0.7,
    normalisation: Normalisation = "reference",
    reference_staleness: int = 4,
    statistics_rate: float = 0.5,
    sample_weights: bool = False,
    momentum: float = 0.0,
    flush_timer: bool = True,
    one_per_client: bool = False,
    clip_norm: float | None = None,
    clip_medians: float | None = None,
) -> Strategy:
    """FedBuff, the default strategy.

    Three forms of the step, by `normalisation`, with S = sum s(tau):

    - `reference`: x += eta (n/K) sum(s D) / max(S, n s(reference_staleness)). The mean of the updates up to the
      staleness that one plans for, damped beyond it.
    - `sum`: x += eta (n/K) sum(s D) / S. Always the full mean, so that with K = 1 staleness does not damp at all.
    - `paper`: x += (eta/K) sum(s D). The mean staleness silently lowers the learning rate (2 x at a staleness of 4).

    Args:
        staleness: s(tau); polynomial with a = 0.5 if None.
        buffer_size: K; None follows the number of clients at work: max(1, round((M - 1) / 4)), and with
            one_per_client at least 2 once three clients are known.
        server_learning_rate: eta. 1 is the plain mean, and the fastest for short local jobs; with long ones it
            oscillates at the staleness that is usual (`docs/algorithms.md` has the figures).
        normalisation: which form.
        reference_staleness: the staleness that one plans for, in versions.
        statistics_rate: how far statistics (BatchNorm's) go towards the buffer's weighted mean, in [0, 1].
        sample_weights: weigh updates by their samples too, capped at 10 x the running median.
        momentum: of the server.
        flush_timer: do not wait for K longer than twice the usual.
        one_per_client: a buffer takes one update of each client; its next one waits. Needs the flush timer.
        clip_norm: no delta counts as longer than this; None without such a bound.
        clip_medians: the same bound as a multiple of the clients' median norm.

    Raises:
        ConfigError: a number out of its range.

    """
    s = staleness or polynomial()
    if buffer_size is not None:
        require("fedbuff", "buffer_size", buffer_size, buffer_size >= 1, "at least 1")
    require("fedbuff", "server_learning_rate", server_learning_rate, server_learning_rate > 0, "more than 0")
    require("fedbuff", "statistics_rate", statistics_rate, 0 <= statistics_rate <= 1, "0 to 1")
    require("fedbuff", "reference_staleness", reference_staleness, reference_staleness >= 0, "at least 0")
    require("fedbuff", "momentum", momentum, 0 <= momentum < 1, "0 up to but not 1")
    require_slots("fedbuff", one_per_client, flush_timer, buffer_size)

    def weigh(arrival: Arrival) -> tuple[float, float]:
        mass = sample_factor(arrival) if sample_weights else 1.0
        return s(arrival.staleness) * mass, mass

    # Each form is the mean of the buffer, times the damping.
    damping: dict[str, Callable[[Batch], float]] = {
        "reference": lambda batch: batch.weight / max(batch.weight, batch.mass * s(reference_staleness)),
        "sum": lambda batch: 1.0,
        "paper": lambda batch: batch.weight / batch.mass,
    }

    def rates(batch: Batch) -> Rates:
        part = damping[normalisation](batch) * min(1.0, batch.count / batch.size)
        return Rates(server_learning_rate * part / batch.weight, statistics_rate * part, part)

    clip = clip_of("fedbuff", clip_norm, clip_medians)
    return Strategy(
        "fedbuff", weigh, rates, buffer_size, momentum, timed=flush_timer, one_per_client=one_per_client, clip=clip
    )
