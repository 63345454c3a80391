"""The processes that ingest.py measures: a private Mosquitto, `fedmq aggregator` on a real folder, bare subscribers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ingest_wire import Progress, connect, packets, subscribe
from safetensors.numpy import save_file

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import find_mosquitto
from fedmq.schemas.messages import AggregatorPresence, Head
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode

FEDERATION = "ingest"
_HERE = Path(__file__).parent
_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
# Nothing may be dropped; the publishers bound what waits.
max_queued_messages 0
log_dest stderr
user root
"""
_LARGEST = 64 << 20  # bytes of a message, for the aggregator; the broker takes any


class Process:
    """A child process, measured from /proc and ended by its id."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """Largest resident size since `forget_peak`."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Broker(Process):
    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        folder.mkdir(parents=True)
        configuration = folder / "mosquitto.conf"
        configuration.write_text(_CONFIGURATION.format(port=self.port))
        binary = find_mosquitto()
        if binary is None:
            raise SystemExit("no mosquitto binary was found; apt install mosquitto")
        super().__init__(start_child([binary, "-c", str(configuration)], folder / "broker.log"))
        for _ in range(200):
            try:
                connect(self.port, "first").close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the broker does not start; see {folder / 'broker.log'}")


class Aggregator(Process):
    """`fedmq aggregator`, FedBuff with K = 10, for a model of one vector of `floats`; ready when constructed.

    With `devices` everything is signed; all of them have the key `device_key`, in 64 hex digits.
    """

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        floats: int,
        *,
        publish_interval: float = 0.5,
        parts: bool = False,
        devices: Sequence[str] = (),
    ) -> None:
        self.device_key = ""
        folder.mkdir(parents=True)
        save_file({"w": np.zeros(floats, np.float32)}, folder / "init.safetensors")
        settings = folder / "federation.toml"
        settings.write_text(f"""\
federation = "{FEDERATION}"
[broker]
url = "mqtt://127.0.0.1:{broker.port}"
{"" if parts else f"max_message_bytes = {_LARGEST}"}
[aggregator]
folder = "{folder / "run"}"
init = "{folder / "init.safetensors"}"
strategy = "fedbuff"
buffer_size = 10
publish_interval = {publish_interval}
{self._signing(folder, devices) if devices else ""}
""")
        self.log = folder / "aggregator.log"
        command = [sys.executable, "-m", "fedmq", "aggregator", "--config", str(settings), "--log-level", "warning"]
        super().__init__(start_child(command, self.log))
        self.port = broker.port
        self.head = self.newest_head()

    def _signing(self, folder: Path, devices: Sequence[str]) -> str:
        own, device = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.device_key = device.private_bytes_raw().hex()
        pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "signing.pem").write_bytes(pem)
        (folder / "aggregator-keys").write_text(own.public_key().public_bytes_raw().hex() + "\n")
        public = device.public_key().public_bytes_raw().hex()
        (folder / "device-keys").write_text("".join(f"{name} {public}\n" for name in devices))
        return (
            f'[signing]\nkey_file = "{folder / "signing.pem"}"\naggregator_keys_file = "{folder / "aggregator-keys"}"\n'
            f'device_keys_file = "{folder / "device-keys"}"\n'
        )

    def newest_head(self) -> Head:
        """The head that is retained now."""
        topics = Topics(FEDERATION)
        with connect(self.port, "head") as sock:
            sock.settimeout(30)
            subscribe(sock, topics.aggregator, topics.model)
            try:
                online = False
                for topic, payload in packets(sock):
                    if topic == topics.aggregator:
                        online = decode(payload, AggregatorPresence)[0].state == "online"
                    elif topic == topics.model and online:
                        return decode(payload, Head)[0]
            except TimeoutError:
                pass
        raise SystemExit(f"the aggregator does not start; {self.log} ends with:\n{self.log.read_text()[-2000:]}")


class Publisher:
    """One process that builds updates and sends them; see ingest_publisher.py and ingest_parts.py."""

    def __init__(self, *, parts: bool = False) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(_HERE / ("ingest_parts.py" if parts else "ingest_publisher.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def give(self, job: dict[str, object]) -> None:
        self._say(json.dumps(job))

    def await_word(self, word: str) -> None:
        assert self.child.stdout is not None
        said = self.child.stdout.readline().strip()
        if said != word:
            raise SystemExit(f"a publisher said {said!r}, expected {word!r}")

    def go(self) -> None:
        self._say("go")

    def stop(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait(10)

    def _say(self, line: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()


def start_paho(port: int, progress: Path) -> Process:
    """A stock paho subscriber that only counts; subscribed on return."""
    command = [sys.executable, str(_HERE / "ingest_paho.py"), str(port), Topics(FEDERATION).updates, str(progress)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return Process(child)


def start_c(port: int) -> Process | None:
    """mosquitto_sub, which writes a line for each message; None where it is not installed."""
    binary = shutil.which("mosquitto_sub")
    if binary is None:
        return None
    command = [binary, "-p", str(port), "-q", "1", "-F", "x", "-t", Topics(FEDERATION).updates]
    return Process(subprocess.Popen(command, stdout=subprocess.PIPE))


def reset(path: Path) -> Progress:
    progress = Progress(path)
    progress.set(0)
    return progress
