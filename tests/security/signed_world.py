"""A signed federation in memory, on a broker that forges, alters, repeats and drops: for one test after another."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.fence import Fence
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.service import AggregatorService
from fedmq.aggregator.state import State
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.job import Made
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.runner import Job
from fedmq.edge_client.service import ClientService
from fedmq.edge_client.shown import last_will
from fedmq.edge_client.training import NumpyTrainer
from fedmq.newest import Newest
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import AggregatorPresence
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import AGGREGATOR, Keys, sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.session import AtWork
from fedmq.signed_link import SignedLink, in_order, of_a_device, signed_for_the_aggregator
from fedmq.tasks.contract import Arrays, Trained
from fedmq.transport.link import Link, Message, Will
from fedmq.transport.memory import MemoryBroker
from tests.aggregator.small_run import plain_fedbuff

TOPICS = Topics("f")
DEVICES = ("dev-1", "dev-2")
PRIVATE = {
    name: Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    for number, name in enumerate((AGGREGATOR, *DEVICES, "stranger"))
}
Attack = Callable[[Message], list[Message]]
"""What the broker delivers in place of a message."""


def keys_of(name: str) -> Keys:
    """Of one side; everyone knows every public key, and a stranger's is none."""

    def verify(author: str, content: bytes, signature: bytes) -> str | None:
        try:
            PRIVATE[author].public_key().verify(signature, content)
        except (InvalidSignature, KeyError):
            return None
        return author

    return Keys(PRIVATE[name].sign, verify, lambda author: (author,))


def newest_heard(keys: Keys, outbox: Outbox) -> Newest:
    """What a device with this outbox takes for the aggregator's newest session."""
    return Newest(lambda: keys.trusted(AGGREGATOR), outbox.aggregator_sessions(), outbox.keep_aggregator_session)


class HostileBroker(MemoryBroker):
    """Delivers what `attack` makes of each message, and keeps what is to be retained as it was.

    Attributes:
        seen: every message that was ever sent honestly.

    """

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.attack: Attack = lambda message: [message]
        self.seen: list[Message] = []

    def plant(self, *messages: Message) -> None:
        """Send and retain what nobody has sent just now."""
        for message in messages:
            super()._route(message, retain=True, qos=1)

    def _route(self, message: Message, *, retain: bool, qos: int) -> None:
        for one in self.attack(message) if message.payload else [message]:
            super()._route(one, retain=retain and one is message, qos=qos)
        if message.payload:
            self.seen.append(message)


class _Jobs:
    def __init__(self, resting: Callable[[], bool]) -> None:
        self._job: Job | None = None
        self._resting = resting

    def start(self, job: Job) -> None:
        self._job = job

    def take(self) -> Made | None:
        if self._resting():
            return None
        job, self._job = self._job, None
        return job() if job else None


