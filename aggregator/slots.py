"""One update of each client in a buffer: how long a client waits for its next slot, and a buffer for its clients."""

from __future__ import annotations

from statistics import median

from fedmq.aggregator.buffer import Buffer
from fedmq.aggregator.tempo import Tempo

__all__ = ["fewest", "seconds_until_a_slot", "taken", "waits_at_least"]

# How long a buffer with slots waits while the timer has nothing to go by: without it fewer clients than K, each with
# its slot, would wait for ever.
_UNKNOWN_SECONDS = 300.0

_KNOWN = 3  # clients, from which on an automatic K is at least 2: of two, the fast one would wait for the slow one
_SOONEST, _LATEST = (
    1.0,
    60.0,
)  # seconds: what is asked again sooner is noise, and a version may come earlier than thought


def fewest(clients: int) -> int:
    """The least automatic K with slots, when so many clients are known. With K = 1 a slot would be free at once.

    K follows what updates say of their bases: a fast client that names the newest each time says that nobody else is at
    work, and would have all slots that it can fill.
    """
    return 2 if clients >= _KNOWN else 1


def waits_at_least(buffer: Buffer, usual: float | None) -> float:
    """Seconds that a buffer with slots is open before the timer closes it; `usual` is what is usual, if it is known.

    One client alone waits longer: else it could make versions of its own as quickly as the timer closes buffers.
    """
    if usual is None:
        return _UNKNOWN_SECONDS
    return max(usual, _UNKNOWN_SECONDS) if len(buffer.updates) == 1 else usual


def taken(buffer: Buffer, client_id: str) -> bool:
    """Whether this client has an update in the buffer."""
    return any(folded.client_id == client_id for folded in buffer.updates)


def seconds_until_a_slot(buffer: Buffer, tempo: Tempo, flush_at: float | None, now: float) -> float:
    """When the buffer may have become a version: at the usual pace or by the timer, whichever is first."""
    missing = max(0, tempo.buffer_size - len(buffer.updates))
    usual = missing * median(tempo.intervals) if tempo.intervals else _LATEST
    return min(max(usual if flush_at is None else min(usual, flush_at - now), _SOONEST), _LATEST)
