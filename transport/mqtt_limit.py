"""How large a message may be: what the settings say, less where the broker says so, or cuts the connection for it."""

from __future__ import annotations

__all__ = ["LEAST_BYTES", "MessageLimit"]

LEAST_BYTES = 16 * 1024
"""What the limit is never halved below: every broker takes as much."""

_TOPIC_BYTES = 256  # topic, packet id and properties of a PUBLISH, beside its payload
_STRIKES = 2  # connections that ended with an unheard-of size on its way, until that size is what ended them


class MessageLimit:
    """The largest payload for one link; it outlives connections.

    A broker of MQTT 5 announces its limit. One of 3.1.1 ends the connection at a packet that is too large for it, and
    so does a bad network now and then: a size that came through once is never given up.

    Attributes:
        bytes: of the largest payload now.

    """

    def __init__(self, most: int) -> None:
        self.bytes = most
        self._proven = 0  # the largest payload that a broker acknowledged
        self._strikes = 0

    def connected(self, max_packet_bytes: int | None) -> None:
        """The broker may have said how large a packet it takes."""
        if max_packet_bytes is not None:
            self.bytes = max(1, min(self.bytes, max_packet_bytes - _TOPIC_BYTES))

    def taken(self, size: int) -> None:
        """The broker acknowledged a payload of this size."""
        self._proven = max(self._proven, size)
        self._strikes = 0

    def ended(self, largest: int, *, for_its_size: bool) -> bool:
        """A connection ended.

        Args:
            largest: of the payloads that were on their way, not acknowledged; 0 if there were none.
            for_its_size: the broker said that a packet was too large.

        Returns:
            Whether the limit is lower now.

        """
        if largest <= max(self._proven, LEAST_BYTES) and not for_its_size:
            return False
        self._strikes += 1
        if self._strikes < _STRIKES and not for_its_size:
            return False
        before, self._strikes = self.bytes, 0
        self.bytes = max(min(self.bytes, LEAST_BYTES), self.bytes // 2)
        return self.bytes < before