class World:
    """An aggregator and two devices, which train as long as the world is not `resting`.

    Args:
        broker: with what earlier worlds have left on it.
        run: of this one.
        session: of the aggregator.
        outboxes: of the devices, from an earlier world.
        entries: of the model.
        max_message_bytes: what is larger goes in parts.
        revoked: the list of devices that are out.
        at_work: of an earlier aggregator in the same folder.
        replaces: runs whose place this aggregator may take; any if None.
        state: of the aggregator; version 0 if None.
        signing: who has keys.

    """

    def __init__(
        self,
        broker: HostileBroker,
        run: str,
        session: int,
        outboxes: dict[str, Outbox] | None = None,
        entries: int = 1,
        max_message_bytes: int = 1 << 28,
        revoked: Path | None = None,
        at_work: AtWork | None = None,
        replaces: frozenset[str] | None = None,
        state: State | None = None,
        signing: tuple[str, ...] = (AGGREGATOR, *DEVICES),
    ) -> None:
        self.broker = broker
        self.outboxes = outboxes or {name: Outbox(None) for name in DEVICES}
        self._entries = entries
        self._most = max_message_bytes
        self.trained = 0
        self.resting = False
        layout = Layout.of([Entry("w", (entries,))])
        self.core = AggregatorCore(
            state or State.initial(run, layout, np.zeros(entries, np.float32)),
            plain_fedbuff(),
            Rules(run, layout),
            Goal(),
        )
        incarnation = f"{session:032x}"
        gone = AggregatorPresence(state="offline", run=run, incarnation=incarnation, version=0)
        keys = keys_of(AGGREGATOR)
        will = Will(TOPICS.aggregator, encode(gone))
        if AGGREGATOR in signing:
            will = Will(will.topic, sealed(will.topic, will.payload, session, keys.sign))
        self._inner = [broker.link("aggregator", will=will, max_message_bytes=max_message_bytes)]
        self.at_work = at_work or AtWork(None)
        new = AGGREGATOR in signing and self.at_work.session == 0 and state is None
        self.links: list[Link] = [self._inner[0]]
        if AGGREGATOR in signing:
            self.links = [signed_for_the_aggregator(self._inner[0], TOPICS, keys, session, self.at_work)]
        self.aggregator = AggregatorService(
            link=self.links[0],
            topics=TOPICS,
            core=self.core,
            publisher=Publisher(self.links[0], TOPICS, Plan(retrain_after=1.0), codec_named("float32"), interval=0.5),
            incarnation=incarnation,
            fence=Fence(incarnation, replaces, new=new),
            revoked=Revoked(revoked),
            let_in=lambda: AGGREGATOR not in signing or self.at_work.begin(session),
            clock=self._clock,
        )
        if isinstance(self.links[0], SignedLink):
            self.links[0].on_refused = self.aggregator.refused
            self.links[0].on_unverified = self.aggregator.unverified
        self.clients = {name: self._client(name, signs=name in signing) for name in DEVICES}
        for link in self.links:
            link.open()

    @property
    def accepted(self) -> int:
        return self.core.state.accepted

    @property
    def refused(self) -> int:
        return sum(link.refused for link in self.links if isinstance(link, SignedLink))

    def cut(self, name: str) -> None:
        """Break a connection, of the aggregator or a device; it is made again."""
        self._inner[(AGGREGATOR, *DEVICES).index(name)].drop("hostile")

    def start_again(self, name: str) -> None:
        """A device that signs has ended; begin it anew with its outbox."""
        place = (AGGREGATOR, *DEVICES).index(name)
        self.clients[name] = self._client(name, signs=True)
        self.links[place], self._inner[place] = self.links.pop(), self._inner.pop()
        self.links[place].open()

    def will_of(self, name: str) -> Message:
        """The last will of the aggregator or a device: any broker has it from the first moment."""
        will = self._inner[(AGGREGATOR, *DEVICES).index(name)].will
        assert will is not None
        return Message(will.topic, will.payload)

    def run(self, until: Callable[[], object], seconds: float = 300.0) -> bool:
        """Let time pass until something holds; whether it does."""
        end = self.broker.time.now + seconds
        while not until() and self.broker.time.now < end:
            for link, inner in zip(self.links, self._inner, strict=True):
                service = self._services()[self.links.index(link)]
                while inner.waiting:
                    event = link.poll(0.0)
                    if event is not None and getattr(service, "stopped", None) is None:
                        service.handle(event)
            self.aggregator.tick()
            for client in self.clients.values():
                if client.stopped is None:
                    client.tick()
            self.broker.time.step(min(end, self.broker.time.now + 0.25))
        return bool(until())

    def end(self) -> None:
        """All go, without a goodbye: the broker says that."""
        for inner in self._inner:
            inner.die()

    def nothing_is_lost(self) -> None:
        """What holds at any moment: each update has counted once, or waits."""
        assert self.aggregator.ended is None
        assert [client.stopped for client in self.clients.values()] == [None] * len(DEVICES)
        waiting = sum(len(box.pending()) for box in self.outboxes.values())
        read = sum(client.accepted for client in self.clients.values())
        assert sum(client.rejected for client in self.clients.values()) == 0
        assert self.trained == read + waiting
        assert read <= self.accepted <= self.trained
        assert {reason for reason, count in self.core.state.rejected.items() if count} <= {"signature"}

    def _services(self) -> list[AggregatorService | ClientService]:
        return [self.aggregator, *self.clients.values()]

    def _client(self, name: str, *, signs: bool) -> ClientService:
        outbox, keys = self.outboxes[name], keys_of(name)
        session, incarnation = outbox.begin_session(), f"{random.getrandbits(128):032x}"
        will = last_will(TOPICS, name, incarnation)
        if signs:
            will = Will(will.topic, sealed(will.topic, will.payload, session, keys.sign))
        inner = self.broker.link(name, will=will, max_message_bytes=self._most)
        heard = in_order(TOPICS, newest_heard(keys, outbox))
        link: Link = inner
        if signs:
            link = SignedLink(
                inner, TOPICS, keys, session, of_a_device(TOPICS, name, session, heard), own=TOPICS.status(name)
            )
        self._inner.append(inner)
        self.links.append(link)
        service = ClientService(
            link=link,
            topics=TOPICS,
            client_id=name,
            core=ClientCore(incarnation, random.Random(name), outbox.pending()),
            incarnation=incarnation,
            outbox=outbox,
            training=NumpyTrainer(self._train, "1"),
            runner=_Jobs(lambda: self.resting),
            fetch=Fetch(link, TOPICS, name, None, 8),
            clock=self._clock,
        )
        if isinstance(link, SignedLink):
            link.on_refused, link.on_outlived = service.refused, service.outlived
        return service

    def _train(self, weights: Arrays, plan: Plan) -> Trained:
        self.trained += 1
        return Trained({"w": weights["w"] + 1}, 1)

    def _clock(self) -> float:
        return self.broker.time.now
