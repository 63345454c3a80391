"""Which versions the aggregator evaluates: the newest that is committed, whenever the last evaluation is done."""

from __future__ import annotations

import logging

from fedmq.aggregator.commits import Commits
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.evaluator import Evaluator

__all__ = ["Evaluations"]

log = logging.getLogger("fedmq.aggregator")

_LAST_SECONDS = 120.0  # that a finished run waits for its last evaluation


class Evaluations:
    """The aggregator's own evaluations; none without an evaluator."""

    def __init__(self, evaluator: Evaluator | None) -> None:
        self._evaluator = evaluator
        self._newest = -1  # that was evaluated, or is being
        self._end_by: float | None = None

    def take(self, core: AggregatorCore) -> None:
        """Give the core what has come of one; it is shown when that is committed."""
        result = self._evaluator.take() if self._evaluator else None
        if result is None:
            return
        version, metrics = result
        if isinstance(metrics, Exception):
            log.error("evaluation failed version=%d error=%r", version, metrics)
            return
        core.measured(version, metrics)

    def start(self, commits: Commits, core: AggregatorCore) -> None:
        """Evaluate what is committed, if it was not: anything else may be forgotten."""
        if self._evaluator is None or not self._evaluator.idle or commits.version <= self._newest:
            return
        weights = commits.weights(core)
        if weights is not None:
            self._newest = commits.version
            self._evaluator.start(commits.version, weights)

    def start_over(self) -> None:
        """What was measured and not committed is forgotten: measure it again."""
        self._newest, self._end_by = -1, None

    def complete(self, core: AggregatorCore, now: float) -> bool:
        """Whether the last version of a finished run is measured, or was waited for long enough."""
        if self._end_by is None:
            self._end_by = now + _LAST_SECONDS
        if self._evaluator is not None and now < self._end_by:
            if not self._evaluator.idle or self._newest < core.state.version:
                return False
            self.take(core)
        return True
