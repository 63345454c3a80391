"""What the hostile broker remembers of all that it has carried: something of every kind, from every time."""

from __future__ import annotations

import random
from collections import defaultdict

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.wire import split
from fedmq.transport.link import Message

__all__ = ["Memory", "kind_of"]

_MOST = 60  # of each kind and start of its author


def kind_of(payload: bytes) -> str:
    """The kind that a message says it is; empty if it says none."""
    try:
        return str(split(memoryview(payload))[0].get("kind", ""))
    except ProtocolError:
        return ""


class Memory:
    """A sample of honest messages.

    Args:
        chance: seeded.

    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._kept: defaultdict[str, defaultdict[object, list[Message]]] = defaultdict(lambda: defaultdict(list))
        self._seen: defaultdict[tuple[str, object], int] = defaultdict(int)

    def keep(self, message: Message) -> None:
        """Remember it, perhaps in the place of another of its kind from the same start."""
        try:
            fields, _ = split(memoryview(message.payload))
        except ProtocolError:
            return
        kind, start = str(fields.get("kind", "")), (message.topic.rpartition("/")[2], fields.get("session"))
        kept, self._seen[kind, start] = self._kept[kind][start], self._seen[kind, start] + 1
        if len(kept) < _MOST:
            kept.append(message)
        elif (place := self._chance.randrange(self._seen[kind, start])) < _MOST:
            kept[place] = message

    def any(self, kind: str | None = None) -> Message | None:
        """One of a kind, or of any; from each start of its author equally often."""
        kinds = sorted(self._kept) if kind is None else [kind] if kind in self._kept else []
        if not kinds:
            return None
        starts = self._kept[self._chance.choice(kinds)]
        return self._chance.choice(self._chance.choice(list(starts.values())))
