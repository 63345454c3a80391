"""Removing what revoked devices have left on the broker: whatever is retained on the topics that were theirs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from fedmq.connect import mqtt_link
from fedmq.schemas.errors import TransportError
from fedmq.schemas.topics import Topics
from fedmq.settings import Settings
from fedmq.transport.link import Connected, Disconnected, Link, Refused

__all__ = ["clear_topics"]

_PAUSE_SECONDS = 0.3


def clear_topics(settings: Settings, client_ids: Iterable[str], seconds: float) -> None:
    """Remove from the broker what is retained on the topics that each of these devices wrote to.

    That is its status; and whatever it had retained where updates go, which no good device does, and which the
    aggregator would be sent at every start. The account of `settings`, an operator's, may write there once the broker
    knows that the device is revoked, and not before. So a broker that has not read its rules again says no, and what is
    removed stays so.

    Args:
        settings: how to log in; of the federation that the devices were in.
        client_ids: the devices.
        seconds: how long to try.

    Raises:
        TransportError: the broker cannot be reached, or has not read its rules again within this time.
        ConfigError: the login's files cannot be used.

    """
    topics = Topics(settings.federation)
    waiting = {topic(client_id) for client_id in client_ids for topic in (topics.status, topics.update)}
    deadline = time.monotonic() + seconds
    # MQTT 3.1.1 has no way to say that a message was refused.
    reach = settings.broker.model_copy(update={"mqtt_version": "5"})
    link = mqtt_link(reach, f"{settings.federation}-operator-{os.urandom(4).hex()}")
    trouble, connected = "no answer", False
    link.open()
    try:
        while waiting:
            if time.monotonic() >= deadline:
                raise TransportError(f"{settings.broker.url}: {trouble}")
            event = link.poll(_PAUSE_SECONDS)
            if isinstance(event, Disconnected):
                if not connected:
                    raise TransportError(f"{settings.broker.url}: {event.reason}")
                connected, trouble = False, event.reason
            elif isinstance(event, Connected) or (event is None and connected):
                connected = True
                waiting = _clear(link, waiting, deadline)
                trouble = f"it has not read its rules again, which say that {', '.join(sorted(waiting))} may be cleared"
    finally:
        link.close()


def _clear(link: Link, topics: set[str], deadline: float) -> set[str]:
    """Clear these topics; those that are still to be cleared, because the broker said no or is gone."""
    for topic in topics:
        link.publish(topic, b"", retain=True)
    if not link.flush(max(0.0, deadline - time.monotonic())):
        return topics
    refused = set()
    while (event := link.poll(0.0)) is not None:
        if isinstance(event, Refused):
            refused.add(event.topic)
    return topics & refused
