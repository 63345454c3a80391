"""The lists of public keys by which messages are verified; see `fedmq.keys` for who reads them."""

from __future__ import annotations

from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR
from fedmq.broker_config.provision.record import Record

__all__ = ["aggregator_keys", "device_keys"]


def aggregator_keys(record: Record) -> bytes:
    """What the aggregator's messages may be signed with: for everybody."""
    return "".join(f"{key}\n" for key in record.accounts[AGGREGATOR].signing).encode()


def device_keys(record: Record) -> bytes:
    """What each device's messages may be signed with: for the aggregator and the operator.

    The keys of who is out are in it: so it is told that it is, and no one else in its name.
    """
    devices = [(name, one) for name, one in record.accounts.items() if name not in (AGGREGATOR, OPERATOR)]
    return "".join(f"{name} {key}\n" for name, account in devices for key in account.signing).encode()
