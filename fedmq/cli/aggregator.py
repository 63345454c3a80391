"""Run the aggregator of a federation, until its goal is reached or it is stopped.

It goes on with the run that its folder holds; a new folder begins a new run with version 0.
"""

from __future__ import annotations

import argparse
import signal

from fedmq.cli.options import add_settings, settings_of
from fedmq.server import Aggregator

EXAMPLE = "fedmq aggregator --config federation.toml --set plan.learning_rate=0.02"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    aggregator = Aggregator(settings_of(options))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: aggregator.ask_to_stop(signal.Signals(number).name))
    return aggregator.run().code
