"""What the last commit holds, as far as it is shown to anyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fedmq.aggregator.quarantine import Held
from fedmq.aggregator.state import State
from fedmq.schemas.errors import LaterReason, Reason
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import DeviceEvaluation

__all__ = ["Committed"]


@dataclass(frozen=True, slots=True)
class Committed:
    """A state at the moment of its commit; see `State` and `Progress` for what the figures mean.

    Attributes:
        weights: float32 [layout.size]; nobody changes them, a version has new ones.

    """

    run: str
    layout: Layout
    weights: Vector
    version: int
    finished: str | None
    accepted: int
    verdicts: int
    rejected: dict[Reason, int]
    later: dict[LaterReason, int]
    quarantine: dict[str, Held]
    mean_staleness: float
    buffer_size: int
    buffered: int
    uplink_bytes: int
    devices: DeviceEvaluation | None
    devices_version: int | None

    @classmethod
    def of(cls, state: State) -> Self:
        """Of a state that is being committed."""
        return cls(
            run=state.run,
            layout=state.layout,
            weights=state.weights,
            version=state.version,
            finished=state.finished,
            accepted=state.accepted,
            verdicts=state.verdicts,
            rejected=dict(state.rejected),
            later=dict(state.later),
            quarantine=dict(state.quarantine.held),
            mean_staleness=state.mean_staleness,
            buffer_size=state.tempo.buffer_size,
            buffered=len(state.buffer.updates),
            uplink_bytes=state.uplink_bytes,
            devices=state.scores.now(),
            devices_version=state.scores.newest_version(),
        )
