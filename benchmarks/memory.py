"""How much memory an aggregator and its devices take, with models from a megabyte to a gigabyte.

    python benchmarks/memory.py --json                             # about a quarter of an hour, 8 GB of disk
    python benchmarks/memory.py --only 100MB --codec int8          # half a minute

For each size and codec a federation of real processes: Mosquitto with `max_packet_size 131072` and
`max_queued_messages 20`, so that all but the smallest goes in parts; an aggregator with FedBuff, K = 2; two numpy
clients. Snapshots travel as float32, updates as the codec says, with zstd and error feedback as by default. Before the
last version the aggregator is stopped, and another process goes on with its folder.

What is counted: `peak` is VmHWM, the kernel's own maximum of a process's resident memory, pages of mapped files
included; of the aggregator as it is, with interpreter and imports, the greater of its two processes. Of a client, what
the same process had resident when all was imported and there was no model yet is subtracted, and nothing for the
training function, which works in place and takes 256 KiB: its arrays are FedMQ's. `anonymous` and `mapped` are the
greatest RssAnon and RssFile seen in /proc/PID/status every 10 ms (of a client above what it began with); they need not
come at one moment. The bounds: 3 x model + 200 MB, and 2 x model + 50 MB. The page cache is the system's, and the
broker's memory is not FedMQ's. `stall` is the longest time between two looks of a process at its socket, training and
disk included. `seconds` is from the head that an update was trained on to its receipt.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import find_mosquitto

HERE = Path(__file__).parent
SIZES = {"1MB": 1_000_000, "100MB": 100_000_000, "1GB": 1_000_000_000}
CODECS = ("float32", "int8", "eden4")
CLIENTS = ("ada", "bob")
FIELDS = {"VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "mapped"}
MB = 1_000_000

_BROKER = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_packet_size 131072
max_queued_messages 20
log_dest stderr
user root
"""
_SETTINGS = """\
federation = "memory"
[broker]
url = "mqtt://127.0.0.1:{port}"
[plan]
codec = "{codec}"
retrain_after = 86400.0
[aggregator]
folder = "{folder}/run"
init = "{folder}/init.safetensors"
snapshot_codec = "{snapshots}"
buffer_size = 2
goal.versions = {versions}
[device]
folder = "{folder}/devices"
max_outbox_bytes = 8589934592
"""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Watched:
    """A process, and the most that was seen of its memory."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self._file = folder / f"{name}.json"
        self._log = folder / f"{name}.log"
        role = "client" if name in CLIENTS else "aggregator"
        named = ["--client-id", name] if role == "client" else []
        script = [sys.executable, str(HERE / "memory_process.py"), str(self._file), role]
        self.child: Popen[bytes] = start_child([*script, *named, *arguments], self._log)
        self.most = dict.fromkeys(FIELDS.values(), 0)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path(f"/proc/{self.child.pid}/status")
        while self.child.poll() is None:
            try:
                lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
            except OSError:
                return
            for field, name in FIELDS.items():
                self.most[name] = max(self.most[name], 1024 * int(lines.get(field, "0").split()[0]))
            time.sleep(0.01)

    def ends(self, seconds: float) -> dict[str, Any]:
        """Wait for its end; what it noted."""
        code = self.child.wait(seconds)
        if code:
            raise SystemExit(f"{self.name} ended with {code}; {self._log} ends with:\n{self.log[-2000:]}")
        said: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return said

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.log:
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} never said {text!r}; it said:\n{self.log[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


def broker(folder: Path) -> tuple[Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (folder / "mosquitto.conf").write_text(_BROKER.format(port=port))
    binary = find_mosquitto()
    if binary is None:
        raise SystemExit("no mosquitto binary was found; apt install mosquitto")
    child = start_child([binary, "-c", str(folder / "mosquitto.conf")], folder / "broker.log")
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return child, port
        except OSError:
            time.sleep(0.05)
    child.kill()
    raise SystemExit("the broker does not start")


def measured(name: str, codec: str, snapshots: str, versions: int, folder: Path) -> dict[str, Any]:
    """One row: a federation to its last version, the aggregator started twice."""
    size, patience = SIZES[name], 60.0 + SIZES[name] / 1e6
    save_file({"w": np.zeros(size // 4, np.float32)}, folder / "init.safetensors")
    mosquitto, port = broker(folder)
    settings = folder / "federation.toml"
    settings.write_text(_SETTINGS.format(port=port, codec=codec, snapshots=snapshots, folder=folder, versions=versions))
    watched: list[Watched] = []

    def start(process: str) -> Watched:
        watched.append(Watched(folder, process, "--config", str(settings)))
        return watched[-1]

    try:
        aggregator = start("aggregator")
        aggregator.says("connected", patience)
        clients = [start(client) for client in CLIENTS]
        aggregator.says(f"version={versions - 1} ", versions * patience)
        aggregator.child.terminate()
        first = aggregator.ends(patience)
        again = start("aggregator-again")
        second = again.ends(versions * patience)
        ends = [client.ends(patience) for client in clients]
    finally:
        for one in watched:
            one.stop()
        mosquitto.kill()
        mosquitto.wait()
    row: dict[str, Any] = {
        "model": name,
        "codec": codec,
        "snapshots": snapshots,
        "model_bytes": size,
        "versions": versions,
    }
    row["updates"] = sum(end["accepted"] for end in ends)
    for field in FIELDS.values():
        row[f"aggregator_{field}"] = max(aggregator.most[field], again.most[field])
        row[f"aggregator_again_{field}"] = again.most[field]
    row["aggregator_peak"] = max(row["aggregator_peak"], first["peak"], second["peak"])
    row["aggregator_bound"] = 3 * size + 200 * MB
    row["client_before"] = max(end["before"]["VmRSS"] for end in ends)
    row["client_peak"] = max(end["peak"] - end["before"]["VmRSS"] for end in ends)
    for field, kernels in (("anonymous", "RssAnon"), ("mapped", "RssFile")):
        above = (one.most[field] - end["before"][kernels] for one, end in zip(clients, ends, strict=True))
        row[f"client_{field}"] = max(above)
    row["client_bound"] = 2 * size + 50 * MB
    row["aggregator_stall_seconds"] = max(first["stall_seconds"], second["stall_seconds"])
    row["client_stall_seconds"] = max(end["stall_seconds"] for end in ends)
    row["update_seconds"] = statistics.median(second for end in ends for second in end["update_seconds"])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES, help="one size of model")
    parser.add_argument("--codec", choices=CODECS, help="one codec")
    parser.add_argument("--snapshots", default="float32", help="codec of the models (default: float32)")
    parser.add_argument("--versions", type=int, default=4, help="of each federation, at least 2 (default: 4)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    rows = []
    for name in [options.only] if options.only else SIZES:
        for codec in [options.codec] if options.codec else CODECS:
            say(f"{name} {codec}")
            with tempfile.TemporaryDirectory(prefix="fedmq-memory-", dir=options.folder) as folder:
                row = measured(name, codec, options.snapshots, options.versions, Path(folder))
            rows.append(row)
            say(", ".join(f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}"
                          for key, value in row.items()))  # fmt: skip
    print("model  codec    aggregator MB: peak (anonymous, mapped)  bound   client MB: peak (anonymous, mapped)  bound"
          "   stall s: aggregator, client   s/update")  # fmt: skip
    for row in rows:
        mb = {key: value / MB for key, value in row.items() if isinstance(value, int)}
        print(f"{row['model']:6} {row['codec']:8}"
              f" {mb['aggregator_peak']:8.0f} ({mb['aggregator_anonymous']:.0f}, {mb['aggregator_mapped']:.0f})"
              f" {mb['aggregator_bound']:8.0f}"
              f" {mb['client_peak']:8.1f} ({mb['client_anonymous']:.1f}, {mb['client_mapped']:.1f})"
              f" {mb['client_bound']:8.0f}"
              f" {row['aggregator_stall_seconds']:6.2f} {row['client_stall_seconds']:6.2f}"
              f" {row['update_seconds']:8.2f}")  # fmt: skip
    if options.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
