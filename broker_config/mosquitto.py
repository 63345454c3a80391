"""A private Mosquitto: where its binary is, and a configuration for one machine's testbed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fedmq.schemas.errors import ConfigError

__all__ = ["find_mosquitto", "mosquitto_binary", "mosquitto_command"]

# Debian and Homebrew put servers where a user's PATH often does not lead.
_OTHER_FOLDERS = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))

_CONFIGURATION = """\
# Written by FedMQ at every start; changes are lost.
listener {port} {listen}
allow_anonymous true

# Without it small messages wait 40 ms for an acknowledgement of TCP.
set_tcp_nodelay true
max_keepalive 1200

# A whole packet: the largest message, its topic and its properties.
max_packet_size {packet_bytes}
max_inflight_messages 20
# Per client. A thousand, the default, is less than one large model in parts.
max_queued_messages 20000
max_queued_bytes {queue_bytes}

log_dest stderr
log_type error
log_type warning
log_type notice
"""

# Mosquitto saves everything at once; every second, because a test kills it without a warning.
_PERSISTENCE = """
persistence true
persistence_location {folder}/
autosave_interval 1
autosave_on_changes false
"""


def find_mosquitto() -> str | None:
    """The path of the Mosquitto binary, None where there is none."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_OTHER_FOLDERS)


def mosquitto_binary() -> str:
    """The path of the Mosquitto binary; raises ConfigError where there is none."""
    binary = find_mosquitto()
    if binary is None:
        raise ConfigError(
            'no mosquitto binary was found; install it ("apt install mosquitto", "brew install mosquitto")'
        )
    return binary


def mosquitto_command(folder: Path, listen: str, port: int, max_message_bytes: int, *, persistent: bool) -> list[str]:
    """Write mosquitto.conf into `folder`; the command that starts it. Raises ConfigError where there is no binary."""
    binary = mosquitto_binary()
    text = _CONFIGURATION.format(
        listen=listen,
        port=port,
        packet_bytes=max_message_bytes + 64 * 1024,
        queue_bytes=max(256 << 20, 8 * max_message_bytes),
    )
    if persistent:
        text += _PERSISTENCE.format(folder=folder)
    if os.geteuid() == 0:
        # Else it becomes another user, who may not read this folder, and Linux forgets to kill it with its parent.
        text += "\nuser root\n"
    configuration = folder / "mosquitto.conf"
    configuration.write_text(text, encoding="utf-8")
    return [binary, "-c", str(configuration)]
