"""A Mosquitto of one's own, as the page on operation sets it up: its commands, below another root, on Debian's file."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import mosquitto_binary
from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.broker_config.running import RunningBroker, answering
from tests.security.ground import free_port
from tests.security.peers import Login, Peer
from tests.system.processes import until

PAGE = Path(__file__).parents[2] / "docs" / "operation.md"
DEBIAN = """\
pid_file {root}/run/mosquitto/mosquitto.pid

persistence true
persistence_location {root}/var/lib/mosquitto/

log_dest file {root}/var/log/mosquitto/mosquitto.log

include_dir {root}/etc/mosquitto/conf.d
"""


def commands(number: int) -> list[str]:
    """Those of the section's first or second block, but for the service's."""
    section = PAGE.read_text(encoding="utf-8").partition("## A Mosquitto of your own")[2]
    block = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[number]
    lines = [line.removeprefix("$ ").replace("sudo ", "") for line in block.splitlines()]
    return [line for line in lines if not line.startswith("systemctl")]


def run(number: int, folder: Path, root: Path) -> None:
    for line in commands(number):
        subprocess.run(
            ["bash", "-ec", f"set -o pipefail; {line.replace('/etc/', f'{root}/etc/')}"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=30,
        )


@pytest.fixture
def others_may_enter() -> Iterator[Path]:
    """A folder, as tmp_path is, which the user mosquitto can reach too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.broker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to mosquitto, and Mosquitto becomes it")
def test_the_commands_of_the_page_make_debians_mosquitto_the_federations(
    mosquitto_installed: None, tmp_path: Path, others_may_enter: Path
) -> None:
    try:
        user = pwd.getpwnam("mosquitto")
    except KeyError:
        pytest.skip("there is no user mosquitto")
    root = others_may_enter / "root"
    for name in ("etc/mosquitto/conf.d", "run/mosquitto", "var/lib/mosquitto", "var/log/mosquitto"):
        (root / name).mkdir(parents=True)
        os.chown(root / name, user.pw_uid, user.pw_gid)
    configuration = root / "etc/mosquitto/mosquitto.conf"
    configuration.write_text(DEBIAN.format(root=root))
    port, folder = free_port(), tmp_path / "secure"
    changes = {"port": port, "listen": "127.0.0.1"}
    provision(folder, Request("f", clients=("dev-1", "dev-2"), changes=changes), datetime.now(UTC))
    kept = {name: (folder / "devices" / name).rename(tmp_path / name) for name in ("dev-1", "dev-2")}
    logins = {name: Login.of(place, f"f.{name}") for name, place in kept.items()}
    run(0, tmp_path, root)

    log = tmp_path / "log"
    process = start_child([mosquitto_binary(), "-c", str(configuration)], log)
    broker = answering(RunningBroker("mosquitto", process, dict.fromkeys(("5", "3.1.1"), port), log, scheme="mqtts"))
    with broker:
        assert Path(f"/proc/{broker.pid}").stat().st_uid == user.pw_uid
        for name, login in logins.items():
            with Peer(login, port, name) as peer:
                assert peer.there
                assert peer.publish(f"fedmq/f/update/{name}", b"its own")
                assert peer.publish("fedmq/f/model", b"another's") is False
        provision(folder, Request(revoke=("dev-2",)), datetime.now(UTC))
        run(1, tmp_path, root)
        broker.read_files_again()

        def is_out() -> bool:
            with Peer(logins["dev-2"], port, "dev-2") as peer:
                return not peer.there

        until(is_out, "dev-2 to be out")
        with Peer(logins["dev-1"], port, "dev-1") as peer:
            assert peer.there
