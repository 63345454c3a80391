"""From what somebody asks for to what is decided: every mistake is found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from fedmq.broker_config.provision.client_list import check_devices
from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR, Folder
from fedmq.broker_config.provision.host_names import address_of, check_host
from fedmq.broker_config.provision.record import Account, Record
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import check_id

__all__ = ["Request", "decided"]

# X.509 gives a common name 64 characters, and a certificate's common name is the name of the account.
_LONGEST_USER = 64


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for; nothing at all means: bring the folder in order.

    Attributes:
        federation: its name; needed for a new folder.
        clients: devices that are to be there, and where they are named, for messages.
        add: more of them.
        revoke: devices that are to be out.
        renew: whose certificates are to be made anew, whatever their age.
        renew_due: make those anew that are near their end.
        renew_all: all of them.
        changes: fields of `Record` that are to be other than they were.

    """

    federation: str | None = None
    clients: tuple[str, ...] = ()
    clients_from: str = "--clients"
    add: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()
    renew: tuple[str, ...] = ()
    renew_due: bool = False
    renew_all: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


def decided(before: Record | None, request: Request, folder: Folder) -> Record:
    """The record after this request.

    Raises:
        ConfigError: it cannot be; one sentence says why.

    """
    record = _settings(before, request, folder)
    _check_federation(record)
    wanted = dict.fromkeys(check_devices(request.clients, request.clients_from), request.clients_from)
    wanted |= dict.fromkeys(check_devices(request.add, "--add"), "--add")
    for client_id, where in wanted.items():
        if client_id in record.revoked:
            raise ConfigError(
                f"{where}: client {client_id!r} was revoked, and its name with it, because messages of it may still be"
                " about; give the device another id"
            )
        if client_id in request.revoke:
            raise ConfigError(f"{where}: client {client_id!r} is to be revoked too; take it out of one of them")
        if client_id.startswith("-") and client_id not in record.accounts:
            raise ConfigError(
                f"{where}: client id {client_id!r} begins with -, as options of commands do; choose another"
            )
        if len(record.user(client_id)) > _LONGEST_USER:
            raise ConfigError(
                f"{where}: client {client_id!r} would log in as {record.user(client_id)!r}, which is"
                f" {len(record.user(client_id))} characters; a certificate's name takes {_LONGEST_USER}, so shorten one"
            )
    _check_case(record, wanted)
    record = record.with_accounts({name: Account() for name in wanted if name not in record.accounts})
    for client_id in check_devices(request.revoke, "--revoke"):
        _known(client_id, record, "--revoke", folder)
    revoked = {name: record.accounts[name].model_copy(update={"revoked": True}) for name in request.revoke}
    record = record.with_accounts(revoked)
    for account in request.renew:
        _known(account, record, "--renew", folder)
        if account in record.revoked:
            raise ConfigError(f"--renew: client {account!r} is revoked; there is nothing to renew")
    return record


def _check_federation(record: Record) -> None:
    """Raise ConfigError for a name that leaves the accounts no room which every federation has."""
    user = max(map(record.user, (AGGREGATOR, OPERATOR)), key=len)
    if len(user) > _LONGEST_USER:
        room = _LONGEST_USER - (len(user) - len(record.federation))
        raise ConfigError(
            f"federation {record.federation!r}: an account would log in as {user!r}, which is {len(user)} characters; a"
            f" certificate's name takes {_LONGEST_USER}, so begin a folder with a name of at most {room}"
        )


def _check_case(record: Record, wanted: Mapping[str, str]) -> None:
    """Raise ConfigError for a new device whose folder would be another's on a disk that ignores case.

    Also where this disk does not: the folder may be copied to one that does, and people take such ids for each other.
    """
    known = {name.lower(): name for name in record.accounts if name not in (AGGREGATOR, OPERATOR)}
    for client_id, where in wanted.items():
        other = known.setdefault(client_id.lower(), client_id)
        if other != client_id and client_id not in record.accounts:
            raise ConfigError(
                f"{where}: client ids {other!r} and {client_id!r} differ only in case, and on a disk that ignores case"
                " their folders would be one; choose another"
            )


def _settings(before: Record | None, request: Request, folder: Folder) -> Record:
    known = before
    if before is None:
        if request.federation is None or not request.clients:
            raise ConfigError(
                f"{folder.root}: no federation is in it yet; begin with --federation NAME --clients FILE, or name"
                " another folder with --out"
            )
        check_id(request.federation, "federation")
        before = Record(federation=request.federation)
    elif request.federation not in (None, before.federation):
        raise ConfigError(
            f"{folder.root}: it is the folder of federation {before.federation!r}, not of {request.federation!r};"
            " name another with --out"
        )
    for host in request.changes.get("hosts", ()):
        check_host(host)
    listen = request.changes.get("listen")
    if listen is not None and address_of(listen) is None:
        raise ConfigError(f"--listen {listen!r}: expected an IP address of the broker's machine, without a zone")
    try:
        record = Record.model_validate({**before.model_dump(), **request.changes})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        message = problem["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{option}: found {problem['input']!r}, expected: {message}") from error
    once = () if known is None else (*known.hosts_gone, *known.hosts)
    return record.model_copy(
        update={"hosts_gone": tuple(host for host in dict.fromkeys(once) if host not in record.hosts)}
    )


def _known(account: str, record: Record, option: str, folder: Folder) -> None:
    if account not in record.accounts:
        devices = record.devices
        shown = ", ".join(devices[:5]) + (f" and {len(devices) - 5} more" if len(devices) > 5 else "")
        raise ConfigError(f"{option}: client {account!r} is not in {folder.root}; there are {shown}")
