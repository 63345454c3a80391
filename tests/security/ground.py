"""A provisioned federation with a real Mosquitto: everybody's login, and an eye that sees and may everything."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.broker_config.secure import SecureBroker
from tests.security.peers import Got, Login, Peer
from tests.system.processes import until

FEDERATION = "f"
EYE = "eye"
GONE = "gone"
"""A device that is revoked."""


@dataclass(frozen=True)
class Ground:
    """Attributes:
    folder: the provisioned one.
    port: the broker's.
    broker: that runs.
    gone: the bundle that the revoked device still has.
    other: a folder of another authority, with the same names.

    """

    folder: Path
    port: int
    broker: SecureBroker
    gone: Path
    other: Path

    def login(self, account: str) -> Login:
        """An account's own login."""
        bundle = self.folder / account if account in ("aggregator", "operator") else self.folder / "devices" / account
        return Login.of(self.gone if account == GONE else bundle, f"{FEDERATION}.{account}")

    def stranger(self, account: str) -> Login:
        """An account's name and password, with a certificate of another authority."""
        return replace(self.login(account), identity=self.other / "devices" / account / "identity.pem")

    def peer(self, account: str, client_id: str | None = None, *, version: str = "5", will: str | None = None) -> Peer:
        """A client with an account's own login, still to be connected."""
        return Peer(self.login(account), self.port, client_id or f"f-{account}", version=version, will=will)


Change = Callable[[str], str]


@contextlib.contextmanager
def ground(folder: Path, login: str = "both", rules: Change = str, configuration: Change = str) -> Iterator[Ground]:
    """A federation with dev-1, dev-2 and one that was revoked; its broker runs.

    `rules` and `configuration` may change those files before: to see what the tests find then.
    """
    port = free_port()
    made = folder / "provisioned"
    changes = {"port": port, "listen": "127.0.0.1", "login": login}
    now = datetime.now(UTC)
    provision(made, Request(FEDERATION, clients=("dev-1", "dev-2", GONE, EYE), changes=changes), now)
    provision(folder / "other", Request(FEDERATION, clients=("dev-1", "dev-2"), changes=changes), now)
    gone = folder / "gone"
    shutil.copytree(made / "devices" / GONE, gone)
    provision(made, Request(revoke=(GONE,)), now)
    _edit(made / "broker" / "rules", lambda text: rules(_with_an_eye(text)))
    _edit(made / "broker" / "mosquitto.conf", configuration)
    with SecureBroker(made, insecure=configuration is not str) as broker:
        yield Ground(made, port, broker, gone, folder / "other")


def settle(broker: SecureBroker) -> str:
    """Let the broker follow what has changed; what it did."""
    done: list[str] = []

    def followed() -> bool:
        done.extend(filter(None, [broker.follow()]))
        return bool(done)

    until(followed, "a change to be followed")
    return done[0]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def seen_between(eye: Peer, action: Callable[[], object]) -> list[Got]:
    """What the eye sees of what is done, which has been answered when it returns."""
    start = len(eye.got)
    action()
    eye.publish("eye/fence", str(start).encode())
    eye.waits_for(lambda got: got.topic == "eye/fence" and got.payload == str(start).encode())
    return [got for got in eye.got[start:] if not got.topic.startswith(("eye/", "$SYS/"))]


def _with_an_eye(text: str) -> str:
    name = re.escape(f"user {FEDERATION}.{EYE}\n")
    return re.sub(rf"({name})(?:topic .*\n)*", r"\1topic readwrite #\ntopic read $SYS/#\n", text)


def _edit(path: Path, change: Change) -> None:
    path.write_text(change(path.read_text()))
