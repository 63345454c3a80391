"""Make everything that a federation needs on a broker of its own that lets nobody in by accident, or change it.

That is a private certificate authority, certificates, passwords, Mosquitto's configuration and access rules, and for
the aggregator, for you and for each device a folder to take to its machine. Run again it changes only what has to be
other. What is decided once is remembered: later runs need --out and what is new.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmq.cli.provision_summary import some, summary
from fedmq.schemas.errors import ConfigError, TransportError

if TYPE_CHECKING:
    from fedmq.broker_config.provision.decisions import Request
    from fedmq.broker_config.provision.provisioning import Outcome

EXAMPLE = "fedmq provision --federation gestures --clients ids.txt --host broker.example --out secure"

_CLEAR_SECONDS = 8.0
# The fields of the record that an option of the same name decides.
_DECIDED = (
    *("port", "login", "memory_bytes"),
    *("authority_days", "server_days", "device_days", "renew_days"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder; keep it to yourself")
    parser.add_argument("--federation", metavar="NAME", help="needed for a new folder")
    parser.add_argument(
        "--clients", type=Path, metavar="FILE", help="devices that are to be in: an id in each line, # for comments"
    )
    parser.add_argument("--task", type=Path, metavar="FILE", help="the task file, copied into new bundles")
    change = parser.add_argument_group("changes")
    change.add_argument("--add", nargs="+", action="extend", default=[], metavar="ID", help="more devices")
    change.add_argument(
        "--revoke", nargs="+", action="extend", default=[], metavar="ID", help="take devices out, for good"
    )
    change.add_argument(
        "--renew",
        nargs="*",
        metavar="ID",
        help="renew the certificates that are near their end, or those of ID…, with a new password if the bundle of"
        " that one is not here",
    )
    change.add_argument("--all", action="store_true", help="with --renew: all of them")
    broker = parser.add_argument_group("the broker")
    broker.add_argument(
        "--host",
        action="append",
        metavar="NAME",
        help="name or address under which devices reach it; repeat it for more: the first is written into bundles, and"
        " under others than these nobody can connect (default: localhost, for this machine only)",
    )
    broker.add_argument("--port", type=int, help="(default: 8883)")
    broker.add_argument(
        "--listen", action="append", metavar="ADDRESS", help="of its machine, a single one (default: all)"
    )
    broker.add_argument(
        "--login",
        choices=("both", "certificate", "password"),
        help="what a client shows: certificate and password (default), or one of them",
    )
    broker.add_argument("--memory-bytes", type=int, metavar="N", help="that it may take (default: 1 GiB)")
    lifetimes = parser.add_argument_group("lifetimes of certificates")
    lifetimes.add_argument("--authority-days", type=int, metavar="N", help="(default: 3650)")
    lifetimes.add_argument("--server-days", type=int, metavar="N", help="the broker's (default: 397)")
    lifetimes.add_argument("--device-days", type=int, metavar="N", help="every account's (default: 730)")
    lifetimes.add_argument("--renew-days", type=int, metavar="N", help="what ends sooner is due (default: 60)")


def run(options: argparse.Namespace) -> int:
    """Do it."""
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError('certificates need the package cryptography; "pip install fedmq[secure]" installs it')
    from fedmq.broker_config.provision.provisioning import provision

    if options.all and options.renew is None:
        raise ConfigError("--all goes with --renew; it says that all certificates are to be renewed")

    request = _request(options)

    def tell(outcome: Outcome) -> None:
        print("\n".join(summary(options.out, request, outcome)), flush=True)

    outcome = provision(options.out, request, datetime.now(UTC), tell)
    for line in _clear(options.out, outcome.record.uncleared):
        print(line)
    return 0


def _request(options: argparse.Namespace) -> Request:
    from fedmq.broker_config.provision.client_list import read_clients
    from fedmq.broker_config.provision.decisions import Request

    if options.task is not None and not options.task.is_file():
        raise ConfigError(f"--task {options.task}: there is no such file")
    changes: dict[str, Any] = {name: getattr(options, name) for name in _DECIDED if getattr(options, name) is not None}
    if options.task is not None:
        changes["task"] = str(options.task.resolve())
    if options.listen is not None:
        if len(options.listen) > 1:
            raise ConfigError(
                f"--listen is there {len(options.listen)} times; Mosquitto listens on one address of its machine, or,"
                " without --listen, on all"
            )
        changes["listen"] = options.listen[0]
    if options.host:
        changes["hosts"] = tuple(dict.fromkeys(options.host))
    return Request(
        federation=options.federation,
        clients=read_clients(options.clients) if options.clients is not None else (),
        clients_from=str(options.clients),
        add=tuple(options.add),
        revoke=tuple(options.revoke),
        renew=tuple(options.renew or ()),
        renew_due=options.renew is not None and not options.renew,
        renew_all=options.all,
        changes=changes,
    )


def _clear(out: Path, client_ids: Sequence[str]) -> list[str]:
    """Remove what revoked devices have left on the broker; what came of it."""
    from fedmq.broker_config.provision.folder import OPERATOR, Folder
    from fedmq.broker_config.provision.provisioning import note_cleared
    from fedmq.revoked_topics import clear_topics
    from fedmq.settings import load_settings

    if not client_ids:
        return []
    try:
        settings = load_settings(Folder(out).bundle(OPERATOR) / "federation.toml", environment={})
        clear_topics(settings, client_ids, _CLEAR_SECONDS)
    except (ConfigError, TransportError) as error:
        return [f"what {some(client_ids)} left on the broker may still be there ({error}); run this again later"]
    note_cleared(out, client_ids)
    return [f"what {some(client_ids)} left on the broker is removed"]
