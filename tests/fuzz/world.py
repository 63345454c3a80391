"""What all fuzzed sides share: a broker in the enemy's hands, a clock, and a look at how much is remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker
from tests.fuzz.choices import Choices

__all__ = ["HostileBroker", "World", "containers", "require", "require_bounded"]

MOST_ITEMS = 128
"""Of any list or dictionary that a side holds, after any number of inputs from forty clients."""

_MORE_ITEMS = {"_farewells": 1024, "_predecessors": 1024, "_out_packet": 65_536, "_left": 3072}
"""Of those whose bound is larger, and tested where it is."""


class World(Protocol):
    """One side of a federation, and an enemy that sends to it.

    Attributes:
        over: the side has ended, as it may; the next input needs another world.

    """

    over: bool

    def step(self, choices: Choices) -> None:
        """One hostile input. Raises whatever goes wrong: nothing may."""

    def check(self) -> None:
        """What has to hold now. Raises AssertionError."""

    def close(self) -> None:
        """Let files go."""


class HostileBroker(MemoryBroker):
    """Keeps what was published last, for the enemy to read, to alter and to repeat.

    Attributes:
        heard: the last messages that were published.

    """

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.heard: deque[Message] = deque(maxlen=64)
        self.fresh: list[Message] = []

    def _route(self, message: Message, *, retain: bool, qos: int) -> None:
        super()._route(message, retain=retain, qos=qos)
        if message.payload:
            self.heard.append(message)
            self.fresh.append(message)

    def repeated(self, choices: Choices) -> bytes:
        """Something that was published before."""
        return choices.pick(self.heard).payload if self.heard else b""

    def take(self) -> list[Message]:
        """What was published since the last time."""
        fresh, self.fresh = self.fresh, []
        return fresh


def require(condition: object, sentence: str) -> None:
    """Raise AssertionError with this sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def require_bounded(root: object) -> None:
    """Raise AssertionError if anything that is reached from an object of ours holds more than it may."""
    for name, length in containers(root):
        most = _MORE_ITEMS.get(name.rpartition(".")[2], MOST_ITEMS)
        require(length <= most, f"{name} holds {length} things")


def containers(root: object) -> Iterator[tuple[str, int]]:
    """Every list, set and dictionary that is reached from an object of ours, with its place and its length."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [(type(root).__name__, root)]
    while waiting:
        name, found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        inner: list[tuple[str, Any]] = []
        if isinstance(found, Mapping):
            yield name, len(found)
            inner = [(f"{name}[]", value) for value in (*found.keys(), *found.values())]
        elif isinstance(found, list | tuple | set | frozenset | deque):
            if getattr(found, "maxlen", None) is None:  # a queue with a bound of its own has that one
                yield name, len(found)
            inner = [(f"{name}[]", value) for value in found]
        elif type(found).__module__.startswith("fedmq.") and not isinstance(found, MemoryBroker | type):
            inner = [(f"{name}.{key}", value) for key, value in _attributes(found)]
        waiting += [(place, value) for place, value in inner if not isinstance(value, str | bytes | int | float | None)]


def _attributes(found: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(found, "__dict__", {}).items()
    for kind in type(found).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(found, name):
                yield name, getattr(found, name)
