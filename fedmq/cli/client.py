"""Run one device of a federation: it trains on its own data and sends updates, until the run is finished.

Exit codes: 0 when the run is finished or it was stopped; 1 when another live client took its id, or its disk fails; 2
when its task, its settings or a file or folder that they name cannot be used, or do not fit the federation, or the
aggregator says that it is out, so that starting it again does not help. Where the broker turns it away, it tries on.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

from fedmq.cli.options import add_settings, settings_of
from fedmq.device import EdgeClient

log = logging.getLogger("fedmq.client")

EXAMPLE = "fedmq client --config federation.toml --client-id dev-7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--client-id", help="this device's name, unique in the federation (default: device.client_id)")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    client = EdgeClient(settings_of(options), options.client_id)
    shown = client.settings
    broker = f"broker={shown.broker.url} reconnect_max_seconds={shown.broker.reconnect_max_seconds:g}"
    where = f"{broker} device_folder={shown.device_folder(client.client_id)}"
    log.info("starting client=%s federation=%s %s", client.client_id, shown.federation, where)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: client.ask_to_stop(signal.Signals(number).name))
    code = client.run().code
    # Not by the interpreter's own way out: a training that was told to stop may still be inside torch, and everything
    # that has to last is on the disk.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
