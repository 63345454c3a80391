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

from fedmq.schemas.errors import ConfigError, TransportError

if TYPE_CHECKING:
    from fedmq.broker_config.provision.decisions import Request
    from fedmq.broker_config.provision.provisioning import Outcome

EXAMPLE = "fedmq provision --federation gestures --clients ids.txt --host broker.example --out secure"

_CLEAR_SECONDS = 8.0
_SHOWN = 3
# The fields of the record that an option of the same name decides.
_DECIDED = (
    *("port", "listen", "login", "memory_bytes"),
    *("authority_days", "server_days", "device_days", "renew_days"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder; keep it to yourself")
    parser.add_argument("--federation", metavar="NAME", help="needed for a new folder")
    parser.add_argument("--clients", type=Path, metavar="FILE", help="the devices: an id in each line, # for comments")
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
        help="name or address under which devices reach it, the first is written into bundles (default: localhost)",
    )
    broker.add_argument("--port", type=int, help="(default: 8883)")
    broker.add_argument("--listen", metavar="ADDRESS", help="of its machine (default: all)")
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

    def tell(outcome: Outcome) -> None:
        print("\n".join(_summary(options.out, outcome)), flush=True)

    outcome = provision(options.out, _request(options), datetime.now(UTC), tell)
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


def _summary(out: Path, outcome: Outcome) -> list[str]:
    record = outcome.record
    where = f"broker {record.hosts[0]}:{record.port}"
    lines = [f"{out}: federation {record.federation}, {_count(record.devices, 'device')}, {where}"]
    if not outcome.changed and not outcome.opened:
        lines.append("nothing to do: everything is as it should be")
    lines += _bundles(out, outcome)
    if not outcome.new:
        lines += _to_carry(out, outcome)
    if outcome.opened:
        names = _some([str(path.relative_to(out)) if path != out else str(out) for path in outcome.opened])
        lines.append(f"could be read by others, and is closed now: {names}; renew what they may have seen")
    if outcome.absent:
        lines.append(
            f"not here, so left as it is: {_some(outcome.absent)}; --renew ID makes a bundle anew, with a new password"
        )
    if outcome.elsewhere:
        lines.append(
            f"federation.toml of {_some(outcome.elsewhere)} names another broker; it is yours: change it there"
        )
    if outcome.due or outcome.broker_due:
        due = _some([*(["the broker's certificate"] if outcome.broker_due else []), *outcome.due])
        lines.append(f"ends within {record.renew_days} days: {due}; --renew renews it")
    if outcome.new:
        lines += _next(out, record.devices[0], record.task)
    return lines


def _bundles(out: Path, outcome: Outcome) -> list[str]:
    """Which bundles are other than they were, and what is to be done with them."""
    lines = []
    whole = [name for name in outcome.bundles if name not in outcome.without_password]
    if whole:
        lines.append(f"made or renewed: {_some(whole)}; each folder goes to its machine, and to no other")
    if outcome.without_password:
        lines.append(
            f"renewed without password and settings, which only their machines have: {_some(outcome.without_password)};"
            " copy the files over those that are there"
        )
    if outcome.locked_out:
        lines.append(f"a new password: {_some(outcome.locked_out)}; cut off until the new bundle is on its machine")
    return lines


def _to_carry(out: Path, outcome: Outcome) -> list[str]:
    """What has to be taken to machines beside bundles."""
    lines = []
    if "aggregator/signing.pem" in outcome.changed:
        lines.append(
            f"take {out}/aggregator/aggregator-keys to every device and the operator first, then the aggregator's"
            " folder to its machine"
        )
    if "aggregator/device-keys" in outcome.changed:
        lines.append(
            f"{out}/aggregator/device-keys goes to the aggregator's and the operator's machine; it is read without a"
            " restart"
        )
    if outcome.revoked:
        lines.append(
            f"revoked: {_some(outcome.revoked)}; take {out}/aggregator/revoked to the aggregator's machine; what was in"
            f" {out}/devices for them is deleted"
        )
    elif "aggregator/revoked" in outcome.changed:
        lines.append(f"take {out}/aggregator/revoked to the aggregator's machine")
    if outcome.broker:
        restart = "start it again" if "mosquitto.conf" in outcome.broker else "send it SIGHUP"
        lines.append(
            f"changed for the broker: {', '.join(outcome.broker)}; `fedmq broker --secure` follows by itself, else take"
            f" {out}/broker to its machine and {restart}"
        )
    if outcome.redated:
        lines.append(
            "the list of revoked certificates was dated in the future, by a clock that was ahead, and is made anew;"
            " start the broker again, also one of `fedmq broker --secure`: one that runs keeps the list from before"
        )
    return lines


def _next(out: Path, device: str, task: str | None) -> list[str]:
    copied = f"task.py in each bundle is a copy of {task}; if it imports files beside it, copy them there too"
    return [
        "no --task was given: put your task file into each bundle, and name it in its federation.toml"
        if task is None
        else copied,
        f"keep {out}/authority/key.pem safe and offline: whoever has it can make certificates of this authority",
        "next:",
        f"  fedmq broker --secure {out}",
        f"  fedmq aggregator --config {out}/aggregator/federation.toml",
        f"  fedmq client --config {out}/devices/{device}/federation.toml",
        f"  fedmq status --config {out}/operator/federation.toml",
    ]


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
        return [f"what {_some(client_ids)} left on the broker may still be there ({error}); run this again later"]
    note_cleared(out, client_ids)
    return [f"what {_some(client_ids)} left on the broker is removed"]


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}" + ("" if len(names) == 1 else "s")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
