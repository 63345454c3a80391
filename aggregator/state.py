"""Everything that an aggregator has to remember: what the store keeps, and what a restart goes on from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fedmq.aggregator.allowance import Allowances
from fedmq.aggregator.buffer import Buffer, Folded
from fedmq.aggregator.clipping import Norms
from fedmq.aggregator.ledger import Ledger
from fedmq.aggregator.quarantine import Quarantine
from fedmq.aggregator.scores import Scores
from fedmq.aggregator.tempo import Tempo
from fedmq.schemas.errors import LaterReason, Reason
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import Metrics, UpdateId

__all__ = ["News", "State", "VersionRecord"]


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """How a version came to be: with it and the updates, a replay gives the same bits.

    Attributes:
        version: the one that was made.
        updates: what was folded in, in order.
        buffer_size: K.
        why: full, timer, cohort, offline, deadline or goal.
        seconds: when, in seconds of the run.

    """

    version: int
    updates: tuple[Folded, ...]
    buffer_size: int
    why: str
    seconds: float


@dataclass(slots=True)
class News:
    """What happened since the last commit, beside the state itself.

    Attributes:
        versions: that were made.
        judged: clients and updates with new verdicts, in order, and as what the ledger keeps each.
        renewed: clients of which an outbox begins, or comes back.
        scored: clients whose evaluation is new.
        scored_versions: of what.
        measured: the aggregator's own evaluations, by version.

    """

    versions: list[VersionRecord] = field(default_factory=list)
    judged: list[tuple[str, UpdateId, bytes]] = field(default_factory=list)
    renewed: set[str] = field(default_factory=set)
    scored: set[str] = field(default_factory=set)
    scored_versions: set[int] = field(default_factory=set)
    measured: dict[int, Metrics] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """The durable state of a run.

    Attributes:
        run: its id, 128 bits in hex.
        layout: of all vectors.
        weights: x, float32 [layout.size]; never changed in place: a version has new ones.
        version: of the weights.
        buffer: updates on their way to the next version.
        velocity: server momentum, float32 [layout.parameter_size]; None without.
        ledger: verdicts.
        tempo: buffer size, timer and what they follow.
        scores: what devices measured.
        norms: of updates, if a bound follows them.
        quarantine: clients that are not listened to.
        allowances: how many updates of each client have counted, where that is bounded.
        bases: for strategies that mix: version -> weights as devices received them, a few of all ages.
        accepted, rejected: updates, ever; rejections by reason, messages that could not be read among them.
        later: offers that were put off and messages that were not read, by reason.
        verdicts: that the ledger was given, ever.
        staleness_sum: over accepted updates, in versions.
        uplink_bytes: encoded size of accepted updates.
        seconds: how long the run has been worked on.
        finished: the goal that was reached, as a sentence; None while training.
        replaced: runs of this federation whose place it has taken: a broker may show them again.

    """

    run: str
    layout: Layout
    weights: Vector
    buffer: Buffer
    version: int = 0
    velocity: Vector | None = None
    ledger: Ledger = field(default_factory=Ledger)
    tempo: Tempo = field(default_factory=Tempo)
    scores: Scores = field(default_factory=Scores)
    norms: Norms = field(default_factory=Norms)
    quarantine: Quarantine = field(default_factory=Quarantine)
    allowances: Allowances = field(default_factory=Allowances)
    bases: dict[int, Vector] = field(default_factory=dict)
    accepted: int = 0
    verdicts: int = 0
    rejected: Counter[Reason] = field(default_factory=Counter)
    later: Counter[LaterReason] = field(default_factory=Counter)
    staleness_sum: int = 0
    uplink_bytes: int = 0
    seconds: float = 0.0
    finished: str | None = None
    replaced: list[str] = field(default_factory=list)

    @classmethod
    def initial(cls, run: str, layout: Layout, weights: Vector) -> State:
        """Version 0 of a new run."""
        return cls(run, layout, weights, Buffer.empty(layout))

    @property
    def mean_staleness(self) -> float:
        """Of all accepted updates, in versions."""
        return self.staleness_sum / self.accepted if self.accepted else 0.0
