"""What `fedmq provision` says of what it has done: what goes to which machine, and what to look after."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedmq.broker_config.provision.host_names import broker_url
from fedmq.broker_config.provision.record import DEFAULT_HOSTS

if TYPE_CHECKING:
    from fedmq.broker_config.provision.decisions import Request
    from fedmq.broker_config.provision.provisioning import Outcome

__all__ = ["some", "summary"]

_SHOWN = 3
_OPENED_SHOWN = 20
# Whoever has one of these can play the broker, or anyone.
_EVERYTHING = ("authority/key.pem", "broker/identity.pem")
_ACCOUNTS_SECRETS = ("password", "identity.pem", "signing.pem")


def summary(out: Path, request: Request, outcome: Outcome) -> list[str]:
    """The lines."""
    record = outcome.record
    where = f"broker {record.hosts[0]}:{record.port}"
    lines = [f"{out}: federation {record.federation}, {_count(record.devices, 'device')}, {where}"]
    unlisted = _unlisted(out, request, outcome)
    if not outcome.changed and not outcome.opened:
        lines.append("nothing was changed" if unlisted else "nothing to do: everything is as it should be")
    lines += unlisted
    lines += _bundles(out, outcome)
    if not outcome.new:
        lines += _to_carry(out, outcome)
    lines += _opened(out, outcome)
    if outcome.absent:
        lines.append(
            f"not here, so left as it is: {some(outcome.absent)}; --renew ID makes a bundle anew, with a new password"
        )
    lines += _hosts(outcome) + _ends(outcome)
    if outcome.new:
        lines += _next(out, record.devices[0], record.task)
    return lines


def _unlisted(out: Path, request: Request, outcome: Outcome) -> list[str]:
    """Who is in and was not named: as it should be after --add, and not where a line was taken out of the list."""
    named = {*request.clients, *request.add}
    others = [name for name in outcome.record.devices if name not in named]
    if not request.clients or not others:
        return []
    return [
        f"in, and not in {request.clients_from}: {some(others)}; right for what --add has added; a list takes nobody"
        f" out, `fedmq provision --out {out} --revoke ID` does"
    ]


def _bundles(out: Path, outcome: Outcome) -> list[str]:
    """Which bundles are other than they were, and what is to be done with them."""
    lines = []
    whole = [name for name in outcome.bundles if name not in outcome.without_password]
    if whole:
        lines.append(f"made or renewed: {some(whole)}; each folder goes to its machine, and to no other")
    if outcome.without_password:
        lines.append(
            f"renewed without password and settings, which only their machines have: {some(outcome.without_password)};"
            " copy the files over those that are there"
        )
    if outcome.locked_out:
        lines.append(f"a new password: {some(outcome.locked_out)}; cut off until the new bundle is on its machine")
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
            f"revoked: {some(outcome.revoked)}; take {out}/aggregator/revoked to the aggregator's machine; what was in"
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


def _opened(out: Path, outcome: Outcome) -> list[str]:
    """What others might have read, and what repairs that: not a renewal alone, which leaves at work what was before."""
    if not outcome.opened:
        return []
    names = [str(out) if name == "." else name for name in outcome.opened]
    lines = [f"could be read by others, and is closed now: {some(names, _OPENED_SHOWN)}"]
    everything = [name for name in names if name in _EVERYTHING]
    accounts = list(dict.fromkeys(Path(name).parent.name for name in names if Path(name).name in _ACCOUNTS_SECRETS))
    devices = [name for name in accounts if name in outcome.record.devices]
    others = [name for name in ("aggregator", "operator") if name in accounts]
    if everything or (others and outcome.record.login == "certificate"):
        # These certificates count until they end: no list of revoked ones is looked at for the broker's, or holds more
        # than devices.
        what = " or ".join(everything) or f"secrets of {' and '.join(others)}"
        return [
            *lines,
            f"nothing here makes {what} worthless for who has read it: provision the federation anew in another folder,"
            " and give the broker, the aggregator and every device what is new",
        ]
    if devices:
        lines.append(
            f"who has read secrets of {some(devices, _OPENED_SHOWN)} can act as these devices, also after --renew: take"
            f" them out with `fedmq provision --out {out} --revoke ID`, and give each another id with --add"
        )
    for name in others:
        renewed = f"move {out}/{name} away, then run `fedmq provision --out {out} --renew {name}`"
        if name == "aggregator":
            renewed += f" twice, and take {out}/{name}/aggregator-keys to every device before the aggregator starts"
        lines.append(f"who has read secrets of the {name} can act as it: {renewed}")
    if not accounts:
        lines.append("no key and no password was among that, so nothing has to be made anew")
    return lines


def _hosts(outcome: Outcome) -> list[str]:
    """Under which names the broker can be reached, and who looks for it under another."""
    record = outcome.record
    lines = []
    if outcome.hosts_gone:
        gone = outcome.hosts_gone
        keep = " ".join(f"--host {host}" for host in (*record.hosts, *gone))
        lines.append(
            f"who connects to the broker as {some(gone)} cannot any more (`Hostname mismatch`): its certificate is for"
            f" {', '.join(record.hosts)} only; to keep all: {keep}"
        )
    if outcome.elsewhere:
        lines.append(
            f"federation.toml of {some(outcome.elsewhere)} names a broker that is not"
            f" {broker_url(record.hosts[0], record.port)} under any of its names; it is yours: change `url` there"
        )
    if outcome.new and record.hosts == DEFAULT_HOSTS:
        lines.append(
            "bundles name the broker localhost, which is right on this machine only: for devices elsewhere remove the"
            " folder and begin again with --host NAME, the name or address under which they reach the broker"
        )
    return lines


def _ends(outcome: Outcome) -> list[str]:
    """Which certificates end soon, the first first, and which sooner than was asked for."""
    record = outcome.record
    lines = []
    if outcome.cut_short is not None:
        lines.append(
            f"the authority ends on {_day(outcome.cut_short)}, and what was made now ends with it, before its"
            f" {record.device_days} days (the broker's: {record.server_days}) are over"
        )
    ends = dict(outcome.due)
    if outcome.broker_due is not None:
        ends = {"the broker's certificate": outcome.broker_due} | ends
    if ends:
        due = [f"{name} on {_day(ends[name])}" for name in sorted(ends, key=lambda name: ends[name])]
        lines.append(f"ends within {record.renew_days} days: {some(due)}; --renew renews it")
    return lines


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d}"


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


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}" + ("" if len(names) == 1 else "s")


def some(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
