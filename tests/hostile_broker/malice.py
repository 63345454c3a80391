"""What the hostile broker does with a message on its way, at seeded random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.topics import Topics
from fedmq.transport.link import Message
from tests.hostile_broker.forging import Forger, Sign, altered, plain
from tests.hostile_broker.memory import Memory, kind_of

__all__ = ["Delivery", "Malice"]

CHANCES = {"dropped": 0.05, "altered": 0.05, "stripped": 0.03, "moved": 0.03, "repeated": 0.06, "replayed": 0.14,
           "forged": 0.14, "cleared": 0.01}  # fmt: skip
"""Of each thing that may happen to a message; else it passes."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What goes out in place of one message.

    Attributes:
        passes: whether it goes out too, as it is.
        instead: what goes out before it, or in its place.

    """

    passes: bool
    instead: tuple[Message, ...] = ()


class Malice:
    """The hostile mind.

    Args:
        topics: of the federation.
        signs: with what it can sign: nobody's key whom it pretends to be.
        seed: of everything.

    Attributes:
        at_work: whether it does anything; it always listens.
        done: how often it did what to which kind of message.

    """

    def __init__(self, topics: Topics, signs: Mapping[str, Sign], seed: int) -> None:
        self.at_work = False
        self.done: Counter[tuple[str, str]] = Counter()
        self._chance = random.Random(seed)
        self._memory = Memory(self._chance)
        self._forger = Forger(topics, self._memory, signs, self._chance)
        self._topics = topics

    def saw(self, message: Message) -> None:
        """An honest message, as its author sent it."""
        self._memory.keep(message)

    def treat(self, message: Message, client_id: str) -> Delivery:
        """What becomes of a message on a client's connection."""
        if not self.at_work:
            return Delivery(passes=True)
        point = self._chance.random()
        for deed, share in CHANCES.items():
            if point < share:
                return self._do(deed, message, client_id)
            point -= share
        return Delivery(passes=True)

    def cuts(self) -> bool:
        """Whether this connection breaks now."""
        cut = self.at_work and self._chance.random() < 0.002
        self.done["cut", ""] += cut
        return cut

    def _do(self, deed: str, message: Message, client_id: str) -> Delivery:
        made: list[Message] = []
        match deed:
            case "altered" if message.payload:
                made = [altered(message, self._chance)]
            case "stripped" if message.payload:
                made = [self._stripped(message)]
            case "moved":
                other = self._memory.any()
                made = [Message(other.topic, message.payload)] if other is not None else []
            case "repeated":
                made = [message] * self._chance.randint(1, 3)
            case "replayed":
                # The greatest harm is in what a client hears of the aggregator: half of it is that.
                kind = self._chance.choice([None, "head", "reply", "aggregator"])
                made = [seen for _ in range(2) if (seen := self._memory.any(kind)) is not None]
            case "forged":
                made = [one for _ in range(2) if (one := self._forger.forged(client_id)) is not None]
            case "cleared":
                seen = self._memory.any()
                made = [Message(seen.topic, b"")] if seen is not None else []
        kind = kind_of((made[0] if made and deed in ("replayed", "forged") else message).payload)
        self.done[deed, kind] += 1
        # What is altered or stripped takes the place of the message; so does half of all else.
        passes = deed in ("repeated", "replayed", "forged", "cleared") or (
            deed == "moved" and self._chance.random() < 0.5
        )
        return Delivery(passes, tuple(made))

    def _stripped(self, message: Message) -> Message:
        try:
            return plain(message)
        except ProtocolError:
            return message
