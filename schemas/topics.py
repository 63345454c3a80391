"""Where each message goes: the topics of one federation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedmq.schemas.errors import ConfigError

__all__ = ["ID_PATTERN", "Topics", "check_id", "is_id"]

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
_PART = re.compile(r"([0-9]{1,6})/([0-9]{1,9})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_id(value: str, what: str) -> str:
    """The id itself, if it may stand in a topic.

    Raises:
        ConfigError: it has other characters, or more than 64 of them, or none.

    """
    if not _ID.fullmatch(value):
        raise ConfigError(f"{what} {value!r}: expected 1 to 64 of A-Z a-z 0-9 _ -, because it becomes part of a topic")
    return value


def is_id(value: str) -> bool:
    """Whether it may stand in a topic."""
    return _ID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of the federation of this name."""

    federation: str

    def __post_init__(self) -> None:
        check_id(self.federation, "federation")

    @property
    def aggregator(self) -> str:
        """Retained: the aggregator's presence."""
        return f"fedmq/{self.federation}/aggregator"

    @property
    def model(self) -> str:
        """Retained: the head of the newest snapshot, with its weights."""
        return f"fedmq/{self.federation}/model"

    def slot(self, slot: int) -> str:
        """Retained: the head of the snapshot whose parts lie in this slot."""
        return f"fedmq/{self.federation}/model/{slot}"

    def part(self, slot: int, part: int) -> str:
        """Retained: a part of a snapshot that does not fit into one message."""
        return f"fedmq/{self.federation}/model/{slot}/{part}"

    def part_of(self, topic: str) -> tuple[int, int] | None:
        """Slot and number of the part that this topic is of; None if it is no such topic of this federation."""
        found = _PART.fullmatch(topic.removeprefix(f"fedmq/{self.federation}/model/"))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def layout(self) -> str:
        """Retained: the layout, for clients that cannot compute it and for naming a difference."""
        return f"fedmq/{self.federation}/layout"

    @property
    def progress(self) -> str:
        """Retained: what is committed, for people and tools to watch."""
        return f"fedmq/{self.federation}/progress"

    @property
    def updates(self) -> str:
        """The filter under which the aggregator hears every client."""
        return f"fedmq/{self.federation}/update/+"

    @property
    def statuses(self) -> str:
        """The filter under which people see every client; nothing is decided from it."""
        return f"fedmq/{self.federation}/status/+"

    @property
    def replies(self) -> str:
        """The filter of what the aggregator answers, for a broker's access rules."""
        return f"fedmq/{self.federation}/reply/+"

    def update(self, client_id: str) -> str:
        """From this client: its offers."""
        return f"fedmq/{self.federation}/update/{check_id(client_id, 'client id')}"

    def reply(self, client_id: str) -> str:
        """To this client: receipts, later, missing."""
        return f"fedmq/{self.federation}/reply/{check_id(client_id, 'client id')}"

    def status(self, client_id: str) -> str:
        """Retained: this client's presence and health."""
        return f"fedmq/{self.federation}/status/{check_id(client_id, 'client id')}"

    def sender(self, topic: str) -> str | None:
        """The client that an update or status topic belongs to; None if it is no such topic of this federation."""
        prefix, _, client_id = topic.rpartition("/")
        ours = prefix in (f"fedmq/{self.federation}/update", f"fedmq/{self.federation}/status")
        return client_id if ours and is_id(client_id) else None
