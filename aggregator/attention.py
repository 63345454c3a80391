"""Whose messages are read at all: who floods the aggregator must not keep the others waiting.

What leads nowhere is counted, not what is sent: a device that is fast and whose updates count may be as fast as it can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

from fedmq.aggregator.buckets import Buckets

__all__ = ["Attention", "Wasted"]

Wasted = Literal["rate", "quarantine"]

_FLOOD = 100  # messages of one client within a second that were not read
_SHUN_SECONDS, _LONGEST_SHUN_SECONDS = 60.0, 3600.0  # the first time, and after it was doubled again and again

_WASTED_PER_SECOND, _WASTED_AT_ONCE = 50.0, 200.0  # of one client; a device that comes back offers 63 updates at once
# Of messages on one client's topic that it has not signed; more, since they may be somebody else's.
_FORGED_PER_SECOND, _FORGED_AT_ONCE = 200.0, 400.0
_MOST_OUT = 1024


class Attention:
    """Asked before each message of a client is so much as verified; told after each that led nowhere.

    Args:
        clock: seconds.

    Attributes:
        floods: somebody floods so much that `shunned` is to be asked at once.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wasted = Buckets(_WASTED_PER_SECOND, _WASTED_AT_ONCE)
        self._forged = Buckets(_FORGED_PER_SECOND, _FORGED_AT_ONCE)
        self._out: dict[str, tuple[float, Wasted]] = {}  # until when nothing of a client is read, and why
        self._unread: Counter[tuple[str, Wasted]] = Counter()
        self.floods = False
        self._flood: Counter[str] = Counter()  # the same within this second
        self._flood_since = 0.0
        self._shunned: dict[str, tuple[float, float]] = {}  # until when, and for how long that was

    @property
    def reads_all(self) -> bool:
        """Whether every client's next message is to be read."""
        return not self._out

    def reads(self, client_id: str) -> bool:
        """Whether this client's next message is to be read; if not, it is counted here."""
        out = self._out.get(client_id)
        if out is None:
            return True
        until, why = out
        now = self._clock()
        if now < until:
            self._unread[client_id, why] += 1
            if now >= self._flood_since + 1.0:
                self._flood.clear()
                self._flood_since = now
            self._flood[client_id] += 1
            self.floods = self.floods or self._flood[client_id] >= _FLOOD
            return False
        del self._out[client_id]
        return True

    def wasted(self, client_id: str) -> None:
        """A message of this client led nowhere: refused, put off, repeated, or a wish for what is there."""
        self._take(self._wasted, client_id)

    def forged(self, client_id: str) -> None:
        """A message on this client's topic was not signed by it."""
        self._take(self._forged, client_id)

    def rest(self, client_id: str, seconds: float, why: Wasted) -> None:
        """Read nothing of this client for so long."""
        now = self._clock()
        if len(self._out) >= _MOST_OUT:  # ids that somebody makes up
            self._out = {client: out for client, out in self._out.items() if now < out[0]}
        self._out[client_id] = now + seconds, why

    def again(self, client_id: str) -> None:
        """Read this client again."""
        self._out.pop(client_id, None)
        self._shunned.pop(client_id, None)

    def shunned(self) -> frozenset[str]:
        """Whose messages are not even to come: who floods with what is not read.

        A client is among them for a minute, and twice as long each time that it goes on at once.
        """
        now = self._clock()
        for client_id, times in self._flood.items():
            if times >= _FLOOD and now >= self._shunned.get(client_id, (now, 0.0))[0]:
                seconds = min(2 * self._shunned.get(client_id, (0.0, _SHUN_SECONDS / 2))[1], _LONGEST_SHUN_SECONDS)
                self._shunned[client_id] = now + seconds, seconds
        self._flood.clear()
        self.floods = False
        for client_id, (until, seconds) in list(self._shunned.items()):
            if now >= until + seconds:  # it has been quiet for as long
                del self._shunned[client_id]
        return frozenset(client_id for client_id, (until, _) in self._shunned.items() if now < until)

    def take(self) -> Counter[tuple[str, Wasted]]:
        """How many messages were not read since the last time, by client and reason."""
        taken, self._unread = self._unread, Counter()
        return taken

    def _take(self, buckets: Buckets, client_id: str) -> None:
        now = self._clock()
        buckets.take(client_id, now)
        seconds = buckets.seconds(client_id, now)
        if seconds > 0:
            self.rest(client_id, seconds, "rate")
