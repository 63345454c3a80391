"""Run the aggregator of a federation, until its goal is reached or it is stopped.

It goes on with the run that its folder holds; a new folder begins a new run with version 0. With --new-run the run in
the folder is kept aside, and another begins from its weights.

Exit codes: 0 when the run is finished or it was stopped; 1 when another aggregator of this federation took its place or
works in its folder, or its disk fails at the start; 2 when its task, its settings or a file or folder that they name
cannot be used, or the broker shows another run or a newer copy of this one, so that starting it again does not help.
"""

from __future__ import annotations

import argparse
import logging
import signal

from fedmq.aggregator.cycles import look_for_cycles_seldom
from fedmq.aggregator.freed_memory import keep_freed_memory
from fedmq.cli.options import add_settings, settings_of
from fedmq.server import Aggregator

log = logging.getLogger("fedmq.aggregator")

EXAMPLE = "fedmq aggregator --config federation.toml --set plan.learning_rate=0.02"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_settings(parser)
    parser.add_argument(
        "--new-run", action="store_true", help="begin another run, from the weights of the one that is here"
    )
    parser.add_argument(
        "--init-from", metavar="OLD", help="with --new-run: a run folder or safetensors file to take weights from"
    )
    parser.add_argument(
        "--replace", action="store_true", help="begin even if the broker shows another run of this federation"
    )


def run(options: argparse.Namespace) -> int:
    """Do it."""
    keep_freed_memory()
    aggregator = Aggregator(
        settings_of(options), new_run=options.new_run, init_from=options.init_from, replace=options.replace
    )
    shown = aggregator.settings
    broker = f"broker={shown.broker.url} reconnect_max_seconds={shown.broker.reconnect_max_seconds:g}"
    where = f"{broker} run_folder={shown.run_folder}"
    log.info("starting federation=%s %s strategy=%s", shown.federation, where, aggregator.strategy.name)
    look_for_cycles_seldom()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: aggregator.ask_to_stop(signal.Signals(number).name))
    return aggregator.run().code
