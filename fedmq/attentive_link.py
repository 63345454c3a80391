"""The aggregator's link: what it does not want to read is dropped before it is decoded or verified, or does not come.

A broker has one queue for the aggregator. Who fills it faster than it is emptied keeps all others out, however quickly
each message is dropped. So where all devices are known, whoever floods is not subscribed to for a while: then the
broker drops what it sends, and nothing of it is in the way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fedmq.aggregator.attention import Attention
from fedmq.schemas.topics import Topics
from fedmq.transport.in_front import LinkInFront
from fedmq.transport.link import Connected, Event, Link, Message

__all__ = ["AttentiveLink"]

log = logging.getLogger("fedmq.aggregator")

_MOST_DROPPED = 256  # at a time: whoever sends nothing else must not keep the owner from its work
_LOOK_SECONDS = 0.5


class AttentiveLink(LinkInFront):
    """A link in front of another.

    Args:
        link: to the broker.
        topics: of the federation.
        attention: what decides.
        known: all devices that there are now; None if nobody knows.
        clock: seconds.

    """

    def __init__(
        self,
        link: Link,
        topics: Topics,
        attention: Attention,
        known: Callable[[], frozenset[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(link)
        self._topics = topics
        self._updates = topics.updates.removesuffix("+")
        self._statuses = topics.statuses.removesuffix("+")
        self._attention = attention
        self._known = known
        self._clock = clock
        self._look_at = 0.0
        self._of_clients = {topics.updates: topics.update, topics.statuses: topics.status}
        self._filters: set[str] = set()  # of these, that were asked for in this connection
        self._shunned: frozenset[str] = frozenset()
        self._one_by_one: frozenset[str] = frozenset()  # who is subscribed to, while anybody is shunned
        self._session_left = False  # subscriptions of an earlier process may be in the broker's session

    def poll(self, timeout: float) -> Event | None:
        """See `Link`; without what is not to be read."""
        if self._attention.floods or self._shunned:
            self._look()
        for _ in range(_MOST_DROPPED):
            event = self._link.poll(timeout)
            if not isinstance(event, Message):
                if isinstance(event, Connected):
                    self._session_left = event.session_present
                    self._filters.clear()
                return event
            if self._attention.reads_all:
                return event
            topic = event.topic
            if topic.startswith(self._updates):
                client_id = topic[len(self._updates) :]
            elif topic.startswith(self._statuses):
                client_id = topic[len(self._statuses) :]
            else:
                return event
            if self._attention.reads(client_id):
                return event
            timeout = 0.0
        return None

    def subscribe(self, *topics: str) -> None:
        """See `Link`; where all clients are meant, for all but whom is shunned."""
        for topic in topics:
            if topic not in self._of_clients:
                self._link.subscribe(topic)
                continue
            self._filters.add(topic)
            if self._shunned:
                self._link.subscribe(*self._topics_of(self._one_by_one, topic))
                if self._session_left:  # the word that this one ends may have been lost with the connection before
                    self._link.unsubscribe(topic)
                continue
            self._link.subscribe(topic)
            if self._session_left and self._known is not None:
                self._link.unsubscribe(*self._topics_of(self._known(), topic))

    def _look(self) -> None:
        now = self._clock()
        if not self._filters or self._known is None or not (self._attention.floods or now >= self._look_at):
            return
        self._look_at = now + _LOOK_SECONDS
        before, self._shunned = self._shunned, self._attention.shunned()
        for client_id in self._shunned - before:
            log.error("shunned client=%s: it floods; nothing that it sends comes for a while", client_id)
        for client_id in before - self._shunned:
            log.warning("heard again client=%s", client_id)
        if not self._shunned and not before:
            return
        assert self._known is not None
        wanted = self._known() - self._shunned if self._shunned else frozenset[str]()
        # First what is new, so that nothing is missed between the two.
        self._link.subscribe(*self._topics_of(wanted - self._one_by_one))
        if not self._shunned:
            self._link.subscribe(*self._filters)
        elif not before:
            self._link.unsubscribe(*self._filters)
        self._link.unsubscribe(*self._topics_of(self._one_by_one - wanted))
        self._one_by_one = wanted

    def _topics_of(self, client_ids: frozenset[str], *filters: str) -> list[str]:
        return [self._of_clients[each](one) for each in filters or self._filters for one in sorted(client_ids)]
