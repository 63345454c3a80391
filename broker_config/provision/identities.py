"""The authority and the broker's certificate: made where there is none, renewed when asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fedmq.broker_config.provision.bundles import IDENTITY
from fedmq.broker_config.provision.certificates import (
    Authority,
    authority_certificate,
    key_pem,
    new_key,
    read_identity,
)
from fedmq.broker_config.provision.folder import Folder
from fedmq.broker_config.provision.host_names import address_of
from fedmq.broker_config.provision.private_files import read_private, write_private
from fedmq.broker_config.provision.record import Record
from fedmq.schemas.errors import ConfigError

__all__ = ["Renewal", "broker_identity", "open_authority"]


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
    """The authority; a new certificate, still to be written, for its old key when that is due.

    Its key is made, and written, if the folder is new.

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
        begun = folder.name(folder.authority) in record.changing
        asked = renewal.due or renewal.everything
        left = read_identity(certificate, folder.authority).until - renewal.now
        if not begun and not (asked and _is_due(left, record)):
            return authority
        key = key_pem(authority.key("the authority's new certificate"))
    assert key is not None
    certificate = authority_certificate(
        record.federation, key, record.authority_days, renewal.now, folder.authority_key
    )
    return Authority(certificate, folder.authority_key)


def broker_identity(folder: Folder, record: Record, authority: Authority, renewal: Renewal) -> bytes:
    """The broker's certificate and key: as they are, or new when they are missing, due, or for other hosts."""
    path = folder.broker / IDENTITY
    content = read_private(path)
    if content is not None:
        identity = read_identity(content, path)
        begun = folder.name(path) in record.changing
        # An address may be written in several ways, and a certificate knows one.
        same = {host.lower() for host in identity.hosts} == {_canonical(host) for host in record.hosts}
        if same and not begun and not renewal.wants("", identity.until):
            return content
    return authority.issue(record.hosts[0][:64], record.server_days, renewal.now, record.hosts)


def _is_due(left: timedelta, record: Record) -> bool:
    """Whether an authority that has this much left is to be renewed.

    It is when a device's certificate does not fit into its lifetime any more: early, because its successor has to reach
    every device before it ends. Where that never fits, one that lasts hardly longer is not worth the way to them all.
    """
    whole = timedelta(days=record.authority_days)
    gain = min(timedelta(days=record.renew_days), whole / 2)
    return left < timedelta(days=record.device_days) and whole - left >= gain


def _canonical(host: str) -> str:
    return str(address_of(host) or host.lower())
