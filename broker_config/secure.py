"""Mosquitto as `fedmq provision` has described it, told of every change of its files, and started again when it ends.

Where root starts it, it runs as the user to whom its folder belongs, and from its first instruction on: that user may
be broken into, and must not become root by what he leaves in that folder. So root makes new files there and follows no
link. What runs is a copy of the configuration that was looked at, because Mosquitto reads it anew with everything else.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

from fedmq.broker_config.child import User, start_child
from fedmq.broker_config.log_file import LogFile
from fedmq.broker_config.mosquitto import mosquitto_binary
from fedmq.broker_config.provision.folder import Folder
from fedmq.broker_config.provision.private_files import write_private
from fedmq.broker_config.provision.record import Login, Record, read_record
from fedmq.broker_config.provision.safe_folder import without_links
from fedmq.broker_config.restarts import MOST_ENDS, SOON_SECONDS, Restarts
from fedmq.broker_config.running import RunningBroker, answering, check_free, reached_at
from fedmq.broker_config.secure_configuration import SecureConfiguration, read_configuration
from fedmq.schemas.errors import ConfigError, StoreError, TransportError

__all__ = ["SecureBroker", "other_port"]

_CONFIGURATION = "mosquitto.conf"
# What Mosquitto reads anew when it is told to, beside its configuration.
_READ_AGAIN = ("rules", "passwords", "revoked.pem", "identity.pem", "ca.pem")
_RUNNING = ".running.conf"
_LOG = "broker.log"
# It reads within a tenth of a second, unless the machine is very busy, and says only what went wrong.
_READING_SECONDS = 1.0
_WENT_WRONG = re.compile(r"^[0-9]+: (Error\b.*)$")

_Seen = dict[str, tuple[int, int, int] | None]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Mosquitto was told to read these files again, when its log had this size; what it says is looked at then."""

    names: str
    log_size: int
    until: float


