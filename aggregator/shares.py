"""How much of the aggregator's time each client's updates may take: a few bytes may decode into millions of numbers.

`attention` counts messages that lead nowhere, `allowance` updates that count; neither says what one costs. Here seconds
are counted. A device that trains what it sends takes longer for it than the aggregator does, so none comes near these
shares at its own pace.
"""

from __future__ import annotations

from fedmq.aggregator.buckets import Buckets

__all__ = ["Shares"]

# Of the time; the rest is left for whoever is new, whose messages wait behind its own.
_BESIDE_OTHERS, _ALONE = 0.5, 0.9
_AT_ONCE_SECONDS = 2.0  # for who comes back with all that it has made
_FOR_NOTHING = 5.0  # times as much is counted of an update that is refused: a tenth of the time beside others
_OTHERS_SECONDS = 600.0  # since another client was heard, that a client is not alone
_TOKEN_SECONDS = 0.05  # that are free again before the next is judged


class Shares:
    """Told how long each update took; asked before the next of its client is decoded. Times are seconds of the run."""

    def __init__(self) -> None:
        tokens = 1.0 / _TOKEN_SECONDS
        self._beside = Buckets(_BESIDE_OTHERS * tokens, _AT_ONCE_SECONDS * tokens)
        self._alone = Buckets(_ALONE * tokens, _AT_ONCE_SECONDS * tokens)
        self._newest = "", float("-inf")  # who was heard, and when
        self._before = "", float("-inf")  # the same of another client

    def heard(self, client_id: str, now: float) -> None:
        """A client says something."""
        if client_id != self._newest[0]:
            self._before = self._newest
        self._newest = client_id, now

    def wait(self, client_id: str, now: float) -> float:
        """Seconds until this client's next update may be decoded; 0 if it may be now."""
        _, at = self._before if client_id == self._newest[0] else self._newest
        return (self._beside if now < at + _OTHERS_SECONDS else self._alone).seconds(client_id, now)

    def spent(self, client_id: str, seconds: float, begun: float, *, refused: bool) -> None:
        """An update of this client took so long, from `begun` on."""
        tokens = seconds * (_FOR_NOTHING if refused else 1.0) / _TOKEN_SECONDS
        self._beside.take(client_id, begun, tokens)
        self._alone.take(client_id, begun, tokens)
