"""Choose the demo's learning rates, for each strategy by the same number of runs, on validation stretches alone.

    python benchmarks/demo_settings.py --strategy fedavg --json

One run for each pair of a device's and a server's learning rate. No test stretch is read. What counts is the
devices' mean validation accuracy over the last quarter of the run, because a lucky last version is not a good setting.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from fedmq.demo.plan import NOMINAL, SECONDS, SLOWEST, STRATEGIES, Tuned
from fedmq.demo.run import Setup, run_federated

DEVICE_RATES = (0.01, 0.03, 0.06)
SERVER_RATES = {"fedbuff": (0.35, 0.5, 0.7, 1.0), "fedavg": (0.7, 1.0, 1.4, 2.0)}  # about what each has by default


def run(strategy: str, device_rate: float, server_rate: float, setup: Setup, folder: Path) -> dict[str, Any]:
    own: dict[str, Any] = {"strategy": strategy, "server_learning_rate": server_rate}
    if strategy == "fedavg":
        own["clients"] = setup.clients
    tuned = Tuned(own, {"learning_rate": device_rate})
    result = run_federated(strategy, folder, setup, tuned, accuracy_of=lambda arrays, people: 0.0)
    if result is None:
        raise SystemExit("interrupted")
    late = [s.metrics["accuracy"] for s in result.samples if s.seconds > 0.75 * setup.seconds and s.metrics]
    return {
        "learning_rate": device_rate,
        "server_learning_rate": server_rate,
        "validation": statistics.mean(late) if late else 0.0,
        "seconds_to_target": result.seconds_to_target,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", choices=SERVER_RATES, required=True)
    parser.add_argument("--slowest", type=float, default=SLOWEST, help=f"factor (default: {SLOWEST:g})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of a run (default: {SECONDS:g})")
    parser.add_argument("--seed", type=int, default=10, help="of version 0; none that figures are given for")
    parser.add_argument("--server-rates", type=float, nargs="*", help="only these (default: four for each strategy)")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    setup = Setup(8, (1.0, options.slowest), NOMINAL, options.seed, options.seconds)
    pairs = itertools.product(DEVICE_RATES, options.server_rates or SERVER_RATES[options.strategy])
    rows = []
    print(f"{STRATEGIES[options.strategy]} is what the demo has now\ndevice  server  validation  to 0.90", flush=True)
    for device_rate, server_rate in pairs:
        with tempfile.TemporaryDirectory() as folder:
            row = run(options.strategy, device_rate, server_rate, setup, Path(folder))
        rows.append(row)
        reached = "never" if row["seconds_to_target"] is None else f"{row['seconds_to_target']:.1f} s"
        print(f"{device_rate:6g}  {server_rate:6g}  {row['validation']:10.3f}  {reached:>7}", flush=True)
    if options.json:
        print(json.dumps({"strategy": options.strategy, "seed": options.seed, "rows": rows}))


if __name__ == "__main__":
    main()
