"""A link on which everything is signed: what is sent carries a signature, and what was not signed is not there.

So no service has to know of it, and none can forget to look.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from fedmq.newest import Newest
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.signing import AGGREGATOR, SIGNATURE_BYTES, Keys, Signed, author, opened, sealed
from fedmq.schemas.topics import Topics
from fedmq.session import AtWork
from fedmq.transport.in_front import LinkInFront
from fedmq.transport.link import Event, Link, Message

__all__ = [
    "OLD",
    "Fresh",
    "SignedLink",
    "forged",
    "in_order",
    "of_a_device",
    "of_who_looks",
    "signed_for_the_aggregator",
]

log = logging.getLogger("fedmq.signing")

_MOST_REFUSED = 32  # at a time: whoever sends nothing else must not keep the owner from its work

_UNSIGNED = "it is not signed"
OLD = "it is an old one, repeated: its author has started again since"
"""Why a message is refused that its author has signed."""

Fresh = Callable[[str, int, str], bool]
"""Whether a message on this topic, of this session and signed with this public key, is no old one that is repeated."""


class SignedLink(LinkInFront):
    """A link in front of another.

    Args:
        link: to the broker.
        topics: of the federation.
        keys: that sign and verify.
        session: the own one: greater at every start of the process.
        fresh: asked after the signature.
        unsigned: on which topics a message without a signature is heard too.
        own: a topic on which this author has left something at an earlier start; none if empty.
        logs: whether what is refused is said in the log too.

    Attributes:
        refused: how many messages were refused.
        on_refused: called for each, with its topic and why, as a sentence.
        on_unverified: called too, with its topic, for what is signed with no known key, or cannot be read at all.
        on_outlived: called in its place for what an earlier start has left on `own`: its word, then its last will.

    """

    def __init__(
        self,
        link: Link,
        topics: Topics,
        keys: Keys,
        session: int,
        fresh: Fresh,
        unsigned: Callable[[str], bool] = lambda topic: False,
        own: str = "",
        logs: bool = True,
    ) -> None:
        self.refused = 0
        self.on_refused: Callable[[str, str], None] = lambda topic, why: None
        self.on_unverified: Callable[[str], None] = lambda topic: None
        self.on_outlived: Callable[[], None] = lambda: None
        super().__init__(link)
        self._topics = topics
        self._keys = keys
        self._session = session
        self._fresh = fresh
        self._unsigned = unsigned
        self._own = own
        self._logs = logs
        self._said: Counter[str] = Counter()

    @property
    def max_message_bytes(self) -> int:
        """What a payload may have before it is signed."""
        return self._link.max_message_bytes - SIGNATURE_BYTES - 2

    def poll(self, timeout: float) -> Event | None:
        """See `Link`; messages that are not signed by whose they should be, or old ones, do not come."""
        for _ in range(_MOST_REFUSED):
            event = self._link.poll(timeout)
            # An empty message is a retained one that goes: it says nothing, and whoever can send it can also drop one.
            if not isinstance(event, Message) or not event.payload:
                return event
            why = self._refusal(event)
            if why is None:
                return event
            if why == OLD and event.topic == self._own:
                self.refused += 1
                self.on_outlived()
            else:
                self._refuse(event.topic, why)
            timeout = 0.0
        return None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """See `Link`; signed."""
        if payload:
            payload = sealed(topic, payload, self._session, self._keys.sign)
        return self._link.publish(topic, payload, retain=retain, qos=qos)

    def _refusal(self, message: Message) -> str | None:
        try:
            signed = opened(message.topic, message.payload)
        except ProtocolError:
            # Not its own sentence, which quotes what came: there would be one to count and to log for every stranger.
            return "its header cannot be read"
        who = author(self._topics, message.topic)
        if signed is None:
            return None if self._unsigned(message.topic) else _UNSIGNED
        key = self._keys.verify(who, signed.content, signed.signature)
        if key is None:
            return _unknown_key(who)
        if not self._fresh(message.topic, signed.session, key):
            return OLD
        return None

    def _refuse(self, topic: str, why: str) -> None:
        self.refused += 1
        # A stranger must not fill the disk with lines: the first, the second, the fourth and so on are said.
        self._said[why] += 1
        if self._logs and self._said[why].bit_count() == 1:
            log.error("refused topic=%s times=%d detail=%r", topic, self._said[why], why)
        self.on_refused(topic, why)
        if why not in (_UNSIGNED, OLD):
            self.on_unverified(topic)


def forged(topics: Topics, keys: Keys, topic: str, signed: Signed | None) -> str | None:
    """Why what came on a topic, and was opened as `signed`, is not its author's; None if it is."""
    who = author(topics, topic)
    if signed is None:
        return _UNSIGNED
    return None if keys.verify(who, signed.content, signed.signature) else _unknown_key(who)


def _unknown_key(who: str) -> str:
    if who == AGGREGATOR:
        return "it is not signed with a known key of the aggregator"
    return "it is not signed with a known key of its client, whose newest ones have to be in signing.device_keys_file"


def in_order(topics: Topics, newest: Newest) -> Fresh:
    """For who hears the aggregator: nothing of it from before the newest session that was heard, parts excepted.

    A part may lie on the broker from an earlier session; it is checked with the digest in the head of its snapshot. A
    presence counts, but makes nothing else old: it may be of an aggregator that starts, and finds that it must not.

    Args:
        topics: of the federation.
        newest: session of the aggregator that was ever heard.

    """

    def fresh(topic: str, session: int, key: str) -> bool:
        if author(topics, topic) != AGGREGATOR or topics.part_of(topic) is not None:
            return True
        if topic == topics.aggregator:
            return session >= newest.session
        return newest.take(session, key)

    return fresh


def of_a_device(topics: Topics, client_id: str, session: int, aggregator: Fresh) -> Fresh:
    """For a device: as `aggregator` says, and no own status of an earlier start, as if another had its id."""

    def fresh(topic: str, other: int, key: str) -> bool:
        return other >= session if topic == topics.status(client_id) else aggregator(topic, other, key)

    return fresh


def signed_for_the_aggregator(link: Link, topics: Topics, keys: Keys, session: int, at_work: AtWork) -> SignedLink:
    """The aggregator's: no other one's word from before it began, and no head or progress that is over.

    Over is what is from before the newest session in which it was let in: then it has seen what was shown, and has
    replaced it. Before its first time with signatures, what was shown without them is still to be respected.
    """
    shown = (topics.model, topics.progress)

    def fresh(topic: str, other: int, key: str) -> bool:
        if topic == topics.aggregator:
            return other >= session
        return topics.sender(topic) is not None or other >= at_work.session

    def unsigned(topic: str) -> bool:
        return topic in shown and at_work.session == 0

    return SignedLink(link, topics, keys, session, fresh, unsigned, own=topics.aggregator)


def of_who_looks(topics: Topics, keys: Keys) -> Fresh:
    """For who looks from outside: nothing of an author from before the newest session that was heard of it."""
    aggregator = in_order(topics, Newest(partial(keys.trusted, AGGREGATOR)))
    clients: dict[str, Newest] = {}

    def fresh(topic: str, session: int, key: str) -> bool:
        client_id = topics.sender(topic)
        if client_id is None:
            return aggregator(topic, session, key)
        if client_id not in clients:
            clients[client_id] = Newest(partial(keys.trusted, client_id))
        return clients[client_id].take(session, key)

    return fresh
