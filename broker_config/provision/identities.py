"""The authority, the broker's certificate and every account's bundle: made where there is none, renewed when asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

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
    settings_file,
)
from fedmq.broker_config.provision.certificates import (
    Authority,
    authority_certificate,
    key_pem,
    new_key,
    read_identity,
)
from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR, Folder
from fedmq.broker_config.provision.host_names import address_of
from fedmq.broker_config.provision.passwords import new_password
from fedmq.broker_config.provision.private_files import read_private, write_folder, write_private
from fedmq.broker_config.provision.record import Issued, Record
from fedmq.broker_config.provision.signing_keys import new_signing_key, public_key, with_key
from fedmq.schemas.errors import ConfigError

__all__ = ["Renewal", "broker_identity", "bundle", "issued_in", "open_authority", "signed_with", "write_device_keys"]


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is to be made anew.

    Attributes:
        names: of accounts, whatever the age of their certificates.
        due: everything that ends within `days`.
        everything: all.
        days: when a certificate is due.
        now: the time.

    """

    names: frozenset[str]
    due: bool
    everything: bool
    days: int
    now: datetime

    def is_due(self, until: datetime) -> bool:
        """Whether a certificate that ends then is near its end."""
        return until - self.now < timedelta(days=self.days)

    def wants(self, name: str, until: datetime) -> bool:
        """Whether this one is to be made anew."""
        return self.everything or name in self.names or (self.due and self.is_due(until))


def open_authority(folder: Folder, record: Record, renewal: Renewal) -> Authority:
    """The authority, made if the folder is new; a new certificate for its old key when that is due.

    Raises:
        ConfigError: it is gone, or its key is not there and is needed.

    """
    key, certificate = read_private(folder.authority_key), read_private(folder.authority)
    if key is None and certificate is None:
        if any(account.issued for account in record.accounts.values()):
            raise ConfigError(
                f"{folder.authority.parent}: the authority that signed this folder's certificates is gone; put its"
                " two files back from a copy, or begin a new folder and give every device its new bundle"
            )
        key = key_pem(new_key())
        write_private(folder.authority_key, key)
    authority = Authority(certificate or b"", folder.authority_key)
    if certificate is not None:
        left = read_identity(certificate, folder.authority).until - renewal.now
        # It is due when a device's certificate does not fit into its lifetime any more: early, because its successor
        # has to reach every device before it ends.
        if left >= timedelta(days=record.device_days) or not (renewal.due or renewal.everything):
            return authority
        key = key_pem(authority.key("the authority's new certificate"))
    assert key is not None
    certificate = authority_certificate(
        record.federation, key, record.authority_days, renewal.now, folder.authority_key
    )
    write_private(folder.authority, certificate)
    return Authority(certificate, folder.authority_key)


def broker_identity(folder: Folder, record: Record, authority: Authority, renewal: Renewal) -> bytes:
    """The broker's certificate and key: as they are, or new when they are missing, due, or for other hosts."""
    path = folder.broker / IDENTITY
    content = read_private(path)
    if content is not None:
        identity = read_identity(content, path)
        # An address may be written in several ways, and a certificate knows one.
        same = {host.lower() for host in identity.hosts} == {_canonical(host) for host in record.hosts}
        if same and not renewal.wants("", identity.until):
            return content
    return authority.issue(record.hosts[0][:64], record.server_days, renewal.now, record.hosts)


