"""A private broker from a Python package, iotcore, for machines without Mosquitto. `python -m` runs it.

It holds everything in memory and has no access rules: for one machine and for trying things out. Each topic filter has
a ring of segments, and a subscriber that lags by more than the ring loses the oldest messages without a word.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
from pathlib import Path

from fedmq.schemas.errors import ConfigError

__all__ = ["embedded_command", "has_embedded"]

_CONFIGURATION = """\
# Written by FedMQ at every start; changes are lost.
id = 0

[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = {segment_bytes}
max_segment_count = 4
"""

_LISTENER = """
[{version}.1]
name = "{version}"
listen = "{listen}:{port}"
next_connection_delay_ms = 1

[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {packet_bytes}
max_inflight_count = 100
dynamic_filters = true
"""


def has_embedded() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("iotcore") is not None


def embedded_command(folder: Path, listen: str, port_5: int, port_311: int, max_message_bytes: int) -> list[str]:
    """Write iotcore.toml into `folder`; the command that starts it, a listener for each version of MQTT."""
    if not has_embedded():
        raise ConfigError('the embedded broker is not installed; "pip install fedmq[embedded]" installs it')
    packet_bytes = max_message_bytes + 64 * 1024
    # A ring that holds at least a few of the largest messages.
    text = _CONFIGURATION.format(segment_bytes=max(32 << 20, 2 * packet_bytes))
    host = f"[{listen}]" if ":" in listen else listen
    text += _LISTENER.format(version="v4", listen=host, port=port_311, packet_bytes=packet_bytes)
    text += _LISTENER.format(version="v5", listen=host, port=port_5, packet_bytes=packet_bytes)
    configuration = folder / "iotcore.toml"
    configuration.write_text(text, encoding="utf-8")
    # -P: nothing that lies in the user's folder stands in for a module.
    return [sys.executable, "-P", "-m", "fedmq.broker_config.embedded", str(configuration)]


def _run(configuration: str) -> None:
    from iotcore.iotcore import IotCoreBroker

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It logs every packet as an error.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    _start_again_after_a_panic()
    IotCoreBroker(config_path=configuration).run_forever()


def _start_again_after_a_panic() -> None:
    """From now on watch stderr, and become a new broker, in the same process, when a panic is reported there.

    A client that resets its connection and is back at once can make iotcore 0.4.0 panic; the process lives on, but
    turns everybody away. What it held is lost, which FedMQ expects of every broker.
    """
    stderr = sys.stderr.fileno()
    log = os.dup(stderr)
    reading, writing = os.pipe()
    os.dup2(writing, stderr)
    os.close(writing)

    def watch() -> None:
        with open(reading, "rb") as lines:
            for line in lines:
                os.write(log, line)
                if b"panicked at" in line:
                    os.write(log, b"the embedded broker starts again\n")
                    os.dup2(log, stderr)
                    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 -- the same command once more

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _run(sys.argv[1])
