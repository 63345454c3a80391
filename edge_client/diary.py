"""A device's lines about its updates, which a card in a small machine has to bear for years."""

from __future__ import annotations

import logging

from fedmq.schemas.messages import Receipt

__all__ = ["Diary"]

log = logging.getLogger("fedmq.client")

_SECONDS = 1.0  # between two lines


class Diary:
    """What became of an update is said when it is accepted; that it was made, only where that may take long.

    At most one line a second, with how many were left out since the last. With the level debug all of it is there.

    Args:
        client_id: this device's.

    """

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._next_at = float("-inf")
        self._left_out = 0

    def trained(self, version: int, sequence: int, now: float, *, heard_soon: bool) -> None:
        """An update is in the outbox; `heard_soon`: as it seems, its receipt comes next."""
        text = f"trained client={self._client_id} version={version} sequence={sequence}"
        if heard_soon:
            log.debug("%s", text)
        else:
            self._say(text, now)

    def accepted(self, sequence: int, receipt: Receipt, size: int, now: float) -> None:
        """It counts; `size` in bytes."""
        place = f"version={receipt.version} staleness={receipt.staleness}"
        self._say(f"accepted client={self._client_id} sequence={sequence} {place} bytes={size}", now)

    def _say(self, text: str, now: float) -> None:
        if now < self._next_at and not log.isEnabledFor(logging.DEBUG):
            self._left_out += 1
            return
        log.info("%s", f"{text} left_out={self._left_out}" if self._left_out else text)
        self._next_at, self._left_out = now + _SECONDS, 0
