"""How fast the aggregator takes updates, beside subscribers that only receive the same messages.

    python benchmarks/ingest.py --json
    python benchmarks/ingest.py --only 1MB-float32     # less than a minute
    python benchmarks/ingest.py --signed               # without and with signatures, in alternation

`fedmq aggregator` (FedBuff, K = 10) with all promises on: validation, ledger, commits with fsync on a real folder,
receipts. What counts is updates whose receipt says accepted. Two publisher processes send valid, distinct updates at
QoS 1 through a private Mosquitto, bounded by what has arrived, to the aggregator and in alternation to a stock paho
subscriber and to mosquitto_sub, which count and do nothing else; each figure is the median of the runs, and each ratio
that of the runs' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest_latency import latencies
from ingest_runs import Bench, Size

SIZES = (
    Size("10KB-float32", 2_500, 20_000, 8_000),
    Size("1MB-float32", 250_000, 400, 64),
    Size("10MB-float32", 2_500_000, 30, 16),
    Size("1MB-parts", 250_000, 400, 64, (2, 4, 8), parts=True),
    Size("10MB-parts", 2_500_000, 40, 64, (2, 4, 8), parts=True),
    Size("100MB-parts", 25_000_000, 8, 64, (2, 4), parts=True),
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(rates: list[float], others: list[float]) -> float:
    """The median of each round's: a machine that is slower for a minute is that for all that run in it."""
    return statistics.median(one / other for one, other in zip(rates, others, strict=True))


def throughput(size: Size, clients: tuple[int, ...], runs: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of one size: alternating runs, for each number of clients all receivers in turn."""
    with Bench(size, folder / size.name) as bench:
        receivers: dict[str, Callable[[int], float]] = {"paho": bench.paho, "c": bench.c, "fedmq": bench.fedmq}
        rates: dict[tuple[int, str], list[float]] = {(n, name): [] for n in clients for name in receivers}
        bench.fedmq(clients[0])  # to warm up
        for run in range(runs):
            for n in clients:
                for name, receive in receivers.items():
                    rate = receive(n)
                    if rate:
                        rates[n, name].append(rate)
                newest = (f"{name} {rates[n, name][-1]:8.1f}/s" for name in receivers if rates[n, name])
                say(f"{size.name} {n:4} clients, run {run + 1}: " + "  ".join(newest))
        rows = []
        for n in clients:
            paho, c, fedmq = (rates[n, name] for name in ("paho", "c", "fedmq"))
            rate = statistics.median(fedmq)
            rows.append(
                {
                    "name": size.name,
                    "client_ids": n,
                    "updates_per_second": rate,
                    "mb_per_second": rate * size.bytes / 1e6,
                    "ratio_to_paho": ratio(fedmq, paho),
                    "ratio_to_c": ratio(fedmq, c) if c else None,
                    "fedmq": spread(fedmq),
                    "paho": spread(paho),
                    "c": spread(c) if c else None,
                    "runs": len(fedmq),
                    **bench.costs(n),
                }
            )
        return rows


def signatures(size: Size, clients: tuple[int, ...], runs: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of one size without and with signatures: alternating runs. Publishers have signed before they send."""
    names = [f"c{n}-{number}" for n in clients for number in range(n)]
    with Bench(size, folder / f"signed-{size.name}", names) as bench:
        receivers: dict[str, Callable[[int], float]] = {"plain": bench.fedmq, "signed": bench.signed}
        rates: dict[tuple[int, str], list[float]] = {(n, name): [] for n in clients for name in receivers}
        for receive in receivers.values():
            receive(clients[0])  # to warm up
        for run in range(runs):
            for n in clients:
                for name, receive in receivers.items():
                    rates[n, name].append(receive(n))
                newest = (f"{name} {rates[n, name][-1]:8.1f}/s" for name in receivers)
                say(f"{size.name} {n:4} clients, run {run + 1}: " + "  ".join(newest))
        return [
            {
                "name": size.name,
                "client_ids": n,
                "ratio": ratio(rates[n, "signed"], rates[n, "plain"]),
                **{name: spread(rates[n, name]) | bench.costs(n, signed=name == "signed") for name in receivers},
            }
            for n in clients
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*(size.name for size in SIZES), "latency"], help="one row")
    parser.add_argument(
        "--clients", type=int, nargs="+", help="how many ids (default: 1 10 1000, in parts 2 4 8 or 2 4)"
    )
    parser.add_argument("--runs", type=int, default=5, help="of each receiver (default: 5)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--signed", action="store_true", help="without and with signatures, 10KB and 1MB, nothing else")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    for size in SIZES:
        if options.only == size.name and size.parts and any(size.updates % n for n in options.clients or ()):
            parser.error(f"--clients: the {size.updates} updates of a run are to be as many of each client")
    rows: list[dict[str, Any]] = []
    latency: list[dict[str, Any]] = []
    signed: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fedmq-ingest-", dir=options.folder) as name:
        for size in SIZES[:2] if options.signed else ():
            if options.only in (None, size.name):
                signed += signatures(size, tuple(options.clients or size.clients), options.runs, Path(name))
        for size in () if options.signed else SIZES:
            if options.only in (None, size.name):
                rows += throughput(size, tuple(options.clients or size.clients), options.runs, Path(name))
        if options.only in (None, "latency") and not options.signed:
            for size in SIZES[:2]:
                latency.append(latencies(size, Path(name) / f"latency-{size.name}"))
    if rows:
        print(
            "row           clients  updates/s (min-max)            MB/s  of paho  of C"
            "   CPU s/1000: FedMQ, broker  peak MB"
        )
    for row in rows:
        c = f"{row['ratio_to_c']:.2f}" if row["ratio_to_c"] else "   -"
        print(f"{row['name']:13} {row['client_ids']:7}  {row['updates_per_second']:8.1f}"
              f" ({row['fedmq']['min']:8.1f}-{row['fedmq']['max']:8.1f})  {row['mb_per_second']:6.1f}"
              f"  {row['ratio_to_paho']:7.2f}  {c}  {row['cpu_seconds_per_1000']:18.3f}"
              f"  {row['broker_cpu_seconds_per_1000']:6.3f}  {row['peak_mb']:7.0f}")  # fmt: skip
    for row in signed:
        rate, cpu = ([row[name][what] for name in ("plain", "signed")] for what in ("median", "cpu_seconds_per_1000"))
        print(f"{row['name']:13} {row['client_ids']:7}  without {rate[0]:8.1f}/s, signed {rate[1]:8.1f}/s"
              f" ({row['signed']['min']:8.1f}-{row['signed']['max']:8.1f}), ratio {row['ratio']:.2f};"
              f"  CPU s/1000: {cpu[0]:.3f}, {cpu[1]:.3f}")  # fmt: skip
    for row in latency:
        for load in ("idle", "half_load"):
            print(f"{row['name']} {load}: " + ", ".join(
                f"{what} {1e3 * row[load][what]['median']:.1f} ms (99 %: {1e3 * row[load][what]['p99']:.1f})"
                for what in ("receipt", "model")))  # fmt: skip
    if options.json:
        print(json.dumps({"cores": os.cpu_count(), "rows": rows, "latency": latency, "signed": signed}))


if __name__ == "__main__":
    main()
