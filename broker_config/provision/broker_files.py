"""What lies in the broker's folder: all of it follows from the record, the bundles and the authority."""

from __future__ import annotations

from datetime import datetime

from fedmq.broker_config.provision.bundles import AUTHORITY, IDENTITY, PASSWORD
from fedmq.broker_config.provision.certificates import Authority
from fedmq.broker_config.provision.folder import Folder
from fedmq.broker_config.provision.mosquitto_configuration import configuration
from fedmq.broker_config.provision.mosquitto_rules import rules
from fedmq.broker_config.provision.passwords import password_file, password_line, read_password_file, verifies
from fedmq.broker_config.provision.private_files import make_folder, read_private, write_private
from fedmq.broker_config.provision.record import Record
from fedmq.broker_config.provision.revocation import revocation_list
from fedmq.schemas.errors import ConfigError

__all__ = ["write_broker_files"]


def write_broker_files(
    folder: Folder, record: Record, authority: Authority, identity: bytes, now: datetime
) -> list[str]:
    """Bring the broker's folder in order; the names of the files that were other before.

    What a revocation takes away goes first. Raises ConfigError if an account's password is nowhere, or the authority's
    key is needed and not there.
    """
    revoked = [
        int(one.serial, 16)
        for account in record.accounts.values()
        if account.revoked
        for one in account.issued
        if one.until > now
    ]
    files = {
        folder.passwords: _passwords(folder, record),
        folder.rules: rules(record),
        folder.revocations: revocation_list(authority, revoked, now, read_private(folder.revocations)),
        folder.broker / AUTHORITY: authority.certificate,
        folder.broker / IDENTITY: identity,
        folder.configuration: configuration(record),
    }
    make_folder(folder.broker / "data")
    return [path.name for path, content in files.items() if write_private(path, content)]


def _passwords(folder: Folder, record: Record) -> bytes:
    before = read_password_file(read_private(folder.passwords) or b"")
    lines: dict[str, str] = {}
    for account in record.active:
        user = record.user(account)
        line, secret = before.get(user), read_private(folder.bundle(account) / PASSWORD)
        if secret is None:
            if line is None:
                raise ConfigError(
                    f"{folder.passwords}: {user} is not in it, and its bundle is not in {folder.root} either;"
                    f" --renew {account} makes it a new bundle"
                )
            lines[user] = line
        else:
            password = secret.decode("utf-8", errors="replace").rstrip("\r\n")
            # A hash with a new salt would be another file each time.
            lines[user] = line if line and verifies(line, password) else password_line(user, password)
    return password_file(lines)
