"""Learn seven shoulder exercises from smartwatch recordings: eight people, each one a client, none shares data.

Broker, aggregator and each client are processes on this machine. Devices differ in speed, simulated by waiting.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fedmq.cli.options import LOG_LEVELS, check_seconds
from fedmq.demo.plan import NOMINAL, SECONDS, SLOWEST, STRATEGIES, Tuned
from fedmq.logs import log_to_stderr
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.refusals import refused

EXAMPLE = "fedmq demo --compare --seed 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--clients", type=int, default=8, help="wearers that take part, 1 to 8 (default: 8)")
    parser.add_argument("--strategy", choices=STRATEGIES, default="fedbuff", help="default: fedbuff")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of central training (default: 0)")
    parser.add_argument(
        "--max-seconds", type=float, default=SECONDS, help=f"how long a run lasts (default: {SECONDS:g})"
    )
    parser.add_argument(
        "--speeds",
        default=f"1-{SLOWEST:g}",
        help=f"factors of the fastest and the slowest device, or one for all (default: 1-{SLOWEST:g})",
    )
    parser.add_argument("--central", action="store_true", help="also train the same network on all data in one place")
    parser.add_argument(
        "--compare", action="store_true", help="also --central, and synchronous FedAvg with and without over-selection"
    )
    parser.add_argument("--broker", metavar="URL", help="a broker that is there (default: start a private one)")
    parser.add_argument("--engine", choices=("auto", "mosquitto", "embedded"), default="auto", help="of a private one")
    parser.add_argument("--out", type=Path, help="folder for the run (default: runs/demo-<time>)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="error", help="of this process (default: error)")


def run(options: argparse.Namespace) -> int:
    """Do it."""
    log_to_stderr(options.log_level)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_seconds("--max-seconds", options.max_seconds)
    folder = options.out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(str(folder), error, "name another folder with --out") from error
    try:
        return _demo(options, folder)
    except KeyboardInterrupt:
        print(f"\ninterrupted; what there is so far: {folder}", file=sys.stderr)
        return 130


def _demo(options: argparse.Namespace, folder: Path) -> int:
    # Here, because torch takes seconds to import, and --help should not.
    from fedmq.demo.central import accuracy_of, train_centrally
    from fedmq.demo.run import Setup, run_federated

    setup = Setup(
        clients=options.clients,
        speeds=_speeds(options.speeds),
        nominal=NOMINAL,
        seed=options.seed,
        seconds=options.max_seconds,
        broker=options.broker,
        engine=options.engine,
    )
    sync = STRATEGIES["fedavg"].also(clients=options.clients)
    own = sync if options.strategy == "fedavg" else STRATEGIES[options.strategy]
    runs: list[tuple[str, str, Tuned]] = [(f"FedMQ {options.strategy}", ".", own)]
    if options.compare:
        runs.append(("synchronous FedAvg", "sync", sync))
        runs.append(("FedAvg, 1.3 x over-selection", "sync-over", sync.also(over_selection=1.3)))
    results = []
    for name, part, tuned in runs:
        result = run_federated(name, folder / part, setup, tuned, accuracy_of=accuracy_of)
        if result is not None:
            results.append(result)
        if result is None or result.interrupted:
            print(f"interrupted; the run so far: {folder / part}", file=sys.stderr)
            break
    complete = len(results) == len(runs) and not results[-1].interrupted
    central = None
    if complete and (options.central or options.compare):
        print("training the same network centrally …", file=sys.stderr, flush=True)
        central = train_centrally(options.seed)
    _report(options, folder, results, central)
    for result in results:
        for line in result.failing:
            print(f"fedmq demo: {result.name}: {line}", file=sys.stderr)
    if not complete:
        return 130
    return 1 if any(result.failing and not result.updates for result in results) else 0


def _report(options: argparse.Namespace, folder: Path, results: list[Any], central: Any) -> None:
    from fedmq.demo.report import draw_demo

    if results:
        draw_demo(folder / "report.png", results, central.accuracy if central else None)
        _print_table(results, central, sys.stderr if options.json else sys.stdout)
        print(f"run folder: {folder}  (model.safetensors, history.jsonl, report.png, federation.toml)", file=sys.stderr)
    if options.json:
        own = results[0] if results else None
        by_name = {result.folder.name: result for result in results[1:]}
        sync, over = by_name.get("sync"), by_name.get("sync-over")
        names = ("accuracy", "accuracy_unseen", "seconds", "seconds_to_target", "version", "updates", "mean_staleness",
                 "uplink_bytes", "downlink_bytes")  # fmt: skip
        figures = {name: getattr(own, name) if own else None for name in names}
        figures |= {
            "central_accuracy": central.accuracy if central else None,
            "central_accuracy_unseen": central.accuracy_unseen if central else None,
            "sync_accuracy": sync.accuracy if sync else None,
            "sync_seconds_to_target": sync.seconds_to_target if sync else None,
            "sync_over_accuracy": over.accuracy if over else None,
            "sync_over_seconds_to_target": over.seconds_to_target if over else None,
            "run_dir": str(folder),
            "seed": options.seed,
            "strategy": options.strategy,
            "speeds": options.speeds,
            "clients": options.clients,
        }
        print(json.dumps(figures), flush=True)


def _print_table(results: list[Any], central: Any, file: Any) -> None:
    rows = [("", "test", "strangers", "to 0.90", "updates", "versions", "staleness", "up", "down")]
    for r in results:
        reached = f"{r.seconds_to_target:.1f} s" if r.seconds_to_target is not None else f"not in {r.seconds:.0f} s"
        moved = (f"{r.uplink_bytes / 1e6:.1f} MB", f"{r.downlink_bytes / 1e6:.1f} MB")
        scores = (f"{r.accuracy:.3f}", f"{r.accuracy_unseen:.3f}")
        rows.append((r.name, *scores, reached, str(r.updates), str(r.version), f"{r.mean_staleness:.1f}", *moved))
    if central is not None:
        rows.append(("trained centrally", f"{central.accuracy:.3f}", f"{central.accuracy_unseen:.3f}") + ("",) * 6)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = (cell.ljust(width) if n == 0 else cell.rjust(width)
                          for n, (cell, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        print("  ".join([first, *others]).rstrip(), file=file)
    if len(results) > 1:
        print(_verdict(results), file=file)


def _verdict(results: list[Any]) -> str:
    own, *others = results
    sentences = []
    for other in others:
        mine, theirs = own.seconds_to_target, other.seconds_to_target
        if mine is None:
            sentences.append(f"{own.name} did not reach the target" + ("" if theirs is None else f"; {other.name} did"))
        elif theirs is None:
            sentences.append(f"{other.name} did not reach the target")
        elif mine <= theirs:
            sentences.append(f"{own.name} reached it {theirs / mine:.1f} x sooner than {other.name}")
        else:
            sentences.append(f"{own.name} reached it {mine / theirs:.1f} x LATER than {other.name}")
    return ". ".join(sentences) + "."


def _speeds(text: str) -> tuple[float, float]:
    try:
        parts = [float(part) for part in text.split("-")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or min(parts, default=0.0) <= 0:
        raise ConfigError(f"--speeds {text}: expected one factor for all (1) or two (1-10)")
    return parts[0], parts[-1]
