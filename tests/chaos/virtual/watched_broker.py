"""The broker in memory, and an observer in it who is never killed and misses nothing."""

from __future__ import annotations

from fedmq.schemas.messages import Need, Offer, Part, Reply
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.virtual_time import VirtualTime

__all__ = ["WatchedBroker"]


class WatchedBroker(MemoryBroker):
    """Records what the broker took, before the network loses any of it.

    Attributes:
        max_message_bytes: that links to it are to send.
        messages: all that travelled.
        offers: with the virtual seconds at which they came, and the bytes of their bodies.
        parts: how many parts of updates came.
        replies: by client id.

    """

    def __init__(self, topics: Topics, *, seed: int, time: VirtualTime, max_message_bytes: int) -> None:
        super().__init__(seed=seed, time=time)
        self.max_message_bytes = max_message_bytes
        self.messages: list[Message] = []
        self.offers: list[tuple[float, Offer, int]] = []
        self.parts = 0
        self.replies: list[tuple[str, Reply]] = []
        self._updates = topics.updates.removesuffix("+")
        self._answers = topics.reply("x").removesuffix("x")

    def _route(self, message: Message, *, retain: bool, qos: int) -> None:
        self.messages.append(message)
        if message.topic.startswith(self._updates):
            said, body = decode(message.payload, Offer, Part, Need)
            if isinstance(said, Offer):
                self.offers.append((self.time.now, said, len(body)))
            else:
                self.parts += isinstance(said, Part)
        elif message.topic.startswith(self._answers):
            self.replies.append((message.topic.removeprefix(self._answers), decode(message.payload, Reply)[0]))
        super()._route(message, retain=retain, qos=qos)
