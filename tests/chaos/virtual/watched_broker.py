"""The broker in memory, and an observer in it who is never killed and misses nothing."""

from __future__ import annotations

from fedmq.schemas.messages import Offer, Reply
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.virtual_time import VirtualTime

__all__ = ["WatchedBroker"]


class WatchedBroker(MemoryBroker):
    """Records what the broker took, before the network loses any of it.

    Attributes:
        messages: all that travelled.
        offers: with the virtual seconds at which they came, and the bytes of their bodies.
        replies: by client id.

    """

    def __init__(self, topics: Topics, *, seed: int, time: VirtualTime) -> None:
        super().__init__(seed=seed, time=time)
        self.messages: list[Message] = []
        self.offers: list[tuple[float, Offer, int]] = []
        self.replies: list[tuple[str, Reply]] = []
        self._updates = topics.updates.removesuffix("+")
        self._answers = topics.reply("x").removesuffix("x")

    def _route(self, message: Message, *, retain: bool, qos: int) -> None:
        self.messages.append(message)
        if message.topic.startswith(self._updates):
            offer, body = decode(message.payload, Offer)
            self.offers.append((self.time.now, offer, len(body)))
        elif message.topic.startswith(self._answers):
            self.replies.append((message.topic.removeprefix(self._answers), decode(message.payload, Reply)[0]))
        super()._route(message, retain=retain, qos=qos)
