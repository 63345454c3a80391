"""A verdict on its way from the core to its client."""

from __future__ import annotations

from typing import Literal, NamedTuple

from fedmq.aggregator.window import DIGEST_BYTES
from fedmq.schemas.errors import Reason
from fedmq.schemas.messages import UpdateId

__all__ = ["Judged", "short"]


class Judged(NamedTuple):
    """What a `Receipt` will say, see there.

    There is one for every update, and a model of the wire's takes six times as long to make.
    """

    update: UpdateId
    reason: Reason | None = None  # why it is rejected; None if it is accepted
    detail: str = ""
    version: int | None = None
    staleness: int | None = None
    digest: str | None = None

    @property
    def verdict(self) -> Literal["accepted", "rejected"]:
        """As in the receipt."""
        return "accepted" if self.reason is None else "rejected"


def short(digest: str) -> str:
    """What a receipt says of an update's digest, and what the ledger remembers of it; both are hex."""
    return digest[: 2 * DIGEST_BYTES]
