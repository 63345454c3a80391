"""Who is listened to: not who is revoked, in quarantine, or floods. What is not read is counted all the same."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from fedmq.aggregator.attention import Attention, Wasted
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.releases import Releases
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.sparing import Sparing
from fedmq.schemas.errors import ProtocolError, Reason
from fedmq.schemas.messages import Later, Need, Offer, Part, UpdateId
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode

__all__ = ["Door"]

log = logging.getLogger("fedmq.aggregator")

_REST_SECONDS = 1.0  # between two messages of a client in quarantine that are looked at
_LONGEST_SECONDS = 300.0  # until a client in quarantine offers again
_AGAIN_SECONDS = 1.0  # the same when it is not there any more


class Door:
    """Asked before a client's message is read, and told of what led nowhere.

    Args:
        topics: of the federation.
        core: has the quarantine and the counters.
        attention: which floods are not read.
        revoked: devices that are out.
        releases: clients that somebody lets out of quarantine.
        sparing: which lines of the log are written.
        now: seconds of the run.

    Attributes:
        core: another one when the disk had failed.

    """

    def __init__(
        self,
        *,
        topics: Topics,
        core: AggregatorCore,
        attention: Attention,
        revoked: Revoked,
        releases: Releases,
        sparing: Sparing,
        now: Callable[[], float],
    ) -> None:
        self.core = core
        self._topics = topics
        self._attention = attention
        self._revoked = revoked
        self._releases = releases
        self._sparing = sparing
        self._seldom = Sparing(at_once=1)
        self._now = now
        # Refusals, by client and reason: the core or its buffer may be a thread's when there is one.
        self._uncounted: Counter[tuple[str, Reason]] = Counter()
        self._waiting: dict[str, UpdateId] = {}  # of clients in quarantine, what was put off last
        self._left_out: Counter[str] = Counter()  # messages that were not read, and no line of the log has said so

    def holds(self, client_id: str) -> bool:
        """Whether this client is in quarantine."""
        return client_id in self.core.state.quarantine.held

    def hold_off(self, client_id: str, payload: bytes) -> Later | None:
        """What a client in quarantine is told, now and then: how long it has to wait. Nothing else of it is read."""
        if not self._attention.reads(client_id):
            return None
        self._attention.rest(client_id, _REST_SECONDS, "quarantine")
        with suppress(ProtocolError):
            said, _ = decode(payload, Offer, Part, Need)
            if isinstance(said, Offer):
                left = self.core.state.quarantine.held[client_id].until - self._now()
                self._waiting[client_id] = said.update
                # It is told when it is released; but a message may be lost.
                return Later(update=said.update, reason="quarantine", seconds=min(max(left, 1.0), _LONGEST_SECONDS))
        self.core.state.later["quarantine"] += 1
        return None

    def out(self) -> frozenset[str]:
        """Who is revoked now."""
        return self._revoked.ids()

    def wasted(self, client_id: str) -> None:
        """A message of this client led nowhere."""
        self._attention.wasted(client_id)

    def unreadable(self, topic: str, payload: bytes, error: ProtocolError) -> None:
        """A message that cannot be read: it has no answer, since there is nothing in it that one could name."""
        client_id = self._topics.sender(topic)
        if client_id is not None and not payload:
            # A topic was emptied. Nobody has signed it, and it says nothing: no client is to answer for it.
            self._attention.forged(client_id)
            return
        if client_id is not None:
            self._uncounted[client_id, error.reason] += 1
            self._attention.wasted(client_id)
        if (left_out := self._sparing.line(topic, self._now())) is not None:
            log.warning("ignored topic=%s reason=%s detail=%r%s", topic[:200], error.reason, str(error), left_out)

    def forged(self, topic: str) -> None:
        """A message was not signed as it has to be. It has no verdict: who sent it may be anyone."""
        self.core.state.rejected["signature"] += 1
        client_id = self._topics.sender(topic)
        if client_id is not None:
            self._attention.forged(client_id)

    def settle(self) -> list[str]:
        """Have the core count what was not read; who has come into quarantine by it."""
        held = []
        uncounted, self._uncounted = self._uncounted, Counter()
        for (client_id, reason), times in uncounted.items():
            if self.core.unreadable(client_id, reason, self._now(), times):
                held.append(client_id)
        for (client_id, why), times in self._attention.take().items():
            self.core.state.later[why] += times
            self._say_unread(client_id, why, times)
        return held

    def let_go(self, now: float) -> bool:
        """Release from quarantine whose time is over and whom somebody released; whether that is to be committed.

        Who is revoked counts no more among those that measure.
        """
        self.core.state.scores.leave_out(self.out())
        quarantine = self.core.state.quarantine
        asked = self._releases.take()
        gone = [(client_id, "its time is over") for client_id in quarantine.over(now)]
        gone += [(client_id, "somebody released it") for client_id in asked if quarantine.release(client_id)]
        for client_id, why in gone:
            self._attention.again(client_id)
            log.warning("quarantine ended client=%s why=%r", client_id, why)
        return bool(gone or asked)

    def heard_again(self) -> Iterator[tuple[str, Later]]:
        """Who was put off because of a quarantine that is over, and what to tell each, so that it offers again soon."""
        for client_id in [each for each in self._waiting if not self.holds(each)]:
            update = self._waiting.pop(client_id)
            yield client_id, Later(update=update, reason="quarantine", seconds=_AGAIN_SECONDS)

    def committing(self) -> None:
        """All who were let go until now are out in the commit that begins."""
        self._releases.committing()

    def committed(self) -> None:
        """The commit that had begun is on the disk."""
        self._releases.committed()

    def forget(self) -> None:
        """What is in no commit did not happen."""
        self._releases.forget()

    def _say_unread(self, client_id: str, why: Wasted, times: int) -> None:
        self._left_out[client_id] += times
        if self._seldom.line(client_id, self._now()) is not None:
            log.warning("not read client=%s reason=%s messages=%d", client_id, why, self._left_out.pop(client_id))
