"""`provision.json`: what was decided for a federation. All else in the folder follows from it, or is a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR, Folder
from fedmq.broker_config.provision.private_files import read_private, write_private
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import ID_PATTERN

__all__ = ["DEFAULT_HOSTS", "Account", "Issued", "Login", "Record", "read_record", "write_record"]

Login = Literal["both", "certificate", "password"]

DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")

_Id = Annotated[str, Field(pattern=ID_PATTERN)]
_Days = Annotated[int, Field(ge=1, le=36_500)]


class Issued(BaseModel):
    """A certificate that was issued to an account.

    Attributes:
        serial: its number, in hex.
        until: the end of its lifetime, UTC.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    until: datetime


class Account(BaseModel):
    """Somebody who may, or might once, log in.

    Attributes:
        issued: its certificates that have not ended, or not long ago; none until its bundle is made.
        signing: public keys that its messages may be signed with, 64 hex digits each, the newest last.
        revoked: it is out, for good.
        cleared: when it was revoked, what it left on the broker was removed.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issued: tuple[Issued, ...] = ()
    signing: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    revoked: bool = False
    cleared: bool = False


class Record(BaseModel):
    """What was decided.

    Attributes:
        federation: its name.
        hosts: under which devices reach the broker; its certificate names all of them, bundles the first.
        port: of the broker.
        listen: the address that the broker listens on; None for all of its machine.
        login: what the broker asks for.
        authority_days, server_days, device_days: lifetimes of certificates.
        renew_days: a certificate that ends within this time is due.
        memory_bytes: that the broker may take.
        task: the task file, which is copied into new bundles; None leaves it to whoever has the bundle.
        accounts: the aggregator, the operator and every device that ever was.
        changing: files, and folders that are new or go, that runs have begun to change and have not told of yet; paths
            in the folder. Its own is there while it is new.
        hosts_gone: names that were among `hosts`, which runs have not told of yet.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    federation: _Id
    hosts: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_HOSTS
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    listen: str | None = None
    login: Login = "both"
    authority_days: _Days = 3650
    server_days: _Days = 397
    device_days: _Days = 730
    renew_days: _Days = 60
    memory_bytes: Annotated[int, Field(ge=16 << 20, le=1 << 40)] = 1 << 30
    task: str | None = None
    accounts: dict[_Id, Account] = Field(default_factory=lambda: {AGGREGATOR: Account(), OPERATOR: Account()})
    changing: tuple[str, ...] = ()
    hosts_gone: tuple[str, ...] = ()

    @property
    def active(self) -> tuple[str, ...]:
        """Every account that may log in, the aggregator and the operator first."""
        return tuple(name for name, account in self.accounts.items() if not account.revoked)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that may log in."""
        return tuple(name for name in self.active if name not in (AGGREGATOR, OPERATOR))

    @property
    def revoked(self) -> tuple[str, ...]:
        """The devices that may not any more."""
        return tuple(name for name, account in self.accounts.items() if account.revoked)

    @property
    def uncleared(self) -> tuple[str, ...]:
        """Revoked devices of which something may still be on the broker."""
        return tuple(name for name, account in self.accounts.items() if account.revoked and not account.cleared)

    def user(self, account: str) -> str:
        """The name that an account logs in with.

        A dot stands in no id, so names of two federations never meet on a broker that they share.
        """
        return f"{self.federation}.{account}"

    def with_accounts(self, changed: Mapping[str, Account]) -> Record:
        """The same with these accounts new or in place of those that there are."""
        return self.model_copy(update={"accounts": {**self.accounts, **changed}})

    def with_changing(self, paths: Iterable[str]) -> Record:
        """The same with these paths noted too."""
        return self.model_copy(update={"changing": tuple(sorted({*self.changing, *paths}))})


def read_record(folder: Folder) -> Record | None:
    """The record of the folder, None if it has none; raises ConfigError for one that cannot be understood."""
    content = read_private(folder.record)
    if content is None:
        return None
    try:
        return Record.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise ConfigError(
            f"{folder.record}: {place}: {problem['msg']}; put the file back from a copy, it is written by fedmq only"
        ) from error


def write_record(folder: Folder, record: Record) -> bool:
    """Make this the folder's record; whether it was another before."""
    return write_private(folder.record, record.model_dump_json(indent=1).encode() + b"\n")
