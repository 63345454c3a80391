"""A link of a device that has no keys, which notices that the aggregator has some."""

from __future__ import annotations

import logging

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.signing import opened
from fedmq.schemas.topics import Topics
from fedmq.transport.in_front import LinkInFront
from fedmq.transport.link import Event, Link, Message

__all__ = ["UnsignedLink"]

log = logging.getLogger("fedmq.signing")

_WITHOUT_KEYS = (
    "the aggregator signs what it says, and this device has no keys, so it is not heard: add the [signing] section of "
    "its bundle to its federation.toml, and start it again"
)


class UnsignedLink(LinkInFront):
    """A link in front of another; everything passes, and what is wrong is in the log, once for each time it is heard.

    Args:
        link: to the broker.
        topics: of the federation.
        client_id: of the device.

    """

    def __init__(self, link: Link, topics: Topics, client_id: str) -> None:
        super().__init__(link)
        self._topics = topics
        self._client_id = client_id

    def poll(self, timeout: float) -> Event | None:
        """See `Link`."""
        event = self._link.poll(timeout)
        # The presence is small and comes with each connection: that is enough to know.
        if isinstance(event, Message) and event.topic == self._topics.aggregator and _is_signed(event):
            log.error("unsigned client=%s detail=%r", self._client_id, _WITHOUT_KEYS)
        return event


def _is_signed(message: Message) -> bool:
    try:
        return bool(message.payload) and opened(message.topic, message.payload) is not None
    except ProtocolError:
        return False
