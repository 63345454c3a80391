"""Show what a federation is doing, as its retained topics say: the run, and each client or the one that is named.

A version is made of K updates. Mean staleness: how many versions were made, on average, between the one that an update
was trained from, its base, and the one that it became part of. On the aggregator's machine its last verdicts are shown
too: of the client that is named, or of each that had an update rejected.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

from fedmq.aggregator.lately import ACCEPTED, lately
from fedmq.broker_config.provision.folder import OPERATOR
from fedmq.cli.options import add_settings, settings_of
from fedmq.schemas.errors import ConfigError, StoreError, TransportError
from fedmq.schemas.topics import check_id
from fedmq.settings import Settings
from fedmq.status_text import judged
from fedmq.watch import Watch

EXAMPLE = "fedmq status --config federation.toml dev-7"

_CONNECT_SECONDS = 10.0
_QUIET_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("client", nargs="?", metavar="CLIENT", help="show everything that is known of this client")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    options.log_level = "error"
    settings = settings_of(options)
    if settings.account not in (None, OPERATOR):
        raise ConfigError(
            f"broker.username {settings.broker.username!r} is the login of whom you want to look at, and this command "
            f"would cut its connection: take the operator's bundle, as in secure/{OPERATOR}/federation.toml"
        )
    with Watch(settings, f"{settings.federation}-status-{os.urandom(4).hex()}") as watch:
        if options.client is not None:
            watch.ask(check_id(options.client, "client id"))
        deadline, said = time.monotonic() + _CONNECT_SECONDS, False
        while not watch.connected:
            if time.monotonic() > deadline:
                raise TransportError(f"{settings.broker.url}: {watch.trouble or 'no answer'}")
            watch.poll(0.1)
            if watch.trouble and not said:
                print(f"fedmq status: {watch.trouble}; trying for {_CONNECT_SECONDS:g} s", file=sys.stderr, flush=True)
                said = True
        for ending in watch.ending:
            print(f"fedmq status: warning: {ending}", file=sys.stderr)
        # A federation at work is never quiet; what is retained has come when nothing is heard of for the first time.
        known, quiet_at = 0, time.monotonic() + _QUIET_SECONDS
        while time.monotonic() < min(quiet_at, deadline):
            watch.poll(0.1)
            if watch.known > known:
                known, quiet_at = watch.known, time.monotonic() + _QUIET_SECONDS
        if options.json:
            print(watch.as_json(options.client))
            return 0 if options.client is None or watch.describe(options.client) else 1
        text = watch.describe(options.client)
        print(text or _nothing(watch, settings, options.client))
        for line in _judged(watch, settings, options.client):
            print(line)
        return 0 if text else 1


def _judged(watch: Watch, settings: Settings, client_id: str | None) -> Iterator[str]:
    try:
        known = lately(settings.run_folder)
    except StoreError as error:
        yield str(error)
        return
    if watch.progress is None or watch.progress.run != known.run:
        return  # it is elsewhere, or the folder is another run's
    for name, verdicts in sorted(known.verdicts.items()):
        if name == client_id or (client_id is None and set(verdicts) - {ACCEPTED}):
            yield judged(name, verdicts)


def _nothing(watch: Watch, settings: Settings, client_id: str | None) -> str:
    federation = f"federation {settings.federation!r}"
    if client_id is None or not watch.known:
        return (
            f"at {settings.broker.url} nothing is shown of {federation}: has its aggregator started, is the name right?"
        )
    there = ", ".join(sorted({*watch.clients, *watch.unheard.clients})) or "none"
    return (
        f"at {settings.broker.url} nothing is shown of client {client_id!r} of {federation}; clients there: {there}; "
        "one that was revoked, or whose login is for another id, cannot show anything"
    )
