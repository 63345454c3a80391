"""What an account's bundle is to hold: made where there is none, renewed when asked. Nothing is written here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fedmq.broker_config.provision.bundles import (
    AUTHORITY,
    IDENTITY,
    PASSWORD,
    SETTINGS,
    SIGNING,
    TASK,
    settings_file,
)
from fedmq.broker_config.provision.certificates import Authority, read_identity
from fedmq.broker_config.provision.folder import OPERATOR, Folder
from fedmq.broker_config.provision.identities import Renewal
from fedmq.broker_config.provision.passwords import new_password
from fedmq.broker_config.provision.private_files import read_private
from fedmq.broker_config.provision.record import Account, Issued, Record
from fedmq.broker_config.provision.signing_keys import new_signing_key, public_key, with_key
from fedmq.schemas.errors import ConfigError

__all__ = ["Bundle", "planned_bundle", "task_file"]

# The password before the certificate: a bundle is whole once it has a certificate.
_ORDER = (AUTHORITY, PASSWORD, SIGNING, TASK, SETTINGS, IDENTITY)


# After their end certificates are still remembered for a while: the clock that says so may be ahead, and one that is
# not remembered is not revoked.
_KEPT = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What an account's bundle is to hold.

    Attributes:
        files: its own files, in the order in which they are written; none if it was taken away and stays so. Without a
            password, for a machine that has it, and its settings, already.
        new: the account never had one.
        account: what is to be remembered of the account, before anything is written.
        until: the end of its newest certificate.

    """

    files: dict[str, bytes]
    new: bool
    account: Account
    until: datetime


def planned_bundle(folder: Folder, record: Record, name: str, authority: Authority, renewal: Renewal) -> Bundle:
    """What the bundle of account `name` is to hold.

    One that was made and is gone was taken to its machine, which has the only copy of its password. A renewal leaves
    the password as it is then, or a whole fleet would be cut off; only who is named gets a new one. What a run that was
    cut off has begun to renew is finished, and not renewed once more: the key before is still at work.

    Raises:
        ConfigError: what is there is damaged, the task file cannot be read, or the authority cannot sign.

    """
    place, known = folder.bundle(name), record.accounts[name]
    there = _there(place, name)
    identity = _issued(there.get(IDENTITY), place / IDENTITY)
    signing = public_key(there[SIGNING], place / SIGNING) if SIGNING in there else None

    def begun(*path: str) -> bool:
        return folder.name(place.joinpath(*path)) in record.changing

    new = not known.issued or (begun() and identity is None)
    under_way = begun() or begun(IDENTITY)
    recorded = known.issued[-1] if known.issued else None
    newest = identity or recorded
    wanted = newest is not None and not under_way and renewal.wants(name, newest.until)
    if newest is not None and identity is None and not (new or wanted or under_way):
        return Bundle({}, False, _remembered(known, None, known.signing, renewal.now), newest.until)

    make = set()
    if identity is None or wanted or (under_way and identity != recorded):
        make.add(IDENTITY)
    if name != OPERATOR and (signing is None or wanted or (under_way and known.signing[-1:] != (signing,))):
        make.add(SIGNING)
    if PASSWORD not in there and (new or name in renewal.names or begun(PASSWORD)):
        make.add(PASSWORD)
    if SETTINGS not in there and PASSWORD in make | there.keys():
        make.add(SETTINGS)
        if TASK not in there and record.task is not None and name != OPERATOR:
            make.add(TASK)  # settings of before may name another place
    makers: dict[str, Callable[[], bytes]] = {
        IDENTITY: lambda: authority.issue(record.user(name), record.device_days, renewal.now),
        PASSWORD: lambda: new_password().encode() + b"\n",
        SETTINGS: lambda: settings_file(record, name),
        SIGNING: new_signing_key,
        TASK: lambda: task_file(record),
    }
    files = there | {AUTHORITY: authority.certificate} | {file: makers[file]() for file in make}
    identity = _issued(files[IDENTITY], place / IDENTITY)
    assert identity is not None
    keys = known.signing
    if name != OPERATOR:
        # Of those from before, one that a device may still sign with goes only when a renewal begins.
        keys = with_key(keys, public_key(files[SIGNING], place / SIGNING), all_stay=not wanted)
    ordered = {file: files[file] for file in _ORDER if file in files}
    return Bundle(ordered, new, _remembered(known, identity, keys, renewal.now), identity.until)


def task_file(record: Record) -> bytes:
    """The task file that goes into new bundles; raises ConfigError if it cannot be read."""
    assert record.task is not None
    try:
        return Path(record.task).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"task {record.task}: it cannot be copied into a bundle: {error.strerror}; give --task"
        ) from error


def _there(place: Path, name: str) -> dict[str, bytes]:
    """The bundle's own files."""
    there = {file: content for file in _ORDER if (content := read_private(place / file)) is not None}
    if not there.get(PASSWORD, b"none").strip():
        raise ConfigError(
            f"{place / PASSWORD}: it is empty; put it back, or remove it: its machine goes on with the password that it"
            f" has, and --renew {name} makes another"
        )
    return there


def _issued(content: bytes | None, path: Path) -> Issued | None:
    if content is None:
        return None
    identity = read_identity(content, path)
    return Issued(serial=f"{identity.serial:x}", until=identity.until)


def _remembered(known: Account, identity: Issued | None, signing: tuple[str, ...], now: datetime) -> Account:
    """The account with the certificate that its bundle has now; those that have ended long ago are left out.

    All of them count until they end, because a device may still work with the one before the last.
    """
    issued = tuple(one for one in known.issued if one.until + _KEPT > now or one == known.issued[-1])
    if identity is not None and identity.serial not in {one.serial for one in issued}:
        issued = (*issued, identity)
    return known.model_copy(update={"issued": issued, "signing": signing})
