"""What keeping its word costs the aggregator's disk, and a device's: commits, bytes, stalls, restarts.

    python benchmarks/commit.py --json
    python benchmarks/commit.py --only 1MB

For each size of model and buffer size K: updates are judged by the real core and committed by the real store and
writer, as the service does it, a commit for each update. `written/update` counts what the kernel was asked to write to
the disk (/proc/self/io). `longest stall` is the longest time in which the aggregator would not have read from its
connection: a commit that is written at once, or the copy of one that a thread writes. `to serving` is from opening the
folder to a state that judges updates. A device's row is one update through its outbox, added and then deleted.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import fedbuff
from fedmq.aggregator.writer import Writer
from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import Offer, UpdateId

SIZES = {"10KB": 10_000, "1MB": 1_000_000, "100MB": 100_000_000, "1GB": 1_000_000_000}
BUFFERS = (1, 10, 100)
RUN = "0" * 32


def layout_of(size: int) -> Layout:
    return Layout.of([Entry("w", (size // 4,))])


def offers(layout: Layout, body: bytes) -> Iterator[Offer]:
    digest = hashlib.sha256(body).hexdigest()
    sequence = 0
    while True:
        yield Offer(run=RUN, client_id=f"c{sequence % 10}", update=UpdateId(outbox_id=RUN, sequence=sequence),
                    base_version=0, layout=layout.digest, codec="float32", size=len(body), digest=digest,
                    num_samples=10)  # fmt: skip
        sequence += 1


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def commits(name: str, buffer_size: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Judge one update, commit, and so on, for so long or five commits."""
    layout = layout_of(SIZES[name])
    state = State.initial(RUN, layout, np.zeros(layout.size, np.float32))
    store = Store(folder, "benchmark")
    writer = Writer(store, lambda: None)
    core = AggregatorCore(state, fedbuff(buffer_size=buffer_size), Rules(RUN, layout), Goal())
    body = memoryview(np.full(layout.size, 1e-6, "<f4").tobytes())
    lasted, stalls, judged = [], [], 0
    before, begun = written_bytes(), time.monotonic()
    for offer in offers(layout, bytes(body)):
        core.judge(offer.client_id, offer, body, time.monotonic() - begun)
        judged += 1
        started = time.monotonic()
        if not writer.begin(core.state, core.take()):
            stalls.append(time.monotonic() - started)
            writer.take(None)
        else:
            stalls.append(time.monotonic() - started)
        lasted.append(time.monotonic() - started)
        if time.monotonic() - begun > seconds and judged >= 5:
            break
    wrote = written_bytes() - before
    store.close()
    del core, state
    gc.collect()
    started = time.monotonic()
    store = Store(folder, "benchmark")
    loaded = store.load(layout)
    assert loaded is not None
    serving = time.monotonic() - started
    store.close()
    return {
        "name": name,
        "buffer_size": buffer_size,
        "commits_per_second": 1 / statistics.median(lasted),
        "seconds_median": statistics.median(lasted),
        "seconds_min": min(lasted),
        "seconds_max": max(lasted),
        "bytes_per_update": wrote / judged,
        "longest_stall_seconds": max(stalls),
        "seconds_to_serving": serving,
        "updates": judged,
    }


def device(name: str, folder: Path) -> dict[str, Any]:
    layout = layout_of(SIZES[name])
    body = np.full(layout.size, 1e-6, "<f4").tobytes()
    outbox = Outbox(folder)
    before, updates, lasted = written_bytes(), 0, []
    for offer in offers(layout, body):
        started = time.monotonic()
        kept, _ = outbox.add(offer, body, None)
        lasted.append(time.monotonic() - started)
        outbox.delete(kept.update.sequence)
        updates += 1
        if updates == (200 if len(body) < 1e5 else 30 if len(body) < 1e7 else 5):
            break
    outbox.close()  # with what it moves from its log into its file then
    wrote = written_bytes() - before
    return {
        "name": f"device-{name}",
        "bytes_per_update": wrote / updates,
        "times_the_update": wrote / updates / len(body),
        "seconds_median": statistics.median(lasted),
        "seconds_max": max(lasted),
        "updates": updates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES, help="one size of model")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row, at least five commits (default: 5)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    rows, devices = [], []
    print("model     K  commits/s  ms: median (min-max)      written/update  longest stall  to serving", flush=True)
    for name in [options.only] if options.only else SIZES:
        for buffer_size in BUFFERS:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                row = commits(name, buffer_size, options.seconds, Path(folder))
            rows.append(row)
            middle, least, most = (1e3 * row[f"seconds_{which}"] for which in ("median", "min", "max"))
            span, stall = f"{middle:.1f} ({least:.1f}-{most:.1f})", 1e3 * row["longest_stall_seconds"]
            print(f"{name:6}{buffer_size:5}{row['commits_per_second']:11.1f}  {span:24}{row['bytes_per_update']:14,.0f}"
                  f"{stall:12.1f} ms{row['seconds_to_serving']:10.2f} s", flush=True)  # fmt: skip
    print("device, one update in its outbox", file=sys.stdout)
    for name in (name for name in list(SIZES)[:3] if options.only in (None, name)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            row = device(name, Path(folder))
        devices.append(row)
        middle, most = 1e3 * row["seconds_median"], 1e3 * row["seconds_max"]
        print(f"{name:6} {row['bytes_per_update']:14,.0f} bytes ({row['times_the_update']:.2f} x the update),"
              f" {middle:.1f} ms (longest {most:.1f})", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps({"rows": rows, "devices": devices}))


if __name__ == "__main__":
    main()
