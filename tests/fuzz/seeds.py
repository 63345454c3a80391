"""One message of every kind, from the protocol's test vectors, as it would be said in the fuzzed federation."""

from __future__ import annotations

from functools import cache

from tests.fuzz.mutation import Fields
from tests.fuzz.updates import LAYOUT, RUN, TOPICS
from tests.vectors import session

__all__ = ["DEVICE", "Seed", "payloads", "seeds"]

DEVICE = "dev-1"
_INSTEAD = {session.RUN: RUN, session.SMALL.digest: LAYOUT.digest}

Seed = tuple[str, Fields, bytes]
"""Topic, header and body."""


@cache
def seeds(client_id: str) -> tuple[Seed, ...]:
    """The session of the vectors, with this client in it."""
    found = []
    for row in session.session():
        topic = row["topic"].replace(f"fedmq/{session.TOPICS.federation}/", f"fedmq/{TOPICS.federation}/")
        topic = topic.replace(session.CLIENT, client_id)
        found.append((topic, _translated(row["message"], client_id), bytes.fromhex(row["body"])))
    return tuple(found)


@cache
def payloads() -> tuple[tuple[str, bytes], ...]:
    """Topics and payloads as they stand in the vectors."""
    return tuple((row["topic"], bytes.fromhex(row["payload"])) for row in session.session())


def _translated(value: object, client_id: str) -> Fields:
    def within(value: object) -> object:
        if isinstance(value, dict):
            return {name: within(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [within(inner) for inner in value]
        if isinstance(value, str):
            return client_id if value == session.CLIENT else _INSTEAD.get(value, value)
        return value

    translated = within(value)
    assert isinstance(translated, dict)
    return translated
