"""Which server learning rate FedBuff should have: digits, the sandbox, short and long local jobs, few and many devices.

    python benchmarks/server_rate.py --json

Virtual time: the figures do not depend on the machine. Devices differ 1 to 10 x in speed; the fastest needs 1 s a job.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

import fedmq

TASK = Path(__file__).parent.parent / "examples" / "digits" / "task.py"
CASES = ((5, 1), (5, 5), (5, 20), (20, 1), (20, 5), (20, 20))  # devices, local epochs
RATES = (1.0, 0.7, 0.5, 0.35)


def run(devices: int, epochs: int, rate: float, seed: int, seconds: float) -> tuple[float, float]:
    """Mean and worst accuracy over the last quarter of the run: a rate that oscillates has a bad worst."""
    ids = [f"dev-{n + 1}" for n in range(devices)]
    speeds = {name: 10 ** (n / (devices - 1)) for n, name in enumerate(ids)}
    plan = fedmq.Plan(local_epochs=epochs, learning_rate=0.1, batch_size=16)
    strategy = fedmq.fedbuff(server_learning_rate=rate)
    sandbox = fedmq.Sandbox(TASK, ids, seed=seed, plan=plan, strategy=strategy, speeds=speeds)
    late = []
    while sandbox.seconds < seconds:
        sandbox.run(seconds=1.0)
        if sandbox.seconds > 0.75 * seconds:
            late.append(sandbox.evaluate()["accuracy"])
    return statistics.mean(late), min(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=40.0, help="virtual, of each run (default: 40)")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'devices':>7} {'epochs':>6} {'eta':>5}  late accuracy: mean (min-max over seeds)  worst", file=sys.stderr)
    for devices, epochs in CASES:
        for rate in RATES:
            results = [run(devices, epochs, rate, seed, options.seconds) for seed in range(options.seeds)]
            means = [mean for mean, _ in results]
            row = {"devices": devices, "epochs": epochs, "rate": rate, "mean": statistics.mean(means),
                   "min": min(means), "max": max(means), "worst": min(worst for _, worst in results)}  # fmt: skip
            rows.append(row)
            print(f"{devices:7} {epochs:6} {rate:5}  {row['mean']:.3f} ({row['min']:.3f}-{row['max']:.3f})"
                  f"{row['worst']:28.3f}", file=sys.stderr, flush=True)  # fmt: skip
    if options.json:
        print(json.dumps({"seeds": options.seeds, "seconds": options.seconds, "rows": rows}))


if __name__ == "__main__":
    main()
