"""What each codec saves and what it costs: bytes per update and snapshot, time, and accuracy against float32.

    python benchmarks/bytes.py --json --plot docs/bytes.svg      # about half an hour on two cores
    python benchmarks/bytes.py --only digits --seeds 1           # a minute
    python benchmarks/bytes.py --choices eden4 "top_k 7 %"       # and float32, to compare with

Ten devices that differ 1 to 10 x in speed, in the sandbox: virtual time, so accuracies do not depend on the machine.
A codec is compared with float32 of the same seed; accuracy is the mean of the last quarter;
`zstd` is what it would leave of the last snapshot.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import fedmq
from fedmq.schemas.codecs import Encoding, codec_named, compressed
from fedmq.schemas.layout import Entry, Layout

HERE = Path(__file__).parent.parent
DEVICES = 10
TIMING_FLOATS = 1 << 20


@dataclass(frozen=True)
class Choice:
    """What travels how, up and down."""

    name: str
    plan: dict[str, Any] = field(default_factory=dict)
    down: str = "float32"


UP = [
    Choice("float32", {"codec": "float32", "zstd": False}),
    Choice("float32 + zstd", {"codec": "float32"}),
    Choice("float16", {"codec": "float16"}),
    Choice("bfloat16", {"codec": "bfloat16"}),
    Choice("int8", {"codec": "int8"}),
    Choice("int8, no feedback", {"codec": "int8", "error_feedback": False}),
    Choice("eden4", {"codec": "eden4"}),
    Choice("eden2", {"codec": "eden2"}),
    Choice("eden1", {"codec": "eden1"}),
    Choice("eden1, no feedback", {"codec": "eden1", "error_feedback": False, "unbiased": True}),
    Choice("top_k 10 %", {"codec": "top_k", "top_k_fraction": 0.1}),
    Choice("top_k 7 %", {"codec": "top_k", "top_k_fraction": 0.07}),
    Choice("top_k 5 %", {"codec": "top_k", "top_k_fraction": 0.05}),
    Choice("top_k 1 %", {"codec": "top_k", "top_k_fraction": 0.01}),
]
DOWN = [
    Choice(f"{codec} down", {"codec": "float32", "zstd": False}, codec)
    for codec in ("float16", "bfloat16", "int8", "eden4")
]
CHOICES = UP + DOWN


@dataclass(frozen=True)
class Job:
    """One run."""

    task: str
    choice: Choice
    seed: int
    seconds: float


def sandbox(job: Job) -> fedmq.Sandbox:
    name = "dev" if job.task == "digits" else "wearer"
    ids = [f"{name}-{n + 1}" for n in range(DEVICES)]
    speeds = {client: 10 ** (n / (DEVICES - 1)) for n, client in enumerate(ids)}
    if job.task == "digits":
        task, rate = HERE / "examples/digits/task.py", 0.7
        plan = fedmq.Plan(local_epochs=5, learning_rate=0.1, batch_size=16, **job.choice.plan)
    else:
        task, rate = HERE / "fedmq/demo/watch_task.py", 0.5
        plan = fedmq.Plan(local_epochs=3, learning_rate=0.03, momentum=0.9, batch_size=32, **job.choice.plan)
    strategy = fedmq.fedbuff(server_learning_rate=rate)
    return fedmq.Sandbox(
        task, ids, seed=job.seed, plan=plan, strategy=strategy, speeds=speeds, snapshot_codec=job.choice.down
    )


class Found(NamedTuple):
    """What a run came to."""

    accuracy: float
    update_bytes: float
    snapshot_bytes: int  # of its last version
    snapshot_with_zstd: int


def run(job: Job) -> Found:
    """One run."""
    torch.set_num_threads(1)
    world, late = sandbox(job), []
    world.run(seconds=0.75 * job.seconds)
    while world.seconds < job.seconds:
        world.run(seconds=job.seconds / 40)
        late.append(world.evaluate()["accuracy"])
    state, codec = world._core.state, codec_named(job.choice.down)
    snapshot = codec.encode(state.weights, state.layout)
    smaller = codec_named(f"{codec.name}-zstd").encode(state.weights, state.layout)
    return Found(statistics.mean(late), world.uplink_bytes / world.updates, len(snapshot), len(smaller))


def timing(choice: Choice) -> tuple[float, float]:
    """MB of float32 per second that are encoded and decoded, with zstd where it is used; the best of seven."""
    name = choice.down if choice.down != "float32" else choice.plan["codec"]
    encoding = Encoding(choice.plan.get("unbiased", False), choice.plan.get("top_k_fraction", 0.05), seed=1)
    layout = Layout.of([Entry("w", (TIMING_FLOATS,))])
    vector = np.random.default_rng(1).standard_normal(TIMING_FLOATS).astype(np.float32)
    times: list[tuple[float, float]] = []
    for _ in range(7):
        begun = time.perf_counter()
        codec = codec_named(name)
        data = codec.encode(vector, layout, encoding)
        if choice.down == "float32" and choice.plan.get("zstd", True):
            codec, data = compressed(codec, data)
        between = time.perf_counter()
        codec.decode(data, layout)
        times.append((between - begun, time.perf_counter() - between))
    encode, decode = (min(each) for each in zip(*times, strict=True))
    return vector.nbytes / 1e6 / max(encode, 1e-9), vector.nbytes / 1e6 / max(decode, 1e-9)


def measured(tasks: list[str], choices: list[Choice], seeds: int, seconds: float, workers: int) -> list[dict[str, Any]]:
    jobs = [Job(task, choice, seed, seconds) for seed in range(seeds) for choice in choices for task in tasks]
    found: dict[tuple[str, str, int], Found] = {}
    begun = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job): job for job in jobs}
        for done, future in enumerate(as_completed(running), 1):
            job = running[future]
            found[job.task, job.choice.name, job.seed] = future.result()
            left = (time.monotonic() - begun) / done * (len(jobs) - done)
            print(f"{done} of {len(jobs)} runs, about {left / 60:.0f} min left: {job.task} {job.choice.name}"
                  f" seed {job.seed}: {future.result().accuracy:.4f}", file=sys.stderr, flush=True)  # fmt: skip
    speeds = {choice.name: timing(choice) for choice in choices}
    rows = []
    for task in tasks:
        plain = [found[task, choices[0].name, seed] for seed in range(seeds)]
        for choice in choices:
            runs = [found[task, choice.name, seed] for seed in range(seeds)]
            lost = [a.accuracy - b.accuracy for a, b in zip(plain, runs, strict=True)]
            update, snapshot = statistics.mean(one.update_bytes for one in runs), runs[0].snapshot_bytes
            error = statistics.stdev(lost) / math.sqrt(seeds) if seeds > 1 else float("nan")
            encode, decode = speeds[choice.name]
            rows.append(
                {
                    "task": task,
                    "choice": choice.name,
                    "down": choice.down,
                    "update_bytes": update,
                    "snapshot_bytes": snapshot,
                    "snapshot_with_zstd": statistics.mean(one.snapshot_with_zstd for one in runs),
                    "fewer_up": plain[0].update_bytes / update,
                    "fewer_down": plain[0].snapshot_bytes / snapshot,
                    "accuracy": statistics.mean(one.accuracy for one in runs),
                    "min": min(one.accuracy for one in runs),
                    "max": max(one.accuracy for one in runs),
                    "lost": statistics.mean(lost),
                    "lost_error": error,
                    "encode_mb_per_second": encode,
                    "decode_mb_per_second": decode,
                    "seeds": seeds,
                }
            )
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "fedmq", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["down"] == "float32"]
    tasks, choices = sorted({row["task"] for row in rows}), list(dict.fromkeys(row["choice"] for row in rows))
    looks = {choice: {"color": f"C{n % 10}", "marker": "osD^v<>pP*Xdh8"[n % 14]} for n, choice in enumerate(choices)}
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.6 * len(tasks) + 2.2, 4.4), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for row in rows:
            if row["task"] == task:
                axis.errorbar(row["update_bytes"], -100 * row["lost"], 100 * row["lost_error"], linestyle="none",
                              capsize=3, markersize=7, label=row["choice"], **looks[row["choice"]])  # fmt: skip
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlabel("bytes of an update")
        axis.set_title(task)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy against float32 of the same seed, points")
    figure.tight_layout(rect=(0, 0, 1 - 2.2 / (4.6 * len(tasks) + 2.2), 1))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="center right", frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["digits", "watch"], help="one task")
    parser.add_argument("--choices", nargs="+", metavar="NAME", choices=[choice.name for choice in CHOICES])
    parser.add_argument("--seeds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual, of each run (default: 60)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--plot", type=Path, help="bytes against accuracy, as SVG")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    tasks = [options.only] if options.only else ["digits", "watch"]
    wanted = [choice for choice in CHOICES if choice.name in (options.choices or ()) or not options.choices]
    choices = [CHOICES[0], *(choice for choice in wanted if choice is not CHOICES[0])]
    rows = measured(tasks, choices, options.seeds, options.seconds, options.workers)
    if options.plot:
        plot(rows, options.plot)
    print("task    choice               update bytes  fewer  snapshot bytes  fewer   zstd  accuracy (min-max)"
          "    lost, points     encode  decode MB/s")  # fmt: skip
    for row in rows:
        print(f"{row['task']:7} {row['choice']:20} {row['update_bytes']:12,.0f}  {row['fewer_up']:5.1f}"
              f"  {row['snapshot_bytes']:14,}  {row['fewer_down']:5.1f}"
              f"  {row['snapshot_with_zstd'] / row['snapshot_bytes']:5.2f}"
              f"  {row['accuracy']:.4f} ({row['min']:.3f}-{row['max']:.3f})"
              f"  {100 * row['lost']:+5.2f} ± {100 * row['lost_error']:.2f}"
              f"  {row['encode_mb_per_second']:9,.0f}  {row['decode_mb_per_second']:9,.0f}")  # fmt: skip
    if options.json:
        print(json.dumps({"seconds": options.seconds, "rows": rows}))


if __name__ == "__main__":
    main()
