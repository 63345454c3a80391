"""Every error that FedMQ raises, by whose fault it is."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "REASONS",
    "ConfigError",
    "FedMQError",
    "LaterReason",
    "ProtocolError",
    "Reason",
    "StoreError",
    "TransportError",
    "UnusableError",
]

Reason = Literal[
    "malformed",  # not what this protocol makes of bytes: no header, or a body that is not what its header says
    "too_large",  # above a size limit
    "wrong_run",  # of another run of this federation
    "wrong_client",  # the payload names another client than its topic
    "signature",  # not signed by the client of its topic; counted, and never answered
    "revoked",  # its client was taken out of the federation
    "id_reused",  # this update id was judged already, with other bytes
    "expired",  # older than what the ledger remembers: it may have counted
    "task_version",  # trained by a task version that the aggregator does not admit
    "layout",  # of a model with other entries
    "unknown_base",  # a base version that this run never had, or that the aggregator does not hold any more
    "too_stale",  # beyond the staleness bound
    "late",  # of a cohort that is closed, or never belonged to it
    "not_finite",  # NaN or infinity in weights or metrics
    "internal",  # the aggregator failed while judging it
    "schema",  # a header, but of no message of this protocol: kind, fields, types, limits; counted, and never answered
    "norm_bound",  # longer than the aggregator takes
]
"""Why an update was refused, as its sender reads it. New ones go to the end: run folders have their places."""

LaterReason = Literal[
    "busy",  # another update of this client is on its way in parts, or there is no room
    "slot",  # the buffer has an update of this client
    "rate",  # this client has sent too much in too short a time
    "quota",  # as many updates of this client as may be on one day have counted
    "quarantine",  # this client has sent too much that was hostile
    "disk",  # the aggregator's disk does not work
]
"""Why an update has no verdict yet, as its sender reads it."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


class FedMQError(Exception):
    """The root of every error that FedMQ raises."""


class ConfigError(FedMQError):
    """Yours: a setting, a task file or an argument that cannot work."""


class ProtocolError(FedMQError):
    """The peer's: what it sent is refused.

    Attributes:
        reason: the code that its sender reads in the receipt.

    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class TransportError(FedMQError):
    """The world's: a broker that cannot be reached, refuses, or breaks off."""


class StoreError(FedMQError):
    """The disk's: a folder that cannot be read, written or trusted."""


class UnusableError(StoreError, ConfigError):
    """Both: a folder that was chosen, and that the disk will refuse as long as people leave it as it is."""
