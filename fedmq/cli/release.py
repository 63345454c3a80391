"""Let a client out of quarantine, on the machine of the aggregator.

Within a second it is listened to again, and told so: a device that is connected offers what waits within a few more.
"""

from __future__ import annotations

import argparse
import time

from fedmq.aggregator.export import read_figures
from fedmq.aggregator.releases import Releases
from fedmq.cli.options import add_settings, settings_of
from fedmq.cli.stop import is_free
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.schemas.topics import check_id

EXAMPLE = "fedmq release dev-7 --config federation.toml"

_SECONDS = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("client", metavar="CLIENT", help="the client, as `fedmq status` names it")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    client_id, folder = check_id(options.client, "client id"), settings_of(options).run_folder
    held = read_figures(folder).get("quarantine", {}).get("held", {})
    if client_id not in held:
        known = f"in quarantine are: {', '.join(sorted(held))}" if held else "nobody is"
        raise ConfigError(f"client {client_id!r} is not in quarantine in run folder {folder}; {known}")
    try:
        wish = Releases(folder).ask(client_id)
        with open(folder / "lock") as lock:
            if is_free(lock.fileno()):
                print(f"client {client_id} will be let out when the aggregator is started; none works in {folder}")
                return 0
    except OSError as error:
        raise StoreError(f"run folder {folder}: the wish cannot be left there: {error}") from error
    deadline = time.monotonic() + _SECONDS
    while wish.exists():
        if time.monotonic() > deadline:
            raise StoreError(f"the aggregator has not let {client_id} out within {_SECONDS:g} s; see its log")
        time.sleep(0.05)
    print(f"client {client_id} is out of quarantine")
    return 0
