"""One run of `fedmq provision`: what it does, in order.

Who is revoked goes first, by itself. All else is worked out before anything is written; then the record is, with what
is about to change, and what follows from it after that. Each file and each new bundle appears in one step. So a run
that was cut off is finished by the next one, which tells of both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmq.broker_config.provision.broker_files import broker_files
from fedmq.broker_config.provision.bundle_plan import Bundle, planned_bundle, task_file
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
from fedmq.broker_config.provision.closing import close_up
from fedmq.broker_config.provision.decisions import Request, decided
from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR, Folder
from fedmq.broker_config.provision.host_names import broker_url
from fedmq.broker_config.provision.identities import Renewal, broker_identity, open_authority
from fedmq.broker_config.provision.key_lists import aggregator_keys, device_keys
from fedmq.broker_config.provision.plan import Plan, carry_out, different
from fedmq.broker_config.provision.private_files import (
    alone_in,
    make_folder,
    read_private,
    remove_files,
    remove_unfinished,
)
from fedmq.broker_config.provision.record import Record, read_record, write_record
from fedmq.broker_config.provision.revocation import is_ahead
from fedmq.broker_config.provision.safe_folder import check_folder, without_links
from fedmq.broker_config.provision.taking_out import revoked_certificates, revoked_ids, without_revoked
from fedmq.schemas.errors import ConfigError, StoreError

__all__ = ["Outcome", "note_cleared", "provision"]

_OWN = (IDENTITY, PASSWORD, AUTHORITY, SETTINGS, SIGNING, TASK)
_OURS = (*_OWN, AGGREGATOR_KEYS)
_LISTS = (REVOKED, DEVICE_KEYS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run, and of those before it that were cut off.

    Attributes:
        record: what is decided now.
        changed: files, and folders that are new or gone, that are other than they were; paths in the folder.
        bundles: accounts whose bundle was made or changed.
        without_password: those of them whose machine has the password and the settings, and the folder has not.
        locked_out: accounts that have a new password, so that they are cut off until they have their bundle.
        broker: files of the broker's folder that were made or changed.
        revoked: devices that were taken out.
        absent: accounts whose bundle is not in the folder any more.
        due: accounts whose certificate is near its end, and when that is.
        broker_due: the end of the broker's own, if it is near.
        cut_short: the authority's end, if a certificate that was made ends with it, and not as late as was asked for.
        hosts_gone: names under which the broker could be reached, and cannot any more.
        redated: the list of revoked certificates was from the future; a broker that runs has it until it is restarted.
        elsewhere: accounts whose settings name a broker that is not this one under any of its names.
        opened: files and folders that others might have read; they may not any more. Paths in the folder, which itself
            is `.`.

    """

    record: Record
    changed: frozenset[str]
    bundles: tuple[str, ...]
    without_password: tuple[str, ...]
    locked_out: tuple[str, ...]
    broker: tuple[str, ...]
    revoked: tuple[str, ...]
    absent: tuple[str, ...]
    due: tuple[tuple[str, datetime], ...]
    broker_due: datetime | None
    cut_short: datetime | None
    hosts_gone: tuple[str, ...]
    redated: bool
    elsewhere: tuple[str, ...]
    opened: tuple[str, ...]

    @property
    def new(self) -> bool:
        """Whether there was no federation in the folder before."""
        return "provision.json" in self.changed


def _nobody(outcome: Outcome) -> None:
    """Tell nobody."""


def provision(root: Path, request: Request, now: datetime, tell: Callable[[Outcome], None] = _nobody) -> Outcome:
    """Bring a folder to what is asked for, and in order; twice is as good as once.

    Args:
        root: the folder; made if it is not there.
        request: what is asked for.
        now: the time, with its zone.
        tell: says to people what came of it. Until it has returned once, the next run has it to tell too.

    Returns:
        what came of it.

    Raises:
        ConfigError: it cannot be; nothing was changed then, but for revocations, of which the sentence says that.
        StoreError: the disk does not take it; the next run goes on from there.

    """
    root = without_links(root)
    folder = Folder(root)
    if not folder.record.exists():
        _check_new(root)
        first = decided(None, request, folder)  # a mistake must not leave a folder behind
        if first.task is not None:
            task_file(first)
    with alone_in(root):
        before = read_record(folder)
        record = decided(before, request, folder)
        renewal = Renewal(frozenset(request.renew), request.renew_due, request.renew_all, record.renew_days, now)
        redated = _is_ahead(folder.revocations, now)
        if before is None:
            close_up(root, ())
            record = record.with_changing([folder.name(folder.record)])
            write_record(folder, record)
            outcome = _bring_in_order(folder, record, renewal, redated)
        else:
            outcome = _changed(folder, before, record, renewal, redated)
        tell(outcome)
        write_record(folder, outcome.record)
        return outcome