class SecureBroker:
    """A provisioned Mosquitto that runs as a child of this process; a context manager.

    Args:
        folder: a provisioned folder, or the `broker` folder of one.
        insecure: run it also with a configuration that lets in or allows more than the provisioned one.

    Attributes:
        running: the process; another one after a restart.
        record: what was decided when the folder was provisioned; None where only the broker's files are.

    Raises:
        ConfigError: the folder is none, its configuration is not the provisioned one, or there is no Mosquitto.
        StoreError: a file cannot be read or written.
        TransportError: it did not start.

    """

    def __init__(self, folder: Path, *, insecure: bool = False) -> None:
        self._root = folder
        self._folder = _find(folder.resolve())
        self._user = _user(self._folder)
        self._insecure = insecure
        self._reading: _Reading | None = None
        self._start_at: float | None = None
        self._done = self._last = self._seen()
        self._configuration = self._read()
        self._log = LogFile(self._folder / _LOG, self._user)
        try:
            self.running = self._start(self._configuration)
        except BaseException:
            self._log.close()
            raise
        self._restarts = Restarts(time.monotonic())

    @property
    def certificate(self) -> Path:
        """The file with the broker's certificate."""
        return self._folder / "identity.pem"

    @property
    def warnings(self) -> list[str]:
        """What people should know of how it runs."""
        found = [] if self._configuration.weakness is None else [self._configuration.weakness]
        if os.geteuid() == 0 and self._user is None:
            found.append(
                f"Mosquitto runs as root, because {self._folder} is root's; stop it, give it a user of its own with"
                f" `chown -R mosquitto {self._folder}`, and start it again"
            )
        return found

    def follow(self) -> str | None:
        """Look at Mosquitto and its files, and make it follow what has changed; what was done, for people.

        A change of its configuration restarts it; with one that it does not take, or that is not safe, it goes on as
        before. It reads all else anew, and at once: who has no password any more is cut off, what a connection may do
        follows the rules. Certificates and revocations count for new connections. If it has ended by itself, it is
        started again, after a second at first. Wants to be called again and again, a few times a second.

        Raises TransportError if it ends again and again, or does not start with the configuration either with which it
        ran before.
        """
        if not self.running.running:
            return self._revive(time.monotonic())
        if self._reading is not None:
            return self._read_again(self._reading)
        self._log.keep_newest()
        seen = self._seen()
        settled, self._last = seen == self._last, seen
        # Provisioning changes several files; what is half done is not read.
        if not settled or seen == self._done:
            return None
        changed = [name for name in seen if seen[name] != self._done[name]]
        self._done = seen
        said = None
        if _CONFIGURATION in changed:
            changed.remove(_CONFIGURATION)
            try:
                return self._start_again(self._read())
            except (ConfigError, StoreError) as error:
                said = f"{error}; until then Mosquitto goes on with the configuration from before"
        if changed:
            self._reading = _Reading(", ".join(changed), self._log.size, time.monotonic() + _READING_SECONDS)
            self.running.read_files_again()
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.running.stop()
        self._log.close()

    def _seen(self) -> _Seen:
        found: _Seen = {}
        for name in (_CONFIGURATION, *_READ_AGAIN):
            try:
                state = (self._folder / name).stat()
                found[name] = (state.st_ino, state.st_mtime_ns, state.st_size)
            except OSError:
                found[name] = None
        return found

    def _read(self) -> SecureConfiguration:
        """The configuration, if it may run; raises ConfigError and StoreError."""
        self.record = _record(self._root)
        logins = get_args(Login) if self.record is None else (self.record.login,)
        found = read_configuration(self._folder / _CONFIGURATION, logins)
        if found.weakness is not None and not self._insecure:
            raise ConfigError(f"{found.weakness}; run `fedmq provision` again, or say --insecure")
        return found

    def _start_again(self, changed: SecureConfiguration) -> str:
        self.running.stop()
        try:
            self.running = self._start(changed)
        except (TransportError, StoreError) as error:
            self.running = self._start(self._configuration)
            return (
                "the configuration has changed, and Mosquitto was started again with the one from before, because it"
                f" does not start with this one: {error}"
            )
        self._configuration = changed
        weakness = "" if changed.weakness is None else f"; warning: {changed.weakness}"
        return f"the configuration has changed: Mosquitto was started again{weakness}"

    def _revive(self, now: float) -> str | None:
        if self._start_at is None:
            return self._ended(f"{self.running.end} (log: {self._log.path})", now)
        if now < self._start_at:
            return None
        try:
            # As it was: what has changed meanwhile is followed after that.
            self.running = self._start(self._configuration)
        except (ConfigError, TransportError, StoreError) as error:  # the binary too may be away for a moment
            return self._ended(f"could not be started: {error}", time.monotonic())
        self._start_at = None
        self._restarts.started(time.monotonic())
        return "Mosquitto was started again"

    def _ended(self, how: str, now: float) -> str:
        self._reading = None  # it reads everything when it starts
        wait = self._restarts.ended(now)
        if wait is None:
            raise TransportError(
                f"Mosquitto has ended {MOST_ENDS} times, each within {SOON_SECONDS:g} s of its start; at last it {how}"
            )
        self._start_at = now + wait
        return f"Mosquitto is started again in {wait:g} s: it {how}"

    def _start(self, configuration: SecureConfiguration) -> RunningBroker:
        content, host = configuration.content, reached_at(configuration.listen)
        if os.geteuid() == 0 and self._user is None:
            # Else it would become the user mosquitto, to whom nothing in this folder belongs.
            content += b"\nuser root\n"
        write_private(self._folder / _RUNNING, content)
        check_free(host, configuration.port, f"choose another: {other_port(self._root)}")
        command = [mosquitto_binary(), "-c", _RUNNING]
        try:
            process = start_child(command, self._log.fileno(), self._folder, self._user)
        except OSError as error:
            raise StoreError(f"{self._folder}: Mosquitto cannot be started in it: {error}") from error
        ports = dict.fromkeys(("5", "3.1.1"), configuration.port)
        return answering(RunningBroker("mosquitto", process, ports, self._log.path, host, "mqtts"))

    def _read_again(self, reading: _Reading) -> str | None:
        """What came of it, when Mosquitto has had the time for it."""
        if time.monotonic() < reading.until:
            return None
        self._reading = None
        wrong = [found[1] for line in self._log.since(reading.log_size) if (found := _WENT_WRONG.match(line))]
        if wrong:
            return (
                f"{reading.names} changed, but Mosquitto could not read its files again, and may turn everybody away:"
                f" {'; '.join(dict.fromkeys(wrong))} (log: {self._log.path})"
            )
        return f"{reading.names} changed: Mosquitto has read its files again"


def other_port(folder: Path) -> str:
    """How a provisioned broker gets another port; with DIR where only the broker's files are in the folder."""
    out = folder if _record(folder) is not None else "DIR"
    return f"`fedmq provision --out {out} --port N` changes it, in the bundles too"


def _find(folder: Path) -> Path:
    for place in (folder / "broker", folder):
        if os.path.isfile(place / _CONFIGURATION):
            return place
    raise ConfigError(f"{folder}: no provisioned broker is in it; `fedmq provision --out {folder}` makes one")


def _record(folder: Path) -> Record | None:
    # Where Mosquitto's user runs this, the broker's files may be all that he may read.
    with contextlib.suppress(StoreError):
        return read_record(Folder(without_links(folder)))
    return None


def _user(folder: Path) -> User | None:
    """Whom Mosquitto runs as, None for this process's user: what it reads belongs to the folder's owner."""
    number = folder.stat().st_uid
    if os.geteuid() != 0 or number == 0:
        return None
    try:
        return User(number, pwd.getpwuid(number).pw_gid)
    except KeyError as error:
        raise ConfigError(
            f"{folder}: it belongs to user {number}, who has no name and no group on this machine, and Mosquitto cannot"
            " run as somebody without; give it to another with chown"
        ) from error
