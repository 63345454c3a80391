"""What devices measured of the weights that they received: means weighted by samples, and the spread between them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median_low

from fedmq.schemas.messages import DeviceEvaluation, Evaluation

__all__ = ["Scores", "reached_by_most", "summarised"]

_CLIENTS = 1000  # whose newest evaluation is kept: those heard last
_VERSIONS = 64  # of which every evaluation is kept, until the next version of the ring
_LARGEST = 1e100  # beyond it a metric has diverged and is left out: its square is no float any more
_MOST_SAMPLES = (1 << 63) - 1  # that a message can say


def summarised(evaluations: Iterable[Evaluation]) -> DeviceEvaluation | None:
    """Mean and spread of some evaluations, each by its samples up to 10 x their median; None if there are none."""
    measured, counts = _counted(evaluations)
    if not measured:
        return None
    mean: dict[str, float] = {}
    spread: dict[str, float] = {}
    for name in sorted({name for evaluation in measured for name in evaluation.metrics})[:32]:
        values = [evaluation.metrics.get(name, math.inf) for evaluation in measured]
        pairs = [(value, n) for value, n in zip(values, counts, strict=True) if abs(value) <= _LARGEST]
        if not pairs:
            continue
        total = sum(n for _, n in pairs)
        mean[name] = sum(value * n for value, n in pairs) / total
        spread[name] = math.sqrt(sum(n * (value - mean[name]) ** 2 for value, n in pairs) / total)
    samples = min(sum(counts), _MOST_SAMPLES)
    return DeviceEvaluation(clients=len(measured), num_samples=samples, mean=mean, spread=spread)


def reached_by_most(evaluations: Iterable[Evaluation], metric: str, *, higher_is_better: bool) -> float | None:
    """What devices with more than half of the samples reach, counted as for the mean; None if nobody measured it."""
    pairs = [
        (evaluation.metrics[metric], n)
        for evaluation, n in zip(*_counted(evaluations), strict=True)
        if metric in evaluation.metrics and abs(evaluation.metrics[metric]) <= _LARGEST
    ]
    half, reached = sum(n for _, n in pairs) / 2, 0
    for value, n in sorted(pairs, reverse=higher_is_better):  # the best first
        reached += n
        if reached > half:
            return value
    return None


def _counted(evaluations: Iterable[Evaluation]) -> tuple[list[Evaluation], list[int]]:
    """Those that say something, and for how many samples each counts."""
    measured = [evaluation for evaluation in evaluations if evaluation.num_samples and evaluation.metrics]
    if not measured:
        return [], []
    most = 10 * median_low(evaluation.num_samples for evaluation in measured)
    return measured, [min(evaluation.num_samples, most) for evaluation in measured]


@dataclass(slots=True)
class Scores:
    """Evaluations by devices, bounded.

    Attributes:
        newest: each client's newest, and of which version it is.
        versions: every device's, for the versions measured last.

    """

    newest: OrderedDict[str, tuple[int, Evaluation]] = field(default_factory=OrderedDict)
    versions: OrderedDict[int, dict[str, Evaluation]] = field(default_factory=OrderedDict)

    def add(self, client_id: str, version: int, evaluation: Evaluation) -> None:
        """A device measured a version."""
        if client_id not in self.newest or self.newest[client_id][0] <= version:
            self.newest[client_id] = (version, evaluation)
            self.newest.move_to_end(client_id)
        self.versions.setdefault(version, {})[client_id] = evaluation
        while len(self.newest) > _CLIENTS:
            self.newest.popitem(last=False)
        while len(self.versions) > _VERSIONS:
            del self.versions[min(self.versions)]

    def leave_out(self, clients: Iterable[str]) -> None:
        """What these measured last counts no more; what came of it in a version does."""
        for client_id in clients:
            self.newest.pop(client_id, None)

    def now(self) -> DeviceEvaluation | None:
        """Over each client's newest evaluation."""
        return summarised(evaluation for _, evaluation in self.newest.values())

    def reached_by_most(self, metric: str, *, higher_is_better: bool) -> float | None:
        """What devices with more than half of the test samples reach, by each client's newest evaluation."""
        newest = (evaluation for _, evaluation in self.newest.values())
        return reached_by_most(newest, metric, higher_is_better=higher_is_better)

    def newest_version(self) -> int | None:
        """The newest version that any device has measured."""
        return max((version for version, _ in self.newest.values()), default=None)

    def of(self, version: int) -> DeviceEvaluation | None:
        """Over the evaluations of one version."""
        return summarised(self.versions.get(version, {}).values())
