"""A broker in this process, in virtual time: for the sandbox, for tests, and for schedules of faults.

It keeps MQTT's promises and no more: order per publisher, retained messages, wills, durable sessions, takeover.
`Faults` takes away what a real broker may take away too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fedmq.schemas.errors import TransportError
from fedmq.transport.link import Connected, Disconnected, Event, Message, Will
from fedmq.transport.virtual_time import VirtualTime

__all__ = ["Faults", "MemoryBroker", "MemoryLink"]

_RECONNECT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Faults:
    """What the network does to messages on their way to a subscriber.

    Attributes:
        delay: seconds one way, drawn evenly between the two.
        loss: probability that one delivery never arrives (brokers drop what they queued).
        duplication: probability that it arrives twice.
        reordering: whether a later message may overtake an earlier one.

    """

    delay: tuple[float, float] = (0.001, 0.001)
    loss: float = 0.0
    duplication: float = 0.0
    reordering: bool = False


@dataclass(slots=True)
class _Session:
    durable: bool
    filters: set[str] = field(default_factory=set)
    queue: list[Message] = field(default_factory=list)
    link: MemoryLink | None = None


class MemoryBroker:
    """A broker whose clock is `time`; everything random in it comes from `seed`."""

    def __init__(self, *, seed: int = 0, faults: Faults = Faults(), time: VirtualTime | None = None) -> None:
        self.time = time or VirtualTime()
        self.faults = faults
        self.running = True
        self.retained: dict[str, bytes] = {}
        self._sessions: dict[str, _Session] = {}
        self._random = random.Random(seed)

    def link(
        self, client_id: str, *, will: Will | None = None, durable: bool = False, max_message_bytes: int = 1 << 28
    ) -> MemoryLink:
        """A link to this broker, still to be opened."""
        return MemoryLink(self, client_id, will, durable, max_message_bytes)

    def stop(self, *, forget: bool = False) -> None:
        """Die: every connection breaks. With `forget`, sessions and retained messages are gone too."""
        self.running = False
        for session in list(self._sessions.values()):
            if session.link is not None:
                session.link.drop("the broker stopped")
        if forget:
            self._sessions.clear()
            self.retained.clear()

    def start(self) -> None:
        """Come back; the links find it by themselves."""
        self.running = True

    def _connect(self, link: MemoryLink) -> bool:
        """Attach a link to its session, taking it over from another; whether the session was there."""
        known = self._sessions.get(link.client_id)
        if known is not None and known.link is not None:
            known.link.drop("another connection with this client id took over", taken_over=True)
        present = known is not None and known.durable and link.durable
        session = known if known is not None and present else _Session(link.durable)
        self._sessions[link.client_id] = session
        session.link = link
        waiting, session.queue = session.queue, []
        for message in waiting:
            self._deliver(session, message)
        return present

    def _detach(self, link: MemoryLink, *, with_will: bool) -> None:
        session = self._sessions.get(link.client_id)
        if session is not None and session.link is link:
            session.link = None
            if not session.durable:
                del self._sessions[link.client_id]
        if with_will and link.will is not None:
            self._route(Message(link.will.topic, link.will.payload), retain=True, qos=1)

    def _route(self, message: Message, *, retain: bool, qos: int) -> None:
        if retain and message.payload:
            self.retained[message.topic] = message.payload
        elif retain:
            self.retained.pop(message.topic, None)
        for session in list(self._sessions.values()):
            if any(_matches(pattern, message.topic) for pattern in session.filters):
                if session.link is not None:
                    self._deliver(session, message)
                elif session.durable and qos:
                    session.queue.append(message)

    def _subscribe(self, link: MemoryLink, pattern: str) -> None:
        session = self._sessions.get(link.client_id)
        if session is None or session.link is not link:
            return
        session.filters.add(pattern)
        for topic, payload in list(self.retained.items()):
            if _matches(pattern, topic):
                self._deliver(session, Message(topic, payload))

    def _unsubscribe(self, link: MemoryLink, pattern: str) -> None:
        session = self._sessions.get(link.client_id)
        if session is not None and session.link is link:
            session.filters.discard(pattern)

    def _deliver(self, session: _Session, message: Message) -> None:
        link = session.link
        assert link is not None
        copies = 2 if self._random.random() < self.faults.duplication else 1
        for _ in range(copies):
            if self._random.random() >= self.faults.loss:
                link.receive(message)

    def arrival(self, earliest: float) -> float:
        """When something that is sent now arrives; not before `earliest` unless the network reorders."""
        arrives = self.time.now + self._random.uniform(*self.faults.delay)
        return arrives if self.faults.reordering else max(arrives, earliest)


class MemoryLink:
    """One connection to a MemoryBroker; see `Link` for what each part means. `poll` moves the virtual clock."""

    def __init__(
        self, broker: MemoryBroker, client_id: str, will: Will | None, durable: bool, max_message_bytes: int
    ) -> None:
        self.client_id = client_id
        self.will = will
        self.durable = durable
        self._broker = broker
        self._limit = max_message_bytes
        self._inbox: deque[Event] = deque()
        self._open = False
        self._generation = 0  # of the connection: what belongs to an older one is dropped on arrival
        self._connected = False
        self._woken = False
        self._last_up = self._last_down = 0.0
        self._sent = self._received = 0

    @property
    def max_message_bytes(self) -> int:
        """The largest payload that `publish` takes."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """None: this broker takes a message when it is published."""
        return 0

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes of topics and payloads sent and received."""
        return self._sent, self._received

    def open(self) -> None:
        """Start to connect."""
        self._open = True
        self._attempt()

    def poll(self, timeout: float) -> Event | None:
        """The next event, letting virtual time pass until there is one."""
        deadline = self._broker.time.now + timeout
        while not self._inbox and not self._woken:
            if not self._broker.time.step(deadline):
                break
        self._woken = False
        return self._inbox.popleft() if self._inbox else None

    @property
    def waiting(self) -> int:
        """Events that `poll` would return without letting time pass."""
        return len(self._inbox)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Hand a message to the connection."""
        if len(payload) > self._limit:
            raise TransportError(f"{topic}: a message of {len(payload)} bytes, the limit is {self._limit}")
        if not self._connected:
            return False
        self._sent += len(topic) + len(payload)
        self._send(lambda: self._broker._route(Message(topic, payload), retain=retain, qos=qos))
        return True

    def subscribe(self, *topics: str) -> None:
        """Ask for topics."""
        for topic in topics:
            self._send(lambda topic=topic: self._broker._subscribe(self, topic))  # type: ignore[misc]

    def unsubscribe(self, *topics: str) -> None:
        """Stop topics."""
        for topic in topics:
            self._send(lambda topic=topic: self._broker._unsubscribe(self, topic))  # type: ignore[misc]

    def flush(self, timeout: float) -> bool:
        """Let time pass until what was sent has arrived."""
        deadline = self._broker.time.now + timeout
        while self._connected and self._last_up > self._broker.time.now and self._broker.time.step(deadline):
            pass
        return self._connected and self._last_up <= self._broker.time.now

    def wake(self) -> None:
        """Make `poll` return."""
        self._woken = True

    def close(self) -> None:
        """Say goodbye."""
        self._open = False
        if self._connected:
            self._connected = False
            self._generation += 1
            self._broker._detach(self, with_will=False)

    def drop(self, reason: str = "the connection broke", *, taken_over: bool = False) -> None:
        """Break the connection without a goodbye: the will is published. The link connects again by itself."""
        if not self._connected:
            return
        self._connected = False
        self._generation += 1
        self._broker._detach(self, with_will=True)
        self._inbox.append(Disconnected(reason, taken_over))
        self._later(_RECONNECT_SECONDS, self._attempt)

    def die(self) -> None:
        """What `kill -9` does to the process that holds the link: the will is published, nothing connects again."""
        self._open = False
        if self._connected:
            self.drop()
        self._inbox.clear()

    def receive(self, message: Message) -> None:
        """Take a message from the broker; it arrives when the network has carried it."""
        generation = self._generation
        self._last_down = arrives = self._broker.arrival(self._last_down)

        def arrive() -> None:
            if self._connected and generation == self._generation:
                self._inbox.append(message)
                self._received += len(message.topic) + len(message.payload)

        self._broker.time.at(arrives, arrive)

    def _attempt(self) -> None:
        if not self._open or self._connected:
            return
        if not self._broker.running:
            self._later(_RECONNECT_SECONDS, self._attempt)
            return
        self._connected = True  # first, because the session hands out at once what it kept
        self._generation += 1
        self._inbox.append(Connected(session_present=self._broker._connect(self)))

    def _send(self, action: Callable[[], None]) -> None:
        generation = self._generation
        self._last_up = arrives = self._broker.arrival(self._last_up)

        def arrive() -> None:
            # What was on its way when the connection broke is lost with it.
            if self._connected and generation == self._generation and self._broker.running:
                action()

        self._broker.time.at(arrives, arrive)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._broker.time.at(self._broker.time.now + seconds, action)


def _matches(pattern: str, topic: str) -> bool:
    wanted, levels = pattern.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))
