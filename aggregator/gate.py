"""The talk that opens the fence: the own word, the marks behind it, and the updates that are held until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from fedmq.aggregator.fence import Fence
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import AggregatorPresence, Head, Progress
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Link, Message

__all__ = ["Gate", "PresenceState"]

_AGAIN_SECONDS = 2.0  # until the word is said again: it may have been lost
_HELD_BYTES = 64 << 20  # of updates that came before it was decided; whoever sent more will offer again
_HELD_BESIDE = 500  # bytes that each of them takes beside its payload

PresenceState = Literal["starting", "online", "offline"]


class Gate:
    """Between a link and the service.

    Args:
        link: connected or not.
        topics: of the federation.
        fence: what decides.
        presence: makes the aggregator's present word.

    Attributes:
        complete: everything that the fence has to know is there; `decide` is due.

    """

    def __init__(
        self, link: Link, topics: Topics, fence: Fence, presence: Callable[[PresenceState], AggregatorPresence]
    ) -> None:
        self.complete = False
        self._link = link
        self._topics = topics
        self._fence = fence
        self._presence = presence
        self._connected = False
        self._again_at = 0.0
        self._held: list[Message] = []
        self._held_bytes = 0

    @property
    def open(self) -> bool:
        """Whether updates may be taken; it stays so while a connection is lost, and until the next."""
        return self._fence.open

    @property
    def online(self) -> bool:
        """Whether it is open in a connection that is there."""
        return self._fence.open and self._connected

    @property
    def shown(self) -> Head | None:
        """The head that the broker showed when it was decided."""
        return self._fence.shown

    def connected(self, now: float) -> None:
        """Look first who else was here."""
        self._connected, self.complete = True, False
        self._fence.connected()
        self._ask(now)

    def disconnected(self) -> None:
        """What is held will be offered again."""
        self._connected = False
        self._held, self._held_bytes = [], 0

    def tick(self, now: float) -> None:
        """Say the word again if it is time."""
        if self._connected and not self.open and now >= self._again_at:
            self._ask(now)

    def deadline(self) -> float | None:
        """When `tick` is due."""
        return self._again_at if self._connected and not self.open else None

    def say(self, state: Literal["online", "offline"]) -> None:
        """Show the aggregator's presence."""
        self._link.publish(self._topics.aggregator, encode(self._presence(state)), retain=True)

    def hold(self, message: Message) -> None:
        """Keep an update until it is decided, if there is room."""
        self._held_bytes += len(message.payload) + _HELD_BESIDE
        if self._held_bytes <= _HELD_BYTES:
            self._held.append(message)

    def release(self) -> list[Message]:
        """What was held, in order."""
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def heard(self, topic: str, payload: bytes) -> str | None:
        """A message on one of the topics that aggregators write; why this one has to end, None if it goes on.

        Raises:
            ProtocolError: it cannot be read, or no aggregator writes there.

        """
        if topic == self._topics.aggregator:
            return self._meet(decode(payload, AggregatorPresence)[0]) if payload else None
        if topic not in (self._topics.model, self._topics.progress):
            raise ProtocolError("malformed", "no client may write there")
        if not payload:
            self.complete = self._fence.marked(topic) or self.complete
            return None
        try:
            if topic == self._topics.model:
                self._fence.head(decode(payload, Head)[0])
            else:
                self._fence.progress(decode(payload, Progress)[0])
        except ProtocolError as error:
            self._fence.unreadable(str(error))
            raise
        return None

    def unverified(self, topic: str) -> None:
        """A message that came there is not signed with a known key."""
        if topic in (self._topics.aggregator, self._topics.model, self._topics.progress):
            self._fence.unverified(topic)

    def decide(
        self, run: str, version: int, digest_of: Callable[[str], str | None], accepted: int, verdicts: int
    ) -> tuple[str | None, str | None]:
        """Why this aggregator must not work here, and the run that it replaces; None for neither. See `Fence`."""
        self.complete = False
        why = self._fence.decide(run, version, digest_of, accepted, verdicts)
        if self.open:
            self._link.unsubscribe(self._topics.model, self._topics.progress)
            self.say("online")
        return why, self._fence.replaced

    def _ask(self, now: float) -> None:
        self._again_at = now + _AGAIN_SECONDS
        # Also when it is said again: what was retained may have been lost with the word.
        self._link.subscribe(self._topics.aggregator, self._topics.model, self._topics.progress)
        word = self._presence("starting").model_copy(update={"detail": self._fence.word})
        self._link.publish(self._topics.aggregator, encode(word))

    def _meet(self, presence: AggregatorPresence) -> str | None:
        why = self._fence.presence(presence)
        if why is None and presence.state == "offline" and self.open:
            self.say("online")  # somebody's will, late: no device would offer anything
        own = (presence.incarnation, presence.detail) == (self._presence("starting").incarnation, self._fence.word)
        if own and presence.state == "starting" and not self.open:
            self._fence.marks(self._topics.model, self._topics.progress)
            self._link.publish(self._topics.model, b"")
            self._link.publish(self._topics.progress, b"")
        return why
