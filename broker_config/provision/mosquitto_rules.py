"""Mosquitto's access rules for a federation: one section for each account, and nothing for anybody else.

Sections and no patterns. A pattern with %c believes the client id that a client gives itself; one with %u gives rights
to any name, also to one that another federation on the same broker has given. A device that is revoked has no section,
so a connection that it still has is worth nothing as soon as the broker has read the file anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR
from fedmq.broker_config.provision.record import Record
from fedmq.schemas.topics import Topics

__all__ = ["rules"]

_HEADER = """\
# Who may do what at the broker of federation {federation}. Written by `fedmq provision`; changes are lost.
# What is not here is refused, $SYS too. docs/protocol.md says what each topic is for.
"""


def rules(record: Record) -> bytes:
    """The file that `acl_file` names."""
    sections = [_HEADER.format(federation=record.federation)]
    for account in record.active:
        lines = (f"topic {right} {topic}\n" for right, topic in rights(record, account))
        sections.append(f"\nuser {record.user(account)}\n" + "".join(lines))
    return "".join(sections).encode()


def rights(record: Record, account: str) -> Iterator[tuple[str, str]]:
    """What an account may do: read, write or readwrite, and the topic or filter."""
    topics = Topics(record.federation)
    models = (topics.model, f"{topics.model}/+", f"{topics.model}/+/+")
    # Only these: nothing of a device at work can be cleared. It also shows whether the broker knows of a revocation.
    revoked = [("write", topics.status(client_id)) for client_id in record.revoked]
    if account == AGGREGATOR:
        yield from (("readwrite", topic) for topic in (topics.aggregator, topics.model, topics.progress))
        yield from (("write", topic) for topic in (*models[1:], topics.layout, topics.replies))
        yield from (("read", topic) for topic in (topics.updates, topics.statuses))
        yield from revoked
    elif account == OPERATOR:
        yield from (("read", topic) for topic in (topics.aggregator, topics.progress, topics.statuses))
        yield from revoked
        yield from (("write", topics.update(client_id)) for client_id in record.revoked)
    else:
        public = (topics.aggregator, *models, topics.layout, topics.progress)
        yield from (("read", topic) for topic in (*public, topics.reply(account)))
        yield "write", topics.update(account)
        yield "readwrite", topics.status(account)