def bundle(folder: Folder, record: Record, account: str, authority: Authority, renewal: Renewal) -> bool:
    """Make what is missing in an account's bundle, and renew its certificate if that is wanted; whether anything was.

    A bundle that was made once and is gone was taken to its machine: it is made anew only to renew it, with a new
    password, because the old one is known to nobody but its device.
    """
    place = folder.bundle(account)
    contents = {name: read_private(place / name) for name in (AUTHORITY, IDENTITY, PASSWORD, SETTINGS, SIGNING, TASK)}
    issued = record.accounts[account].issued
    identity = contents[IDENTITY]
    if identity is None:
        if issued and not renewal.wants(account, max(one.until for one in issued)):
            return False
        new = True
    else:
        new = renewal.wants(account, read_identity(identity, place / IDENTITY).until)
    makers: dict[str, Callable[[], bytes]] = {
        AUTHORITY: lambda: authority.certificate,
        IDENTITY: lambda: authority.issue(record.user(account), record.device_days, renewal.now),
        PASSWORD: lambda: new_password().encode() + b"\n",
        SETTINGS: lambda: settings_file(record, account),
    }
    if account != OPERATOR:
        makers[SIGNING] = new_signing_key
        if record.task is not None and contents[SETTINGS] is None:  # settings of before may name another place
            makers[TASK] = partial(_task_file, record.task)
    anew = {AUTHORITY} | ({IDENTITY, SIGNING} if new else set())
    files = {name: make() if name in anew or (old := contents[name]) is None else old for name, make in makers.items()}
    own = files[SIGNING] if account == AGGREGATOR else None
    files[AGGREGATOR_KEYS] = _aggregator_keys(folder, record, own)
    if not place.exists():
        # Its settings name these files, which have to be there from the beginning.
        empty = {AGGREGATOR: (REVOKED, DEVICE_KEYS), OPERATOR: (DEVICE_KEYS,)}.get(account, ())
        write_folder(place, files | dict.fromkeys(empty, b""))
        return True
    # Everybody trusts a key before it is used, whenever this is cut off.
    if account not in (AGGREGATOR, OPERATOR) and files[SIGNING] != contents[SIGNING]:
        trusted = with_key(record.accounts[account].signing, public_key(files[SIGNING], place / SIGNING))
        signing = record.accounts[account].model_copy(update={"signing": trusted})
        write_device_keys(folder, record.with_accounts({account: signing}))
    if own is not None and own != contents[SIGNING]:
        for other in record.active:
            path = folder.bundle(other) / AGGREGATOR_KEYS
            if path.exists():
                write_private(path, files[AGGREGATOR_KEYS])
    # The password before the certificate: a bundle is whole once it has a certificate.
    order = (AUTHORITY, PASSWORD, AGGREGATOR_KEYS, SIGNING, TASK, SETTINGS, IDENTITY)
    changed = [write_private(place / name, files[name]) for name in order if name in files]
    return any(changed)


def write_device_keys(folder: Folder, record: Record) -> None:
    """Write the list of the devices' public keys, for who verifies what they send.

    The keys of who is out are in it: so it is told that it is, and no one else in its name.
    """
    devices = [(name, one) for name, one in record.accounts.items() if name not in (AGGREGATOR, OPERATOR)]
    keys = "".join(f"{name} {key}\n" for name, account in devices for key in account.signing).encode()
    for name in (AGGREGATOR, OPERATOR):
        if folder.bundle(name).is_dir():
            write_private(folder.bundle(name) / DEVICE_KEYS, keys)


def issued_in(folder: Folder, account: str) -> Issued | None:
    """The certificate in an account's bundle, None if there is none."""
    path = folder.bundle(account) / IDENTITY
    content = read_private(path)
    if content is None:
        return None
    identity = read_identity(content, path)
    return Issued(serial=f"{identity.serial:x}", until=identity.until)


def signed_with(folder: Folder, account: str) -> str | None:
    """The public key of the signing key in an account's bundle, None if there is none."""
    path = folder.bundle(account) / SIGNING
    content = read_private(path)
    return None if content is None else public_key(content, path)


def _task_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"task {path}: it cannot be copied into a bundle: {error.strerror}; give --task") from error


def _aggregator_keys(folder: Folder, record: Record, own: bytes | None) -> bytes:
    """The file of the keys that the aggregator's messages may be signed with, with the one that it has now."""
    path = folder.bundle(AGGREGATOR) / SIGNING
    newest = signed_with(folder, AGGREGATOR) if own is None else public_key(own, path)
    return "".join(f"{key}\n" for key in with_key(record.accounts[AGGREGATOR].signing, newest)).encode()


def _canonical(host: str) -> str:
    return str(address_of(host) or host.lower())
