"""An aggregator and one client that is written by hand, in memory and virtual time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.releases import Releases
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.room import Room
from fedmq.aggregator.service import AggregatorService, Ending
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import Strategy
from fedmq.aggregator.transfers import Transfers
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.messages import Later, Missing, Offer, Progress, Receipt, Reply
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import _content, sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode, split
from fedmq.session import AtWork
from fedmq.signed_link import SignedLink, signed_for_the_aggregator
from fedmq.transport.link import Link, Message
from fedmq.transport.memory import MemoryBroker
from tests.aggregator.small_run import RUN, layout_of, offer_of, plain_fedbuff
from tests.security.signed_world import keys_of

__all__ = ["CLIENT", "LAYOUT", "MOST_BYTES", "TOPICS", "VERSION", "Door"]

TOPICS = Topics("door")
LAYOUT = layout_of(4)
VERSION = 20
MOST_BYTES = 4096
CLIENT = "dev-1"  # whose key is among those of the tests


class Door:
    """Version 20 of a run.

    Args:
        folder: for the disk, and for the list of the revoked.
        rules: of the admission.
        signed: nothing else is heard.
        stored: what is committed is on the disk.
        strategy: one that makes no version soon if None.
        link_bytes: of the largest message that the aggregator's link takes.

    Attributes:
        answers: to the client, all of them.

    """

    def __init__(
        self,
        folder: Path,
        rules: Rules,
        *,
        signed: bool = False,
        stored: bool = False,
        strategy: Strategy | None = None,
        link_bytes: int = 1 << 28,
    ) -> None:
        self.broker = MemoryBroker()
        self.signed = signed
        (folder / "revoked").touch()
        self.store = Store(folder / "run", "door") if stored else None
        state = self.store.load(LAYOUT) if self.store else None
        if state is None:
            state = State.initial(RUN, LAYOUT, np.zeros(4, np.float32))
            state.version = VERSION
        self.core = AggregatorCore(state, strategy or plain_fedbuff(3, flush_timer=False), rules, Goal())
        self._inner = self.broker.link("aggregator", max_message_bytes=link_bytes)
        self.link: Link = self._inner
        if signed:
            self.link = signed_for_the_aggregator(self._inner, TOPICS, keys_of("aggregator"), 1, AtWork(None))
        self.parts = folder / "parts"
        self.service = AggregatorService(
            link=self.link,
            topics=TOPICS,
            core=self.core,
            publisher=Publisher(self.link, TOPICS, Plan(), codec_named("float32"), interval=0.0),
            incarnation="b" * 32,
            store=self.store,
            transfers=Transfers(Room(self.parts, 1 << 30)),
            revoked=Revoked(folder / "revoked"),
            releases=Releases(folder / "run" if stored else None),
            most_message_bytes=MOST_BYTES,
            clock=lambda: self.broker.time.now,
        )
        if isinstance(self.link, SignedLink):
            self.link.on_refused = self.service.refused
        self.client = self.broker.link(CLIENT)
        self.client.open()
        self.client.subscribe(TOPICS.reply(CLIENT))
        self.link.open()
        self.answers: list[Receipt | Later | Missing] = []
        self._sequence = 0
        self.work()

    @property
    def state(self) -> State:
        return self.core.state

    def work(self, seconds: float = 1.0) -> None:
        """Let time pass, and hear what the client is told."""
        until = self.broker.time.now + seconds
        while self.broker.time.now < until:
            while self._inner.waiting:
                event = self.link.poll(0.0)
                if event is not None:
                    self.service.handle(event)
            self.service.tick()
            self.broker.time.step(min(until, self.broker.time.now + max(0.05, seconds / 100)))
        while self.client.waiting:
            message = self.client.poll(0.0)
            if isinstance(message, Message):
                reply = decode(message.payload, Reply)[0]
                self.answers += [*reply.receipts, *reply.later, *reply.missing]

    def say(self, *payloads: bytes, topic: str = TOPICS.update(CLIENT), seconds: float = 1.0) -> None:
        """The client sends this."""
        for payload in payloads:
            if self.signed:
                payload = signed(topic, payload)
            self.client.publish(topic, payload)
        self.work(seconds)

    def offer(self, value: float = 1.0, **fields: Any) -> bytes:
        """A message with the client's next update, which fits but for what `fields` say."""
        self._sequence += 1
        sequence = fields.pop("sequence", self._sequence)
        offer, body = offer_of(
            [value] * 4, LAYOUT, client_id=CLIENT, base_version=self.state.version, sequence=sequence
        )
        return encode(offer.model_copy(update=fields), body)

    def ask(self, payload: bytes) -> str | None:
        """Why what is offered here is refused or put off; None if it is accepted."""
        self.answers.clear()
        self.say(payload)
        (answer,) = self.answers
        assert not isinstance(answer, Missing)
        return answer.reason

    def progress(self) -> Progress:
        """What is shown."""
        self.work(3.0)
        return decode(self.broker.retained[TOPICS.progress], Progress)[0]

    def end(self) -> None:
        """Stop the aggregator, in order."""
        self.service.stop(Ending(0, "the test is over"))
        if self.store is not None:
            self.store.close()


def signed(topic: str, payload: bytes) -> bytes:
    """By the client, whatever it says of its body: `sealed` believes the digest in a header."""
    view = memoryview(payload)
    _, end = split(view)
    header = sealed(topic, bytes(view[:end]), 1, lambda content: bytes(64))[:-64]
    digest = hashlib.sha256(view[end:]).digest()
    return b"".join((header, keys_of(CLIENT).sign(_content(topic, header, digest)), view[end:]))


def header_of(payload: bytes) -> Offer:
    """Of an offer."""
    return decode(payload, Offer)[0]
