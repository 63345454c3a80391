"""What one account's machine is given: its own login, the authority's certificate, and settings that use them."""

from __future__ import annotations

import json
import tomllib

from fedmq.broker_config.provision.folder import AGGREGATOR, OPERATOR
from fedmq.broker_config.provision.host_names import broker_url
from fedmq.broker_config.provision.record import Record

__all__ = [
    "AGGREGATOR_KEYS",
    "AUTHORITY",
    "DEVICE_KEYS",
    "IDENTITY",
    "PASSWORD",
    "REVOKED",
    "SETTINGS",
    "SIGNING",
    "TASK",
    "settings_file",
    "settings_url",
]

AUTHORITY = "ca.pem"
IDENTITY = "identity.pem"
"""Certificate and private key in one file, so that a renewal replaces both at once."""
PASSWORD = "password"  # noqa: S105 -- the name of a file
SETTINGS = "federation.toml"
REVOKED = "revoked"
SIGNING = "signing.pem"
"""The private key that an account signs with; the operator has none, because it sends nothing."""
AGGREGATOR_KEYS = "aggregator-keys"
DEVICE_KEYS = "device-keys"
TASK = "task.py"
"""A copy of the task file: a bundle is whole by itself."""

_BROKER = """
[broker]
url = {url}
username = {user}
password_file = "{password}"
ca_file = "{authority}"
cert_file = "{identity}"
key_file = "{identity}"
"""
_NO_TASK = """
# The task file is yours: copy it here, or write where it lies on this machine, and take the # away.
# task = "{task}"
"""
_DEVICE = """
[device]
client_id = {id}
"""
_REVOKED = """
[aggregator]
# Of each device: what comes faster waits, and is not lost. Take it away, or set another, as your devices need.
client_updates_per_minute = 240
revoked_file = "{revoked}"
"""


def settings_file(record: Record, account: str) -> bytes:
    """The bundle's federation.toml. It is written once and then the user's; paths in it count from its folder."""
    name = record.federation
    if account == AGGREGATOR:
        title = f"The aggregator of federation {name}. Run it with: fedmq aggregator --config {SETTINGS}"
    elif account == OPERATOR:
        title = f"For whoever looks after federation {name}. Look at it with: fedmq status --config {SETTINGS}"
    else:
        run = f"fedmq client --config {SETTINGS}"
        title = f"Device {account} of federation {name}. Run it with: {run}"
    text = f"# {title}\nfederation = {json.dumps(name)}\n"
    if account != OPERATOR:
        text += _NO_TASK.format(task=TASK) if record.task is None else f'task = "{TASK}"\n'
    text += _BROKER.format(
        url=json.dumps(broker_url(record.hosts[0], record.port)),
        user=json.dumps(record.user(account)),
        password=PASSWORD,
        authority=AUTHORITY,
        identity=IDENTITY,
    )
    text += f'\n[signing]\naggregator_keys_file = "{AGGREGATOR_KEYS}"\n'
    if account != OPERATOR:
        text += f'key_file = "{SIGNING}"\n'
    if account in (AGGREGATOR, OPERATOR):
        text += f'device_keys_file = "{DEVICE_KEYS}"\n'
    if account == AGGREGATOR:
        text += _REVOKED.format(revoked=REVOKED)
    if account not in (AGGREGATOR, OPERATOR):
        text += _DEVICE.format(id=json.dumps(account))
    return text.encode()


def settings_url(content: bytes) -> str | None:
    """Which broker a federation.toml names, None if that cannot be seen."""
    try:
        url = tomllib.loads(content.decode())["broker"]["url"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None
