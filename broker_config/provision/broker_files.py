"""What the broker's folder is to hold: all of it follows from the record, the bundles and the authority."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from fedmq.broker_config.provision.bundle_plan import Bundle
from fedmq.broker_config.provision.bundles import AUTHORITY, IDENTITY, PASSWORD
from fedmq.broker_config.provision.certificates import Authority
from fedmq.broker_config.provision.folder import Folder
from fedmq.broker_config.provision.mosquitto_configuration import configuration
from fedmq.broker_config.provision.mosquitto_rules import rules
from fedmq.broker_config.provision.passwords import password_file, password_line, read_password_file, verifies
from fedmq.broker_config.provision.plan import Plan
from fedmq.broker_config.provision.private_files import read_private
from fedmq.broker_config.provision.record import Record
from fedmq.broker_config.provision.taking_out import revoked_certificates
from fedmq.schemas.errors import ConfigError

__all__ = ["broker_files"]


def broker_files(
    folder: Folder,
    record: Record,
    authority: Authority,
    identity: bytes,
    bundles: Mapping[str, Bundle],
    now: datetime,
) -> Plan:
    """What the broker's folder is to hold, in the order in which it is written.

    Raises:
        ConfigError: an account's password is nowhere, or the authority's key is needed and not there.

    """
    return {
        folder.passwords: _passwords(folder, record, bundles),
        folder.rules: rules(record),
        folder.revocations: revoked_certificates(folder, record, authority, now),
        folder.broker / AUTHORITY: authority.certificate,
        folder.broker / IDENTITY: identity,
        folder.configuration: configuration(record),
    }


def _passwords(folder: Folder, record: Record, bundles: Mapping[str, Bundle]) -> bytes:
    before = read_password_file(read_private(folder.passwords) or b"")
    lines: dict[str, str] = {}
    for account in record.active:
        user = record.user(account)
        line, secret = before.get(user), bundles[account].files.get(PASSWORD)
        if secret is None:
            if line is None:
                raise ConfigError(
                    f"{folder.passwords}: {user} is not in it, and its password is not in {folder.root} either;"
                    f" --renew {account} makes it a new one, or, if it was revoked after provision.json was copied,"
                    f" --revoke {account} takes it out again"
                )
            lines[user] = line
        else:
            password = secret.decode("utf-8", errors="replace").rstrip("\r\n")
            # A hash with a new salt would be another file each time.
            lines[user] = line if line and verifies(line, password) else password_line(user, password)
    return password_file(lines)
