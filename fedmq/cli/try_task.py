"""Run your own task on this machine: a private broker, an aggregator and N clients, each a process of its own.

Clients are called client-1, client-2, …; that is what load_data(client_id) gets, unless --client-ids names others.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from fedmq.aggregator.export import model_file, read_run
from fedmq.cli.options import add_settings, check_seconds, settings_of
from fedmq.printable import in_one_line
from fedmq.schemas.errors import ConfigError
from fedmq.tasks.initial import STATISTICS_KEY
from fedmq.tasks.loader import load_task
from fedmq.testbed import Testbed
from fedmq.unstable import advice
from fedmq.view import View

EXAMPLE = "fedmq try task.py --clients 3 --seconds 30 --set plan.learning_rate=0.02"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("task", type=Path, help="the task file")
    parser.add_argument("--clients", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--client-ids", metavar="A,B,…", help="their names, in place of client-1, …")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60; Ctrl-C ends it earlier)")
    parser.add_argument("--slowest", type=float, default=1.0, help="simulate: the last client is so many times slower")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds that a job lasts at least (default: 0.5)")
    parser.add_argument("--metric", default=None, help="what to show (default: accuracy if there is one, else loss)")
    parser.add_argument("--engine", choices=("auto", "mosquitto", "embedded"), default="auto", help="of the broker")
    parser.add_argument("--out", type=Path, help="folder for run, logs and model (default: a new temporary one)")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    names = options.client_ids.split(",") if options.client_ids else [f"client-{n + 1}" for n in range(options.clients)]
    if not names or options.clients < 1:
        raise ConfigError(f"--clients {options.clients}: expected at least 1")
    check_seconds("--seconds", options.seconds)
    load_task(options.task)  # its mistakes are reported here rather than in a log
    if options.federation is None and options.config is None:
        options.federation = "try"
    settings = settings_of(options, f'task="{options.task.resolve()}"').model_dump(mode="json", exclude_none=True)
    settings.setdefault("aggregator", {}).setdefault("goal", {})["seconds"] = options.seconds
    if options.broker is None:
        settings.pop("broker")  # a private one takes its place
    elif settings["broker"].get("password"):
        raise ConfigError("broker.password would be copied into the run's folder; use broker.password_file")
    folder = options.out or Path(tempfile.mkdtemp(prefix="fedmq-try-"))
    steps = max(1, len(names) - 1)
    speeds = {name: options.slowest ** (place / steps) for place, name in enumerate(names)}
    paces = {name: options.pace * factor for name, factor in speeds.items()}
    footer = "simulated delays · Ctrl-C ends it" if options.slowest > 1 else "Ctrl-C ends it"
    # A Ctrl-C may come before there is anything to show; SIGTERM is the same wish.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        Testbed(folder, settings, paces, broker_url=options.broker, engine=options.engine) as bed,
        View(str(options.task), footer=footer, metric=options.metric, seconds=options.seconds, speeds=speeds) as view,
    ):
        try:
            bed.start(lambda watch: view.show(watch, len(names), 0.0))
            while bed.running:
                bed.follow()
                view.show(bed.watch, len(names), bed.seconds)
        except KeyboardInterrupt:
            print("stopping", flush=True)
        bed.stop_aggregator()
    if not (bed.run_folder / "run.sqlite").exists():
        print(f"stopped before there was a run; logs are in {folder}/logs")
        return 130
    result = read_run(bed.run_folder)
    model = folder / "model.safetensors"
    model.write_bytes(model_file(result, STATISTICS_KEY))
    measured = "  ".join(
        f"{in_one_line(key)} {value:.4f}" for key, value in (bed.samples[-1].metrics if bed.samples else {}).items()
    )
    print(
        f"version {result.version}, {result.figures['accepted']} updates; devices' mean: {measured or 'not measured'}"
    )
    losses = [sample.metrics["loss"] for sample in bed.samples if "loss" in sample.metrics]
    late = bed.watch.progress.mean_staleness if bed.watch.progress else 0.0
    if said := advice(losses, late, len(names), bed.loaded.aggregator):
        print(said)
    print(f"model: {model}\nlogs: {folder}/logs", flush=True)
    failing = bed.failing(result.figures["accepted"])
    for line in failing:
        print(f"fedmq try: {line}", file=sys.stderr)
    return 1 if failing and not result.figures["accepted"] else 0