def note_cleared(root: Path, client_ids: Iterable[str]) -> None:
    """Remember that what these revoked devices had left on the broker is gone."""
    folder = Folder(without_links(root))
    with alone_in(folder.root):
        record = read_record(folder)
        if record is not None:
            cleared = {name: record.accounts[name].model_copy(update={"cleared": True}) for name in client_ids}
            write_record(folder, record.with_accounts(cleared))


def _is_ahead(revocations: Path, now: datetime) -> bool:
    with contextlib.suppress(ConfigError, StoreError):  # who writes it says so, and whether anybody is out
        return is_ahead(read_private(revocations), now)
    return False


def _check_new(root: Path) -> None:
    """A folder without a record has to be an empty one, but for what a run that was cut off has left."""
    if root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        raise ConfigError(
            f"{root}: it is not empty, and no provisioned folder (there is no provision.json); name another with --out"
        )


def _changed(folder: Folder, before: Record, record: Record, renewal: Renewal, redated: bool) -> Outcome:
    """What `_bring_in_order` returns, once every revocation counts; what is raised says whether the new ones do."""
    taken = [name for name in record.revoked if name not in before.revoked]
    so_far = f"not out yet: {', '.join(taken)}"
    try:
        remove_unfinished(_written(folder, before))
        out = _take_out(folder, before, record, renewal)
        so_far = (
            f"out all the same: {', '.join(taken)}, once the broker has what is in {folder.broker} and the aggregator"
            f" {folder.revoked}"
        )
        return _bring_in_order(folder, record.model_copy(update={"changing": out.changing}), renewal, redated)
    except (ConfigError, StoreError) as error:
        if not taken:
            raise
        raise type(error)(f"{error}; {so_far}") from error


def _take_out(folder: Folder, before: Record, record: Record, renewal: Renewal) -> Record:
    """Have every revocation count, whatever is wrong with anybody else; the record of that."""
    out = before.with_accounts({name: record.accounts[name] for name in record.revoked})
    if not out.revoked:
        return out
    authority = open_authority(folder, before, renewal)
    if out.revoked != before.revoked:
        authority.key("the list of revoked certificates")  # before anything is decided that could not be done
        new = (name for name in out.revoked if name not in before.revoked)
        out = out.with_changing(folder.name(folder.bundle(name)) for name in new)
    out = _carry_out(folder, out, without_revoked(folder, out))
    out = _carry_out(folder, out, {folder.revocations: revoked_certificates(folder, out, authority, renewal.now)})
    for name in out.revoked:
        remove_files(folder.bundle(name), _OURS)
    return out


