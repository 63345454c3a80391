"""How many updates a buffer keeps for a rule: as many as it needs, and no more than fit."""

from __future__ import annotations

from dataclasses import dataclass

from fedmq.aggregator.strategies.strategy import Rule, Strategy
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Layout

__all__ = ["KEPT_BYTES", "KeptUpdates", "kept_updates"]

_MOST_AUTOMATIC = (
    100  # a rule's work grows with K, multi-Krum's with its square, and more than this bear no larger share
)

KEPT_BYTES = 4 << 30
"""Of memory, and of disk, that the updates in one buffer may take; each takes what a model takes in float32."""


@dataclass(frozen=True, slots=True)
class KeptUpdates:
    """The bounds of K.

    Attributes:
        least: what the rule needs.
        most: what fits; of an automatic K also no more than a rule is soon done with.

    """

    least: int
    most: int

    def size(self, wanted: int) -> int:
        """The K within the bounds that is nearest to this one."""
        return min(max(wanted, self.least), self.most)


def kept_updates(strategy: Strategy, rule: Rule, layout: Layout) -> KeptUpdates:
    """The bounds for a model.

    Raises:
        ConfigError: the buffer that is set, or the smallest that the rule can do with, does not fit.

    """
    most = KEPT_BYTES // max(1, 4 * layout.size)
    wanted = max(rule.needs, strategy.buffer_size or 0)
    if wanted > most:
        raise ConfigError(
            f"strategy {strategy.name!r}: it keeps {wanted} updates of {4 * layout.size:,} bytes, expected at most"
            f" {KEPT_BYTES:,} bytes together; take a smaller buffer_size, or fedbuff with clip_medians"
        )
    return KeptUpdates(rule.needs, most if strategy.buffer_size else min(most, _MOST_AUTOMATIC))
