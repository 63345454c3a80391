"""Mosquitto as `fedmq provision` has described it, told of every change of its files while it runs."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import mosquitto_binary
from fedmq.broker_config.provision.private_files import read_private, write_private
from fedmq.broker_config.running import RunningBroker, answering, check_free, reached_at
from fedmq.schemas.errors import ConfigError, StoreError

__all__ = ["SecureBroker"]

_LISTENER = re.compile(r"^listener ([0-9]+)(?: (\S+))?$", re.MULTILINE)
_CONFIGURATION = "mosquitto.conf"
# What Mosquitto reads anew when it is told to, beside its configuration.
_READ_AGAIN = ("rules", "passwords", "revoked.pem", "identity.pem", "ca.pem")
_RUNNING = ".running.conf"
_LOG = "broker.log"

_Seen = dict[str, tuple[int, int, int] | None]


class SecureBroker:
    """A provisioned Mosquitto that runs as a child of this process; a context manager.

    Args:
        folder: a provisioned folder, or the `broker` folder of one.

    Attributes:
        running: the process; another one after a restart.

    Raises:
        ConfigError: the folder is none, or there is no Mosquitto.
        TransportError: it did not start.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = self._find(folder.resolve())
        self._done = self._seen()
        self._last = self._done
        self.running = self._start()

    def follow(self) -> str | None:
        """Look at the files, and make Mosquitto follow what has changed; what was done, for people.

        A change of its configuration restarts it. It reads all else anew, and at once: who has no password any more is
        cut off, what a connection may do follows the rules. Certificates and revocations count for new connections.
        Wants to be called again and again, a few times a second.
        """
        seen = self._seen()
        settled, self._last = seen == self._last, seen
        # Provisioning changes several files; what is half done is not read.
        if not settled or seen == self._done:
            return None
        changed = [name for name in seen if seen[name] != self._done[name]]
        self._done = seen
        if _CONFIGURATION in changed:
            self.running.stop()
            self.running = self._start()
            return "the configuration has changed: Mosquitto was started again"
        self.running.read_files_again()
        return f"{', '.join(changed)} changed: Mosquitto has read its files again"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.running.stop()

    def _find(self, folder: Path) -> Path:
        for place in (folder / "broker", folder):
            if (place / _CONFIGURATION).is_file():
                return place
        raise ConfigError(f"{folder}: no provisioned broker is in it; `fedmq provision --out {folder}` makes one")

    def _seen(self) -> _Seen:
        found: _Seen = {}
        for name in (_CONFIGURATION, *_READ_AGAIN):
            try:
                state = (self._folder / name).stat()
                found[name] = (state.st_ino, state.st_mtime_ns, state.st_size)
            except OSError:
                found[name] = None
        return found

    def _start(self) -> RunningBroker:
        path = self._folder / _CONFIGURATION
        content = read_private(path) or b""
        listener = _LISTENER.search(content.decode(errors="replace"))
        if listener is None:
            raise ConfigError(f"{path}: it has no listener; run `fedmq provision` again")
        port, host = int(listener[1]), reached_at(listener[2] or "0.0.0.0")  # noqa: S104 -- where none is named
        name = _CONFIGURATION
        if os.geteuid() == 0:
            # Else it would become the user mosquitto, to whom nothing in this folder belongs.
            name, owner = _RUNNING, _owner(self._folder)
            write_private(self._folder / name, content + f"\nuser {owner}\n".encode())
        check_free(host, port)
        log = self._folder / _LOG
        try:
            log.touch(mode=0o600)
            process = start_child([mosquitto_binary(), "-c", name], log, self._folder)
        except OSError as error:
            raise StoreError(f"{self._folder}: Mosquitto cannot be started in it: {error}") from error
        return answering(RunningBroker("mosquitto", process, {"5": port, "3.1.1": port}, log, host, "mqtts"))


def _owner(folder: Path) -> str:
    number = folder.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError as error:
        raise ConfigError(
            f"{folder}: it belongs to user {number}, who has no name on this machine, and Mosquitto cannot become"
            " somebody without one; give it to another with chown"
        ) from error
