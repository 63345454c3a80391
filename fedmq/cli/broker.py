"""Run a private MQTT broker on this machine, for trying things out: on 127.0.0.1 only, and open to everyone there."""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from pathlib import Path

from fedmq.broker_config.start import start_broker

EXAMPLE = "fedmq broker --port 1883"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--engine",
        choices=("auto", "mosquitto", "embedded"),
        default="auto",
        help="auto: Mosquitto where it is installed, else the embedded broker",
    )
    parser.add_argument("--port", type=int, default=1883, help="0 takes a free one (default: 1883)")
    parser.add_argument("--folder", type=Path, help="for its configuration and log (default: a temporary one)")
    parser.add_argument("--max-message-bytes", type=int, default=16 << 20, help="the largest message (default: 16 MiB)")


def run(options: argparse.Namespace) -> int:
    """Do it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="fedmq-broker-") as temporary:
        folder = options.folder or Path(temporary)
        with start_broker(
            options.engine, folder=folder, port=options.port, max_message_bytes=options.max_message_bytes
        ) as broker:
            try:
                print(f"{broker.engine} broker at {broker.url} (log: {broker.log}); Ctrl-C stops it", flush=True)
                while broker.running:
                    time.sleep(0.2)
            except KeyboardInterrupt:
                return 0
        print(f"the broker ended by itself; see {broker.log}", flush=True)
    return 1