def _bring_in_order(folder: Folder, record: Record, renewal: Renewal, redated: bool) -> Outcome:
    """Make what is missing or to be renewed; what came of it, with the record that has nothing more to tell."""
    for place, looked_at in _private(folder, record):
        check_folder(place, looked_at)
    authority = open_authority(folder, record, renewal)
    identity = broker_identity(folder, record, authority, renewal)
    bundles = {name: planned_bundle(folder, record, name, authority, renewal) for name in record.active}
    known, record = record, record.with_accounts({name: bundle.account for name, bundle in bundles.items()})
    record = record.with_changing(folder.name(folder.bundle(name)) for name, bundle in bundles.items() if bundle.new)
    plan: Plan = {folder.authority: authority.certificate}
    plan |= _bundle_files(folder, record, bundles, device_keys(record) != device_keys(known))
    plan |= broker_files(folder, record, authority, identity, bundles, renewal.now)
    make_folder(folder.broker / "data")
    record = _carry_out(folder, record, plan)
    changed = frozenset(record.changing)

    def accounts(wanted: Callable[[str, Bundle], bool]) -> tuple[str, ...]:
        return tuple(name for name, bundle in bundles.items() if wanted(name, bundle))

    def touched(name: str, *files: str) -> bool:
        place = folder.bundle(name)
        return folder.name(place) in changed or any(folder.name(place / file) in changed for file in files)

    made = accounts(lambda name, bundle: touched(name, *_OWN))
    names = (folder.name(path) for path in plan if path.parent == folder.broker)
    broker = read_identity(identity, folder.broker)
    end = read_identity(authority.certificate, folder.authority).until
    ends = [bundles[name].until for name in made if touched(name, IDENTITY)]
    ends += [broker.until] if folder.name(folder.broker / IDENTITY) in changed else []
    return Outcome(
        record=record.model_copy(update={"changing": (), "hosts_gone": ()}),
        changed=changed,
        bundles=made,
        without_password=tuple(name for name in made if PASSWORD not in bundles[name].files),
        locked_out=accounts(lambda name, bundle: touched(name, PASSWORD) and not touched(name)),
        broker=tuple(name.rpartition("/")[2] for name in names if name in changed),
        revoked=tuple(name for name in record.revoked if touched(name)),
        absent=accounts(lambda name, bundle: not bundle.files),
        due=tuple((name, bundle.until) for name, bundle in bundles.items() if renewal.is_due(bundle.until)),
        broker_due=broker.until if renewal.is_due(broker.until) else None,
        cut_short=end if end in ends else None,
        hosts_gone=record.hosts_gone,
        redated=redated,
        elsewhere=accounts(lambda name, bundle: _is_elsewhere(record, bundle)),
        opened=tuple(folder.name(path) for place, names in _private(folder, record) for path in close_up(place, names)),
    )


def _bundle_files(folder: Folder, record: Record, bundles: Mapping[str, Bundle], keys_changed: bool) -> Plan:
    """What the bundles are to hold. Everybody trusts a key before it is used, whenever this is cut off."""
    lists: Plan = {}
    files: Plan = {}
    whole: Plan = {}
    for name, bundle in bundles.items():
        place = folder.bundle(name)

        def has(file: str, place: Path = place) -> bool:
            return (place / file).exists() or folder.name(place / file) in record.changing

        keys: dict[str, bytes] = {}
        if bundle.files or has(AGGREGATOR_KEYS):
            keys[AGGREGATOR_KEYS] = aggregator_keys(record)
        # What is new in these two has to be carried also to a machine whose bundle is not here any more.
        if name in (AGGREGATOR, OPERATOR) and (bundle.files or keys_changed or has(DEVICE_KEYS)):
            keys[DEVICE_KEYS] = device_keys(record)
        if name == AGGREGATOR and (bundle.files or record.revoked or has(REVOKED)):
            keys[REVOKED] = revoked_ids(record)
        if bundle.new and not place.exists():
            whole[place] = bundle.files | keys
        else:
            lists |= {place / file: content for file, content in keys.items()}
            files |= {place / file: content for file, content in bundle.files.items()}
    return lists | files | whole


def _carry_out(folder: Folder, record: Record, plan: Plan) -> Record:
    """Write what is not so yet; the record, which says beforehand what that is."""
    plan = different(plan)
    record = record.with_changing(folder.name(path) for path in plan)
    write_record(folder, record)
    carry_out(plan)
    return record


def _written(folder: Folder, record: Record) -> Iterator[Path]:
    """Everything that a run may have been writing when it was cut off."""
    yield from (folder.record, folder.authority_key, folder.authority)
    yield from (folder.passwords, folder.rules, folder.revocations, folder.configuration)
    yield from (folder.broker / AUTHORITY, folder.broker / IDENTITY)
    for place in map(folder.bundle, record.accounts):
        yield place
        yield from (place / file for file in (*_OURS, *_LISTS))


def _private(folder: Folder, record: Record) -> Iterator[tuple[Path, tuple[str, ...] | None]]:
    """Folders, and files in them, all if None, that nobody else may read; what else there is, is its user's affair."""
    yield folder.root, (folder.name(folder.record),)
    for place in (folder.authority.parent, folder.broker, folder.broker / "data", folder.root / "devices"):
        yield place, None
    for name in record.active:
        yield folder.bundle(name), (*_OURS, *_LISTS)


def _is_elsewhere(record: Record, bundle: Bundle) -> bool:
    content = bundle.files.get(SETTINGS)
    return content is not None and settings_url(content) not in {broker_url(host, record.port) for host in record.hosts}
