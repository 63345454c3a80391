"""What devices measured of the weights that they received: means weighted by samples, and the spread between them."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median_low

from fedmq.schemas.messages import DeviceEvaluation, Evaluation

__all__ = ["Scores", "reached_by_most", "summarised"]

_CLIENTS = 1000  # whose newest evaluation is kept: those heard last
_VERSIONS = 64  # of which every evaluation is kept, until the next version of the ring
_LARGEST = 1e100  # beyond it a metric has diverged and is left out: its square is no float any more
_NAMES = 32  # of metrics in a summary
_SECONDS_PER_CLIENT = 0.001  # between two looks at what most reach: about a thousand times what one takes
_MOST_SAMPLES = (1 << 63) - 1  # that a message can say


def summarised(evaluations: Iterable[Evaluation], always: str = "") -> DeviceEvaluation | None:
    """Mean and spread of some evaluations, each by its samples up to 10 x their median; None if there are none.

    Of many metrics those that most devices have, so that one device with names of its own hides nothing; and `always`.
    """
    measured, counts = _counted(evaluations)
    if not measured:
        return None
    mean: dict[str, float] = {}
    spread: dict[str, float] = {}
    known = Counter(name for evaluation in measured for name in evaluation.metrics)
    for name in sorted(known, key=lambda name: (name != always, -known[name], name))[:_NAMES]:
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
        whole_from: the version from which on `versions` has every evaluation; what an earlier process heard of older
            ones is here only as far as it was a client's newest.
        always: a metric that is in every summary.

    """

    newest: OrderedDict[str, tuple[int, Evaluation]] = field(default_factory=OrderedDict)
    versions: OrderedDict[int, dict[str, Evaluation]] = field(default_factory=OrderedDict)
    whole_from: int = 0
    always: str = ""
    _changed: bool = True
    _ask_at: float = 0.0

    def add(self, client_id: str, version: int, evaluation: Evaluation) -> None:
        """A device measured a version."""
        if client_id not in self.newest or self.newest[client_id][0] <= version:
            self.newest[client_id] = (version, evaluation)
            self.newest.move_to_end(client_id)
        self.versions.setdefault(version, {})[client_id] = evaluation
        self._changed = True
        while len(self.newest) > _CLIENTS:
            self.newest.popitem(last=False)
        while len(self.versions) > _VERSIONS:
            del self.versions[min(self.versions)]

    def leave_out(self, clients: Iterable[str]) -> None:
        """What these measured last counts no more; what came of it in a version does."""
        for client_id in clients:
            self._changed |= self.newest.pop(client_id, None) is not None

    def restored(self) -> None:
        """All that an earlier process kept has been added."""
        self.whole_from = self.newest_version() or 0

    def ask_again(self, now: float) -> bool:
        """Whether what most reach may be another since this was last true, and it is long enough ago."""
        if not self._changed or now < self._ask_at:
            return False
        self._changed, self._ask_at = False, now + _SECONDS_PER_CLIENT * len(self.newest)
        return True

    def deadline(self) -> float | None:
        """When to ask again."""
        return self._ask_at if self._changed else None

    def now(self) -> DeviceEvaluation | None:
        """Over each client's newest evaluation."""
        return summarised((evaluation for _, evaluation in self.newest.values()), self.always)

    def reached_by_most(self, metric: str, *, higher_is_better: bool) -> float | None:
        """What devices with more than half of the test samples reach, by each client's newest evaluation."""
        newest = (evaluation for _, evaluation in self.newest.values())
        return reached_by_most(newest, metric, higher_is_better=higher_is_better)

    def newest_version(self) -> int | None:
        """The newest version that any device has measured."""
        return max((version for version, _ in self.newest.values()), default=None)

    def of(self, version: int) -> DeviceEvaluation | None:
        """Over the evaluations of one version; None if there are none, or some of them are not here any more."""
        if version < self.whole_from:
            return None
        return summarised(self.versions.get(version, {}).values(), self.always)
