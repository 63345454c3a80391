"""What an aggregator takes and what not, in words: people see it in the status of the federation."""

from __future__ import annotations

from collections.abc import Iterator

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.strategies.strategy import Strategy

__all__ = ["limits", "outpaced"]

_LONGEST = 1000  # characters: a message takes 2,000, and there may be any number of task versions


def limits(rules: Rules, clip: Bound | None) -> str:
    """The limits in force, such as "an update takes 65,552 bytes at most; of each client 6 updates a minute count".

    Args:
        rules: of the run.
        clip: the strategy's bound on norms.

    """
    said = "; ".join(_limits(rules, clip))
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"


def outpaced(rules: Rules, strategy: Strategy) -> str | None:
    """How one device, honest or not, can have all that slower ones send refused as too stale; None if it cannot.

    Args:
        rules: of the run.
        strategy: with slots a version takes other devices too, and a synchronous one counts no staleness.

    """
    bound, rate = rules.max_staleness, rules.allowance.per_minute
    if bound is None or strategy.cohort is not None or strategy.one_per_client:
        return None
    # Alone it makes so many versions while others train for a minute: as many updates at once as in a minute after it.
    most = bound * (strategy.buffer_size or 1) / 2
    if rate is not None and rate <= most:
        return None
    slots = "one_per_client, or " if strategy.timed else ""
    return (
        f"max_staleness = {bound}, but one fast device alone can make more versions than that while others train, and"
        f" what those send is then refused for ever (too_stale); set {slots}client_updates_per_minute to at most"
        f" {most:g} for trainings of a minute, less for longer ones, or no max_staleness"
    )


def _limits(rules: Rules, clip: Bound | None) -> Iterator[str]:
    yield f"an update takes {rules.most_bytes:,} bytes at most"
    if rules.task_versions is not None:
        yield f"of task version {' or '.join(sorted(rules.task_versions)) or 'none'}"
    if rules.max_staleness is not None:
        yield f"no staler than {rules.max_staleness} versions"
    if rules.longest is not None:
        yield f"refused beyond a norm of {_bound(rules.longest)}"
    if clip is not None:
        yield f"clipped to a norm of {_bound(clip)}"
    rate, day = rules.allowance.per_minute, rules.allowance.per_day
    counted = [f"{rate:g} updates a minute"] if rate is not None else []
    counted += [f"{day:,} updates a day"] if day is not None else []
    if counted:
        yield f"of each client {' and '.join(counted)} count, more wait"
    if rules.quarantine is not None:
        after, seconds = rules.quarantine.after, rules.quarantine.seconds
        yield f"after {after} hostile messages a client is not heard for {seconds:g} s"


def _bound(bound: Bound) -> str:
    fixed = [f"{bound.norm:g}"] if bound.norm is not None else []
    medians = [f"{bound.medians:g} times the clients' median"] if bound.medians is not None else []
    return " or ".join([*fixed, *medians])
