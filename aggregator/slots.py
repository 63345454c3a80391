"""One update of each client in a buffer: how long a client waits for its next slot, and a buffer for its clients."""

from __future__ import annotations

from statistics import median

from fedmq.aggregator.buffer import Buffer
from fedmq.aggregator.tempo import Tempo

__all__ = ["UNKNOWN_SECONDS", "seconds_until_a_slot", "taken"]

UNKNOWN_SECONDS = 300.0
"""How long a buffer with slots waits while the timer has nothing to go by: without it fewer clients than K, each with
its slot, would wait for ever."""

_SOONEST, _LATEST = (
    1.0,
    60.0,
)  # seconds: what is asked again sooner is noise, and a version may come earlier than thought


def taken(buffer: Buffer, client_id: str) -> bool:
    """Whether this client has an update in the buffer."""
    return any(folded.client_id == client_id for folded in buffer.updates)


def seconds_until_a_slot(buffer: Buffer, tempo: Tempo, flush_at: float | None, now: float) -> float:
    """When the buffer may have become a version: at the usual pace or by the timer, whichever is first."""
    missing = max(0, tempo.buffer_size - len(buffer.updates))
    usual = missing * median(tempo.intervals) if tempo.intervals else _LATEST
    return min(max(usual if flush_at is None else min(usual, flush_at - now), _SOONEST), _LATEST)
