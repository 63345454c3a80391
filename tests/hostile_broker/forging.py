"""Messages that nobody has sent: what would do the most harm if it were believed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    Head,
    Later,
    Missing,
    Need,
    Offer,
    Progress,
    Receipt,
    Reply,
    UpdateId,
)
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode, pack, split
from fedmq.transport.link import Message
from tests.hostile_broker.memory import Memory

__all__ = ["Forger", "altered", "plain"]

State = Literal["online", "offline"]
Sign = Callable[[bytes], bytes]


def plain(message: Message) -> Message:
    """Without its signature."""
    fields, end = split(memoryview(message.payload))
    fields.pop("session", None)
    fields.pop("signature", None)
    return Message(message.topic, pack(fields, memoryview(message.payload)[end:]))


def altered(message: Message, chance: random.Random) -> Message:
    """With a bit turned, a byte less or more, or the end of it lost; in the header or in the body."""
    payload = bytearray(message.payload)
    place = chance.randrange(len(payload))
    match chance.randrange(5):
        case 0 | 1:
            payload[place] ^= 1 << chance.randrange(8)
        case 2:
            del payload[place]
        case 3:
            payload.insert(place, chance.randrange(256))
        case _:
            del payload[max(1, place) :]
    return Message(message.topic, bytes(payload))


class Forger:
    """Makes messages from what it has seen.

    Args:
        topics: of the federation.
        memory: of honest messages.
        signs: with what it can sign: its own key, and that of a device that helps it.
        chance: seeded.

    """

    def __init__(self, topics: Topics, memory: Memory, signs: Mapping[str, Sign], chance: random.Random) -> None:
        self._topics = topics
        self._memory = memory
        self._signs = signs
        self._chance = chance

    def forged(self, client_id: str) -> Message | None:
        """One that concerns a client, unsigned or signed by who is not its author; None if nothing was seen yet."""
        made = self._chance.choice([self._receipt, self._answer, self._head, self._presence, self._status,
                                    self._progress, self._need, self._offer, self._swapped])(client_id)  # fmt: skip
        if made is None:
            return None
        name = self._chance.choice([*self._signs, ""])
        if not name:
            return made
        session = self._chance.choice([0, 1, 5, 1 << 50, (1 << 63) - 1])
        try:
            return Message(made.topic, sealed(made.topic, made.payload, session, self._signs[name]))
        except (ProtocolError, ValueError, KeyError):
            return made

    def _offered(self) -> Offer | None:
        seen = self._memory.any("offer")
        return decode(seen.payload, Offer)[0] if seen is not None else None

    def _reply(self, client_id: str, **content: object) -> Message | None:
        offer = self._offered()
        if offer is None:
            return None
        reply = Reply.model_validate({"run": offer.run, "incarnation": "f" * 32, **content})
        return Message(self._topics.reply(client_id), encode(reply))

    def _receipt(self, client_id: str) -> Message | None:
        """A verdict on an update that waits: believed, it would be deleted."""
        offer = self._offered()
        if offer is None:
            return None
        fields: dict[str, object] = {"verdict": "rejected", "reason": "layout"}
        if self._chance.random() < 0.5:
            fields = {"verdict": "accepted", "version": 1, "staleness": 0}
        newer = UpdateId(outbox_id=offer.update.outbox_id, sequence=offer.update.sequence + self._chance.randrange(3))
        receipts = [Receipt.model_validate({"update": update, **fields}) for update in (offer.update, newer)]
        return self._reply(offer.client_id if self._chance.random() < 0.8 else client_id, receipts=tuple(receipts))

    def _answer(self, client_id: str) -> Message | None:
        offer = self._offered()
        if offer is None:
            return None
        later = Later(update=offer.update, reason="busy", seconds=86_400)
        missing = Missing(update=offer.update, ranges=((0, 1 << 40),), window=64)
        return self._reply(client_id, later=(later,), missing=(missing,))

    def _head(self, client_id: str) -> Message | None:
        offer = self._offered()
        if offer is None:
            return None
        state: Literal["training", "finished"] = self._chance.choice(["finished", "training"])
        head = Head(run=offer.run, version=offer.base_version + 1000, state=state, plan=Plan(), layout=offer.layout,
                    codec="float32", size=0, digest="0" * 64)  # fmt: skip
        return Message(self._topics.model, encode(head))

    def _presence(self, client_id: str) -> Message:
        state: State = self._chance.choice(["online", "offline"])
        incarnation = self._chance.choice("0f") * 32
        return Message(
            self._topics.aggregator,
            encode(AggregatorPresence(state=state, run="e" * 32, incarnation=incarnation, version=1)),
        )

    def _status(self, client_id: str) -> Message:
        state: State = self._chance.choice(["online", "offline"])
        incarnation = self._chance.choice("0f") * 32
        fields = ClientStatus(state=state, client_id=client_id, incarnation=incarnation, connection=9, accepted=10**6)
        return Message(self._topics.status(client_id), encode(fields))

    def _progress(self, client_id: str) -> Message:
        fields = {"run": "e" * 32, "version": 10**6, "state": "finished", "strategy": "x", "updates": 10**6}
        return Message(self._topics.progress, encode(Progress.model_validate(fields)))

    def _need(self, client_id: str) -> Message | None:
        offer = self._offered()
        if offer is None:
            return None
        need = Need(run=offer.run, version=offer.base_version, parts=tuple(range(64)))
        return Message(self._topics.update(client_id), encode(need))

    def _offer(self, client_id: str) -> Message | None:
        """An update of its own under a device's name."""
        seen = self._memory.any("offer")
        if seen is None:
            return None
        fields, end = split(memoryview(plain(seen).payload))
        fields["update"] = {"outbox_id": self._chance.choice("0f") * 32, "sequence": 0}
        fields["client_id"] = client_id
        return Message(self._topics.update(client_id), pack(fields, memoryview(plain(seen).payload)[end:]))

    def _swapped(self, client_id: str) -> Message | None:
        """The header of one message with the body of another."""
        kind = self._chance.choice(["offer", "part", "head", "snapshot-part"])
        one, other = self._memory.any(kind), self._memory.any(kind)
        if one is None or other is None:
            return None
        _, end = split(memoryview(one.payload))
        _, begin = split(memoryview(other.payload))
        return Message(one.topic, one.payload[:end] + other.payload[begin:])
