"""What the demo reaches, over five seeds: FedMQ on eight watches against the same network trained centrally.

    python benchmarks/demo.py --json

Each run is `fedmq demo --central`, one after another. The test stretches are read at the last version.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2, 3, 4)


def run(seed: int, folder: Path, more: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "fedmq", "demo", "--central", "--json", "--seed", str(seed), "--out", str(folder)]
    done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="default: 0 1 2 3 4")
    parser.add_argument("more", nargs="*", help="options for fedmq demo, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(seed, Path(folder) / str(seed), options.more) for seed in options.seeds]
    print("seed  FedMQ  strangers  central  strangers  central - FedMQ  to 0.90   updates  staleness")
    for row in rows:
        gap = row["central_accuracy"] - row["accuracy"]
        reached = "never" if row["seconds_to_target"] is None else f"{row['seconds_to_target']:.1f} s"
        print(f"{row['seed']:4}  {row['accuracy']:.3f}  {row['accuracy_unseen']:9.3f}  {row['central_accuracy']:7.3f}"
              f"  {row['central_accuracy_unseen']:9.3f}  {gap:15.3f}  {reached:>7}  {row['updates']:8}"
              f"  {row['mean_staleness']:9.1f}")  # fmt: skip
    gaps = [row["central_accuracy"] - row["accuracy"] for row in rows]
    deviation = statistics.stdev(gaps) if len(gaps) > 1 else 0.0
    print(f"central - FedMQ: mean {100 * statistics.mean(gaps):.2f} points, standard deviation {100 * deviation:.2f}")
    if options.json:
        print(json.dumps({"gap_mean": statistics.mean(gaps), "gap_deviation": deviation, "rows": rows}))


if __name__ == "__main__":
    main()
