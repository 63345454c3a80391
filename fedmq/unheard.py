"""Topics that somebody has written on and that show nothing, as it is not their author's or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from fedmq.printable import in_one_line
from fedmq.schemas.topics import Topics

__all__ = ["Unheard"]

_MOST = 1000  # topics: a stranger must not fill the memory with names
_TEXT = 200  # characters of a reason, which may quote what came


class Unheard:
    """What was last heard on a topic, if that is nothing to show.

    Args:
        topics: of the federation.

    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._why: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._why)

    def refused(self, topic: str, why: str) -> None:
        """What came on this topic shows nothing; `why` is a sentence, and may quote it."""
        if topic in self._why or len(self._why) < _MOST:
            self._why[topic] = in_one_line(why[:_TEXT])

    def heard(self, topic: str) -> None:
        """Something that can be shown has come on this topic."""
        self._why.pop(topic, None)

    @property
    def clients(self) -> dict[str, str]:
        """Of each client whose status shows nothing, why."""
        found = ((self._topics.sender(topic), why) for topic, why in self._why.items())
        return {client_id: why for client_id, why in found if client_id is not None}

    @property
    def of_the_run(self) -> Iterator[str]:
        """A line for each of the aggregator's topics."""
        for topic in (self._topics.aggregator, self._topics.progress):
            if topic in self._why:
                yield f"what is on {topic} is not shown: {self._why[topic]}"
