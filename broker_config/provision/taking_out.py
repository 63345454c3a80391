"""What takes revoked devices out. It reads no bundle, so that nothing which is wrong with one can keep a thief in."""

from __future__ import annotations

from datetime import datetime

from fedmq.broker_config.provision.certificates import Authority
from fedmq.broker_config.provision.folder import Folder
from fedmq.broker_config.provision.mosquitto_rules import rules
from fedmq.broker_config.provision.passwords import password_file, read_password_file
from fedmq.broker_config.provision.plan import Plan
from fedmq.broker_config.provision.private_files import read_private
from fedmq.broker_config.provision.record import Record
from fedmq.broker_config.provision.revocation import revocation_list

__all__ = ["revoked_certificates", "revoked_ids", "without_revoked"]


def without_revoked(folder: Folder, record: Record) -> Plan:
    """The passwords and rules of all but the revoked, and no one else's, and their ids for the aggregator."""
    plan: Plan = {}
    before = read_private(folder.passwords)
    if before is not None:
        accounts = set(map(record.user, record.active))
        lines = {user: line for user, line in read_password_file(before).items() if user in accounts}
        plan[folder.passwords] = password_file(lines)
    return plan | {folder.rules: rules(record), folder.revoked: revoked_ids(record)}


def revoked_ids(record: Record) -> bytes:
    """The file that the aggregator's settings name: ids of devices that are out, one a line."""
    return "".join(f"{name}\n" for name in sorted(record.revoked)).encode()


def revoked_certificates(folder: Folder, record: Record, authority: Authority, now: datetime) -> bytes:
    """The broker's list of revoked certificates; raises ConfigError if the authority's key is needed and not there."""
    serials = [int(one.serial, 16) for name in record.revoked for one in record.accounts[name].issued]
    return revocation_list(authority, serials, now, read_private(folder.revocations))
