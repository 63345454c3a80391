"""A link in front of another, which passes everything on; what one does otherwise is all that it has to say."""

from __future__ import annotations

from fedmq.transport.link import Event, Link

__all__ = ["LinkInFront"]


class LinkInFront:
    """See `Link` for all of it.

    Args:
        link: the one behind.

    """

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def max_message_bytes(self) -> int:
        """See `Link`."""
        return self._link.max_message_bytes

    @property
    def in_flight(self) -> int:
        """See `Link`."""
        return self._link.in_flight

    @property
    def carried(self) -> tuple[int, int]:
        """See `Link`."""
        return self._link.carried

    def open(self) -> None:
        """See `Link`."""
        self._link.open()

    def poll(self, timeout: float) -> Event | None:
        """See `Link`."""
        return self._link.poll(timeout)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """See `Link`."""
        return self._link.publish(topic, payload, retain=retain, qos=qos)

    def subscribe(self, *topics: str) -> None:
        """See `Link`."""
        self._link.subscribe(*topics)

    def unsubscribe(self, *topics: str) -> None:
        """See `Link`."""
        self._link.unsubscribe(*topics)

    def flush(self, timeout: float) -> bool:
        """See `Link`."""
        return self._link.flush(timeout)

    def wake(self) -> None:
        """See `Link`."""
        self._link.wake()

    def close(self) -> None:
        """See `Link`."""
        self._link.close()
