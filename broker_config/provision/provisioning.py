"""One run of `fedmq provision`: what it does, in order.

The record is written first, then what follows from it. Each file and each new bundle appears in one step, and every run
brings everything in order, so that a run that was cut off is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmq.broker_config.provision.broker_files import write_broker_files
from fedmq.broker_config.provision.bundles import (
    AGGREGATOR_KEYS,
    AUTHORITY,
    DEVICE_KEYS,
    IDENTITY,
    PASSWORD,
    REVOKED,
    SETTINGS,
    SIGNING,
    TASK,
    settings_url,
)
from fedmq.broker_config.provision.certificates import read_identity
from fedmq.broker_config.provision.decisions import Request, decided
from fedmq.broker_config.provision.folder import Folder
from fedmq.broker_config.provision.host_names import broker_url
from fedmq.broker_config.provision.identities import (
    Renewal,
    broker_identity,
    bundle,
    issued_in,
    open_authority,
    signed_with,
    write_device_keys,
)
from fedmq.broker_config.provision.private_files import alone_in, close_up, read_private, remove_files, write_private
from fedmq.broker_config.provision.record import Record, read_record, write_record
from fedmq.broker_config.provision.signing_keys import with_key
from fedmq.schemas.errors import ConfigError

__all__ = ["Outcome", "note_cleared", "provision"]

_OURS = (IDENTITY, PASSWORD, AUTHORITY, SETTINGS, SIGNING, AGGREGATOR_KEYS, TASK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        record: what is decided now.
        new: there was no federation in the folder before.
        bundles: accounts whose bundle was made or changed.
        broker: files of the broker's folder that were made or changed.
        revoked: devices that this run has taken out.
        absent: accounts whose bundle is not in the folder any more.
        due: accounts whose certificate is near its end; the broker's own as "broker".
        elsewhere: accounts whose settings name another broker than the record.
        opened: files and folders that others might have read; they may not any more.

    """

    record: Record
    new: bool
    bundles: tuple[str, ...]
    broker: tuple[str, ...]
    revoked: tuple[str, ...]
    absent: tuple[str, ...]
    due: tuple[str, ...]
    elsewhere: tuple[str, ...]
    opened: tuple[Path, ...]

    @property
    def changed(self) -> bool:
        """Whether anything is other than it was."""
        return bool(self.new or self.bundles or self.broker or self.revoked or self.opened)


def provision(root: Path, request: Request, now: datetime) -> Outcome:
    """Bring a folder to what is asked for, and in order; twice is as good as once.

    Args:
        root: the folder; made if it is not there.
        request: what is asked for.
        now: the time, with its zone.

    Raises:
        ConfigError: it cannot be; nothing was changed then.
        StoreError: the disk does not take it; the next run goes on from there.

    """
    folder = Folder(root)
    if not folder.record.exists():
        _check_new(root)
        decided(None, request, folder)  # a mistake must not leave a folder behind
    with alone_in(root):
        before = read_record(folder)
        record = decided(before, request, folder)
        was_out = set() if before is None else set(before.revoked)
        renewal = Renewal(frozenset(request.renew), request.renew_due, request.renew_all, record.renew_days, now)
        if before is not None and (record.accounts, record.hosts) != (before.accounts, before.hosts):
            # Before anything is decided that could not be done.
            open_authority(folder, before, renewal).key("what was asked for")
        write_record(folder, record)
        authority = open_authority(folder, record, renewal)
        identity = broker_identity(folder, record, authority, renewal)
        record = _with_issued(folder, record, record.accounts, now)
        made = []
        for name in record.active:
            if bundle(folder, record, name, authority, renewal):
                made.append(name)
                record = _with_issued(folder, record, [name], now)  # the next list of keys has its new one too
        write_record(folder, record)
        changed = write_broker_files(folder, record, authority, identity, now)
        write_private(folder.revoked, "".join(f"{name}\n" for name in sorted(record.revoked)).encode())
        write_device_keys(folder, record)
        for name in record.revoked:
            remove_files(folder.bundle(name), _OURS)
        present = {name: issued_in(folder, name) for name in record.active}
        ends = {"broker": read_identity(identity, folder.broker).until}
        ends |= {name: one.until for name, one in present.items() if one is not None}
        return Outcome(
            record=record,
            new=before is None or not before.accounts,
            bundles=tuple(made),
            broker=tuple(changed),
            revoked=tuple(name for name in record.revoked if name not in was_out),
            absent=tuple(name for name, one in present.items() if one is None),
            due=tuple(name for name, until in ends.items() if renewal.is_due(until)),
            elsewhere=tuple(name for name in record.active if _is_elsewhere(folder, record, name)),
            opened=tuple(close_up(_private(folder, record))),
        )


def note_cleared(root: Path, client_ids: Iterable[str]) -> None:
    """Remember that what these revoked devices had left on the broker is gone."""
    folder = Folder(root)
    with alone_in(root):
        record = read_record(folder)
        if record is not None:
            cleared = {name: record.accounts[name].model_copy(update={"cleared": True}) for name in client_ids}
            write_record(folder, record.with_accounts(cleared))


def _check_new(root: Path) -> None:
    """A folder without a record has to be an empty one, but for what a run that was cut off has left."""
    if root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        raise ConfigError(
            f"{root}: it is not empty, and no provisioned folder (there is no provision.json); name another with --out"
        )


def _with_issued(folder: Folder, record: Record, names: Iterable[str], now: datetime) -> Record:
    """The record with the certificates that lie in these accounts' bundles; those that have ended are left out.

    All of them count until they end, because a device may still work with the one before the last.
    """
    changed = {}
    for name in names:
        account, one = record.accounts[name], issued_in(folder, name)
        issued = tuple(old for old in account.issued if old.until > now or old == account.issued[-1])
        if one is not None and one.serial not in {old.serial for old in issued}:
            issued = (*issued, one)
        changed[name] = account.model_copy(
            update={"issued": issued, "signing": with_key(account.signing, signed_with(folder, name))}
        )
    return record.with_accounts(changed)


def _private(folder: Folder, record: Record) -> Iterator[Path]:
    """What nobody else may read; what users have put beside it is their own affair."""
    yield folder.record
    for place in (folder.authority.parent, folder.broker, folder.broker / "data", folder.root / "devices"):
        yield place
        yield from (path for path in place.glob("*") if path.is_file())
    for name in record.active:
        yield folder.bundle(name)
        yield from (folder.bundle(name) / file for file in (*_OURS, REVOKED, DEVICE_KEYS))


def _is_elsewhere(folder: Folder, record: Record, account: str) -> bool:
    content = read_private(folder.bundle(account) / SETTINGS)
    return content is not None and settings_url(content) != broker_url(record.hosts[0], record.port)
