"""FedAvg: the synchronous baseline. McMahan et al. 2017, arXiv 1602.05629."""

from __future__ import annotations

from fedmq.aggregator.clipping import clip_of
from fedmq.aggregator.strategies.strategy import Arrival, Batch, Cohort, Rates, Strategy, require, sample_factor

__all__ = ["fedavg"]


def fedavg(
    *,
    clients: int = 1,
    over_selection: float = 1.0,
    deadline: float | None = None,
    server_learning_rate: float = 1.0,
    momentum: float = 0.0,
    clip_norm: float | None = None,
    clip_medians: float | None = None,
) -> Strategy:
    """FedAvg: x <- sum n_i y_i / sum n_i over a cohort, which is frozen when its version is published.

    A cohort is whoever is online then. It closes when its count of updates is in, when those that are missing are all
    offline, or at the deadline; what comes after is refused (`late`), and whoever let a deadline pass is not waited for
    again until something of it comes. Samples n_i are capped at 10 x their running
    median, except those of the first update of a run, when none is known.

    Args:
        clients: how many have to be online before a cohort is frozen.
        over_selection: >= 1; the first ceil(m / over_selection) of m updates close the cohort. 1.3 is usual.
        deadline: seconds from the freezing on; None for ten times as long as half of the cohort took, and a minute at
            least. While half of it is not in, that is ten times as long as the first took, and an hour at least.
        server_learning_rate: 1 is the average itself.
        momentum: of the server.
        clip_norm: no delta counts as longer than this; None without such a bound.
        clip_medians: the same bound as a multiple of the clients' median norm.

    Raises:
        ConfigError: a number out of its range.

    """
    require("fedavg", "clients", clients, clients >= 1, "at least 1")
    require("fedavg", "over_selection", over_selection, over_selection >= 1, "at least 1")
    require("fedavg", "deadline", deadline or 0, deadline is None or deadline > 0, "more than 0 seconds")
    require("fedavg", "server_learning_rate", server_learning_rate, server_learning_rate > 0, "more than 0")
    require("fedavg", "momentum", momentum, 0 <= momentum < 1, "0 up to but not 1")

    def weigh(arrival: Arrival) -> tuple[float, float]:
        factor = sample_factor(arrival)
        return factor, factor

    def rates(batch: Batch) -> Rates:
        return Rates(server_learning_rate / batch.weight, statistics=1.0)

    clip = clip_of("fedavg", clip_norm, clip_medians)
    cohort = Cohort(clients, over_selection, deadline)
    return Strategy("fedavg", weigh, rates, buffer_size=None, momentum=momentum, cohort=cohort, clip=clip)
