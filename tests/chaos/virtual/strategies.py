"""The strategies that are put to the proof. None of them has a momentum."""

from __future__ import annotations

from fedmq.aggregator.staleness import constant
from fedmq.aggregator.strategies import Strategy, fedbuff, median, multi_krum, trimmed_mean
from fedmq.aggregator.strategies.fedasync import fedasync_delta

__all__ = ["RULES", "STRATEGIES", "counts_in_weights"]

# Under these each update moves the weights by exactly itself, whatever came with it or before.
_EXACT: dict[str, Strategy] = {
    "fedasync_delta": fedasync_delta(staleness=constant(), alpha=1.0),
    "fedbuff": fedbuff(staleness=constant(), buffer_size=4, server_learning_rate=4.0, normalisation="paper"),
    "slots": fedbuff(
        staleness=constant(), buffer_size=2, server_learning_rate=2.0, normalisation="paper", one_per_client=True
    ),
}

# What an update moves under these depends on the others: the history says what counted, a replay what came of it.
# Whatever is stale weighs less, so that it matters which update is which. A rule with slots would wait for clients that
# have nothing left to send, and never be at rest.
RULES: dict[str, Strategy] = {
    "slots with clipping": fedbuff(buffer_size=2, one_per_client=True, clip_medians=0.9),
    "median": median(buffer_size=3, clip_medians=0.9, reference_staleness=0),
    "trimmed_mean": trimmed_mean(buffer_size=4, reference_staleness=0),
    "multi_krum": multi_krum(buffer_size=5, reference_staleness=0),
}

STRATEGIES = _EXACT | RULES


def counts_in_weights(strategy: Strategy) -> bool:
    """Whether the weights say how often each update counted."""
    return strategy.rule is None and strategy.clip is None
