"""Offers that wait while a thread works on the model: their clients take turns, so that none keeps the others out."""

from __future__ import annotations

from fedmq.schemas.messages import Offer, UpdateId

__all__ = ["Turns"]

_MOST = 1024  # of all clients; without their bytes they are small
_MOST_OF_ONE = 64  # of one client; a device keeps up to 63


class Turns:
    """One offer of each client in turn, each client's in the order in which they came.

    Args:
        most_bytes: of the updates in these offers together. A quarter of it is for one client, or one update.

    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._of: dict[str, dict[UpdateId, tuple[Offer, memoryview]]] = {}  # the client whose turn is next is first

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._of)

    def wait(self, client_id: str, offer: Offer, body: memoryview) -> bool:
        """Have this offer's turn come; whether there is a place for it.

        Args:
            client_id: whose topic it came on.
            offer: the header; the same update again takes the place that it has.
            body: the encoded update; empty if it did not come with the offer.

        """
        own = dict(self._of.get(client_id, {}))
        before, kept = own.pop(offer.update, (None, body))
        if not body and before is not None and before.digest == offer.digest:
            body = kept  # a device repeats an offer without the bytes that it has sent
        others = sum(len(waits) for name, waits in self._of.items() if name != client_id)
        if len(own) >= _MOST_OF_ONE or others + len(own) >= _MOST:
            return False
        if body and not self._has_room(client_id, _bytes_of(own), len(body)):
            return False
        self._of.setdefault(client_id, {})[offer.update] = offer, body
        return True

    def next(self) -> tuple[str, Offer, memoryview]:
        """Whose turn it is, and what it offered first; that waits no more."""
        client_id, waits = next(iter(self._of.items()))
        del self._of[client_id]
        offer, body = waits.pop(next(iter(waits)))
        if waits:
            self._of[client_id] = waits  # behind all others
        return client_id, offer, body

    def drop(self, client_id: str) -> None:
        """Nothing of this client waits."""
        self._of.pop(client_id, None)

    def clear(self) -> None:
        """Whoever waits will offer again."""
        self._of.clear()

    def _has_room(self, client_id: str, own: int, size: int) -> bool:
        if own and own + size > self._most_bytes // 4:
            return False
        others = sum(_bytes_of(waits) for name, waits in self._of.items() if name != client_id)
        return others + own + size <= self._most_bytes


def _bytes_of(waits: dict[UpdateId, tuple[Offer, memoryview]]) -> int:
    return sum(len(body) for _, body in waits.values())
