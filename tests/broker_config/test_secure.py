"""A provisioned broker at work: whom it runs as, which configuration it takes, what its log may become, how it ends."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmq.broker_config import log_file, mosquitto, restarts
from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.broker_config.secure import SecureBroker
from fedmq.schemas.errors import ConfigError, TransportError
from tests.security.ground import free_port, settle
from tests.security.peers import Login, Peer
from tests.system.processes import PATIENCE, until

pytestmark = pytest.mark.broker
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
linux = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and the parent-death signal")

NOWHERE = "192.0.2.1"
"""An address for documents, which no machine has."""


@dataclass(frozen=True)
class Provisioned:
    """A federation f of dev-1 and dev-2.

    Attributes:
        root: its folder.
        port: the broker's.
        logins: of the two devices.

    """

    root: Path
    port: int
    logins: dict[str, Login]

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def log(self) -> Path:
        return self.broker / "broker.log"

    @property
    def warnings(self) -> Path:
        """What the command says of errors and warnings."""
        return self.root.parent / "warnings"

    def change(self, **fields: object) -> None:
        provision(self.root, Request(**fields), datetime.now(UTC))  # type: ignore[arg-type]

    def edit(self, change: Callable[[str], str]) -> None:
        """Change the configuration by hand."""
        path = self.broker / "mosquitto.conf"
        path.write_text(change(path.read_text()))

    def lets_in(self, name: str) -> bool:
        with Peer(self.logins[name], self.port, name) as peer:
            return peer.there

    def lets_anybody_in(self) -> bool:
        """Whether there is no need of a name and a password."""
        login = self.logins["dev-1"]
        with Peer(Login(None, None, login.identity, login.authority), self.port, "anybody") as peer:
            return peer.there


@pytest.fixture
def made(mosquitto_installed: None, tmp_path: Path) -> Provisioned:
    folder, port = tmp_path / "secure", free_port()
    request = Request("f", clients=("dev-1", "dev-2"), changes={"port": port, "listen": "127.0.0.1"})
    provision(folder, request, datetime.now(UTC))
    logins = {}
    for name in ("dev-1", "dev-2"):
        kept = (folder / "devices" / name).rename(tmp_path / name)  # as if it were on the device's machine
        logins[name] = Login.of(kept, f"f.{name}")
    return Provisioned(folder, port, logins)


@pytest.fixture
def given(made: Provisioned) -> pwd.struct_passwd:
    """A user to whom the broker's folder was given, as mosquitto.conf says."""
    try:
        user = pwd.getpwnam("mosquitto")
    except KeyError:
        user = pwd.getpwnam("nobody")
    for path in (made.broker, *made.broker.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    return user


@pytest.fixture
def in_groups() -> Iterator[None]:
    """This process is in groups beside its own, which are nobody else's business."""
    before = os.getgroups()
    os.setgroups([0, 12345])
    yield
    os.setgroups(before)


def opened_up(text: str) -> str:
    """A configuration that lets in who has a certificate, without a name."""
    return text.replace("allow_anonymous false", "allow_anonymous true").replace("use_username_as_clientid true\n", "")


def ids(pid: int) -> dict[str, set[int]]:
    """Whom a process runs as, in every respect."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {
        name: set(map(int, re.findall(rf"^{name}:(.*)$", text, re.M)[0].split())) for name in ("Uid", "Gid", "Groups")
    }


@root
@linux
def test_root_runs_it_as_the_folders_owner_who_still_reads_what_root_changes(
    made: Provisioned, given: pwd.struct_passwd, in_groups: None
) -> None:
    with SecureBroker(made.root) as broker:
        assert ids(broker.running.pid) == {"Uid": {given.pw_uid}, "Gid": {given.pw_gid}, "Groups": set()}
        assert broker.warnings == []
        assert made.lets_in("dev-2")
        made.change(revoke=("dev-2",))
        assert settle(broker) == "rules, passwords, revoked.pem changed: Mosquitto has read its files again"
        assert made.lets_in("dev-1")
        assert not made.lets_in("dev-2")
    assert {path.stat().st_uid for path in (made.broker, *made.broker.rglob("*"))} == {given.pw_uid}
    with SecureBroker(made.root):
        assert made.lets_in("dev-1")


def test_a_port_that_is_taken_is_said_with_how_to_choose_another(made: Provisioned) -> None:
    with socket.create_server(("127.0.0.1", made.port)):
        for folder, out in ((made.root, made.root), (made.broker, "DIR")):
            with pytest.raises(TransportError) as caught:
                SecureBroker(folder)
            assert str(caught.value) == (
                f"port {made.port} of this machine is in use; stop what listens there, or choose another: `fedmq"
                f" provision --out {out} --port N` changes it, in the bundles too"
            )


@root
def test_that_it_runs_as_root_is_said(made: Provisioned) -> None:
    with SecureBroker(made.root) as broker:
        (warning,) = broker.warnings
    assert warning == (
        f"Mosquitto runs as root, because {made.broker} is root's; stop it, give it a user of its own with `chown -R"
        f" mosquitto {made.broker}`, and start it again"
    )


@root
@linux
def test_a_broker_of_another_user_dies_with_its_parent_too(made: Provisioned, given: pwd.struct_passwd) -> None:
    with command(made) as process:
        process.kill()

    def silent() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", made.port)) != 0

    until(silent, "the broker to die")


@root
def test_a_log_that_its_owner_made_a_link_leads_root_nowhere(
    made: Provisioned, given: pwd.struct_passwd, tmp_path: Path
) -> None:
    target = tmp_path / "roots"
    target.write_text("root's")
    target.chmod(0o600)
    with SecureBroker(made.root) as broker:
        made.log.unlink()
        made.log.symlink_to(target)
        os.lchown(made.log, given.pw_uid, given.pw_gid)
        made.edit(lambda text: f"{text}# a change\n")
        assert "Mosquitto was started again" in settle(broker)
        assert not made.lets_anybody_in()  # which is a line of the log
    made.log.unlink()
    for lead in (made.log.symlink_to, made.log.hardlink_to):
        lead(target)
        with pytest.raises(ConfigError, match=r"broker\.log: it "):
            SecureBroker(made.root)
        made.log.unlink()
    assert target.read_text() == "root's"


def test_what_it_cannot_read_again_is_told_in_its_own_words(made: Provisioned) -> None:
    with SecureBroker(made.root) as broker:
        (made.broker / "passwords").unlink()
        said = settle(broker)
    assert said.startswith("passwords changed, but Mosquitto could not read its files again, and may turn everybody aw")
    assert "pwfile" in said
    assert said.endswith(f"(log: {made.log})")


def test_a_configuration_that_mosquitto_refuses_leaves_the_one_from_before_at_work(made: Provisioned) -> None:
    with SecureBroker(made.root) as broker:
        before = broker.running.pid
        made.change(changes={"listen": NOWHERE})
        said = settle(broker)
        assert "started again with the one from before, because it does not start with this one: the mosq" in said
        assert "Cannot assign requested address" in said
        assert broker.running.pid != before
        assert made.lets_in("dev-1")
        made.edit(lambda text: text.replace(f"listener {made.port}", "listener"))
        assert settle(broker).endswith("; until then Mosquitto goes on with the configuration from before")
        made.change(changes={"listen": "127.0.0.1"})
        assert settle(broker) == "the configuration has changed: Mosquitto was started again"
        assert made.lets_in("dev-1")


def test_a_weakened_configuration_is_not_started_unless_insecure_is_said(made: Provisioned) -> None:
    made.edit(opened_up)
    with pytest.raises(ConfigError) as caught:
        SecureBroker(made.root)
    weakness = (
        f"{made.broker}/mosquitto.conf: it is not as `fedmq provision` writes it (`allow_anonymous false` is missing,"
        f" `use_username_as_clientid true` is missing, `allow_anonymous true` was added), so whoever reaches port"
        f" {made.port} of 127.0.0.1 may be able to read and write everything"
    )
    assert str(caught.value) == f"{weakness}; run `fedmq provision` again, or say --insecure"
    with SecureBroker(made.root, insecure=True) as broker:
        assert weakness in broker.warnings
        assert made.lets_anybody_in()


def test_a_running_broker_is_not_weakened_when_it_reads_its_files_again(made: Provisioned) -> None:
    with SecureBroker(made.root) as broker:
        running = broker.running
        made.edit(lambda text: text.replace("acl_file rules\n", ""))
        said = settle(broker)
        assert "`acl_file rules` is missing" in said
        assert said.endswith("; until then Mosquitto goes on with the configuration from before")
        # Told to read its files again, Mosquitto reads its configuration too.
        (made.broker / "rules").write_text((made.broker / "rules").read_text() + "# a change\n")
        assert settle(broker) == "rules changed: Mosquitto has read its files again"
        with Peer(made.logins["dev-1"], made.port, "dev-1") as peer:
            assert peer.publish("fedmq/f/update/dev-1", b"its own")
            assert peer.publish("fedmq/f/model", b"another's") is False
        assert broker.running is running


def test_revocation_and_a_weakened_configuration_at_once(made: Provisioned) -> None:
    """The one is followed, the other is not."""
    with SecureBroker(made.root) as broker:
        (made.broker / "passwords").write_text("")
        made.edit(lambda text: text.replace("acl_file rules\n", ""))
        assert "`acl_file rules` is missing" in settle(broker)
        assert settle(broker) == "passwords changed: Mosquitto has read its files again"
        assert not made.lets_in("dev-1")


def test_a_broker_that_is_killed_is_started_again_and_knows_what_changed_meanwhile(made: Provisioned) -> None:
    with SecureBroker(made.root) as broker:
        before = broker.running
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: not before.running, "its end")
        made.change(revoke=("dev-2",))
        assert settle(broker) == (
            f"Mosquitto is started again in 1 s: it was ended by signal 9 (Killed) (log: {made.log})"
        )
        assert settle(broker) == "Mosquitto was started again"
        assert broker.running.pid != before.pid
        assert made.lets_in("dev-1")
        assert not made.lets_in("dev-2")
        assert "rules, passwords, revoked.pem changed" in settle(broker)


def test_a_broker_that_ends_while_it_reads_its_files_again_is_started_again(made: Provisioned) -> None:
    with SecureBroker(made.root) as broker:
        read = broker.running.read_files_again

        def crashes() -> None:
            read()
            broker.running.kill()

        broker.running.read_files_again = crashes  # type: ignore[method-assign]
        made.change(revoke=("dev-2",))
        assert "signal 9" in settle(broker)
        assert settle(broker) == "Mosquitto was started again"
        assert not made.lets_in("dev-2")
        assert made.lets_in("dev-1")


def test_a_broker_that_cannot_be_started_again_is_given_up(made: Provisioned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "_FIRST_SECONDS", 0.01)
    with SecureBroker(made.root) as broker:
        (made.broker / "passwords").unlink()
        broker.running.kill()
        said = [settle(broker) for _ in range(4)]
        assert "was ended by signal 9" in said[0]
        assert all("could not be started: the mosquitto broker ended while starting" in line for line in said[1:])
        with pytest.raises(TransportError, match=r"ended 5 times, each within 60 s of its start; at last it could not"):
            settle(broker)


@pytest.mark.parametrize("away", ["the log", "the binary"])
def test_what_is_away_for_a_moment_ends_no_back_off(
    made: Provisioned, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    monkeypatch.setattr(restarts, "_FIRST_SECONDS", 0.01)
    with SecureBroker(made.root) as broker:
        passwords = (made.broker / "passwords").read_bytes()
        with monkeypatch.context() as patch:
            if away == "the log":
                broker.running.log.unlink()
                (made.broker / "passwords").unlink()
            else:
                patch.setattr(mosquitto, "find_mosquitto", lambda: None)
            broker.running.kill()
            assert "was ended by signal 9" in settle(broker)
            assert "could not be started" in settle(broker)
        (made.broker / "passwords").write_bytes(passwords)
        assert settle(broker) == "Mosquitto was started again"


@linux
def test_the_command_starts_it_again(made: Provisioned) -> None:
    with command(made) as process:
        (mosquitto,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(mosquitto), signal.SIGKILL)
        assert process.stdout is not None
        assert "Mosquitto is started again in 1 s: it" in process.stdout.readline()
        assert process.stdout.readline() == "Mosquitto was started again\n"
        assert made.lets_in("dev-1")


def test_the_log_keeps_its_newest_part(made: Provisioned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "_MAX_BYTES", 10_000)

    def strangers(number: int) -> None:
        for _ in range(number):
            with socket.create_connection(("127.0.0.1", made.port)) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                with suppress(ConnectionResetError):
                    sock.recv(1)  # the end

    with SecureBroker(made.root) as broker:
        strangers(1)
        assert broker.follow() is None
        before = made.log.read_text()
        while made.log.stat().st_size <= 10_000:
            strangers(20)
        whole = made.log.read_text()
        assert whole.startswith(before)
        assert broker.follow() is None
        kept = made.log.read_text()
        assert 4_000 < len(kept) <= 5_000
        assert whole.endswith(f"\n{kept}")
        assert made.lets_in("dev-1")
        assert "as f.dev-1" in made.log.read_text().removeprefix(kept)  # it goes on at the new end
    assert made.log.stat().st_mode & 0o777 == 0o600


def test_the_command_says_how_safe_it_is(made: Provisioned) -> None:
    made.edit(lambda text: text.replace("acl_file rules\n", ""))
    with command(made, "--insecure"):
        until(lambda: "`acl_file rules` is missing" in made.warnings.read_text(), "a warning")
    refused = subprocess.run(
        [sys.executable, "-m", "fedmq", "broker", "--secure", str(made.root)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "`acl_file rules` is missing" in refused.stderr


def test_the_command_says_that_the_certificate_has_ended(made: Provisioned) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=3)
    (made.broker / "identity.pem").unlink()
    provision(made.root, Request(changes={"server_days": 1}), long_ago)
    with command(made):
        until(lambda: "warning: the broker's certificate ended at " in made.warnings.read_text(), "a warning")
    assert f"`fedmq provision --out {made.root} --renew` renews it\n" in made.warnings.read_text()


@contextmanager
def command(made: Provisioned, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`fedmq broker --secure` at work; killed at the end."""
    with (
        made.warnings.open("w") as warnings,
        subprocess.Popen(
            [sys.executable, "-m", "fedmq", "broker", "--secure", str(made.root), *options],
            stdout=subprocess.PIPE,
            stderr=warnings,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"mosquitto at mqtts://localhost:{made.port}, with the rules")
            yield process
        finally:
            process.kill()
