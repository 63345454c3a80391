"""What a federation's topics say, in words and units for people. Nothing that was said becomes a line of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from fedmq.printable import in_one_line, printable
from fedmq.schemas.messages import AggregatorPresence, ClientStatus, Progress, Quarantined

__all__ = [
    "client_text",
    "clients_table",
    "failed",
    "in_bytes",
    "judged",
    "measured",
    "not_shown",
    "quarantined",
    "run_text",
]

_COUNTED = (
    "accepted, sent and received count from the start of a device's process; base is the version that it trained from"
)


def in_bytes(number: float) -> str:
    """A number of bytes for people, such as 1.24 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5 or unit == "GB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def measured(metrics: Mapping[str, float]) -> str:
    """Metrics for people, such as loss 3.187."""
    return ", ".join(f"{in_one_line(name)} {value:.4g}" for name, value in metrics.items())


def run_text(aggregator: AggregatorPresence | None, progress: Progress | None) -> Iterator[str]:
    """Lines about the run."""
    return map(printable, _of_run(aggregator, progress))


def _of_run(aggregator: AggregatorPresence | None, progress: Progress | None) -> Iterator[str]:
    gone = False
    if aggregator is not None:
        yield f"aggregator {aggregator.state}, run {aggregator.run}"
        if aggregator.detail:
            yield f"  {in_one_line(aggregator.detail)}"
        gone = aggregator.state == "offline"
    if progress is None:
        return
    # What an aggregator that is gone has said of its present is over.
    state = "when last shown" if gone and progress.state == "training" else progress.state
    rate = "" if gone else f" ({progress.updates_per_second:.2f}/s)"
    yield (
        f"version {progress.version}, {state}, {progress.updates} updates{rate},"
        f" mean staleness {progress.mean_staleness:.2f},"
        f" {progress.strategy}, K = {progress.buffer_size}, goal: {progress.goal}"
    )
    if progress.waits and not gone:
        yield f"waits: {progress.waits}"
    if progress.limits:
        yield f"limits: {progress.limits}"
    if progress.updates:
        yield f"{in_bytes(progress.uplink_bytes / progress.updates)} an update"
    if progress.devices is not None:
        number = progress.devices.clients
        yield f"mean of {number} {'device' if number == 1 else 'devices'}: {measured(progress.devices.mean)}"
    if progress.aggregator:
        yield f"aggregator's own, version {progress.aggregator_version}: {measured(progress.aggregator)}"
    for reason, count in progress.rejected.items():
        yield f"rejected {count}: {reason}"
    for one in progress.quarantine:
        yield quarantined(one)
    if (more := progress.quarantined - len(progress.quarantine)) > 0:
        yield f"in quarantine: {more} more"
    for put_off, count in progress.later.items():
        yield f"put off {count}: {put_off}"


def clients_table(clients: Mapping[str, ClientStatus], unheard: Mapping[str, str] | None = None) -> Iterator[str]:
    """A line for each client, under a line that says what is in it; `-` is not known.

    Args:
        clients: their statuses.
        unheard: clients whose last status shows nothing, and why; one may have shown another before.

    """
    return map(printable, _rows(clients, unheard or {}))


def _rows(clients: Mapping[str, ClientStatus], unheard: Mapping[str, str]) -> Iterator[str]:
    if not clients and not unheard:
        return
    yield _row("client", "state", "activity", "base", "accepted", "waiting", "sent", "received", "detail")
    for name in sorted({*clients, *unheard}):
        if name in unheard:
            yield f"{name:<20} unreadable or unsigned status: {unheard[name]}"
        if name not in clients:
            continue
        status = clients[name]
        base = "-" if status.base_version is None else str(status.base_version)
        moved = (in_bytes(status.uplink_bytes), in_bytes(status.downlink_bytes))
        figures = (base, str(status.accepted), str(status.waiting), *moved)
        if _only_gone(status):
            figures = ("-",) * 5
        activity = "-" if status.state == "offline" else status.activity
        yield _row(name, status.state, activity, *figures, in_one_line(status.detail))
    if clients:
        yield _COUNTED


def failed(client_id: str, why: str) -> str:
    """Whose training failed, and why, in one line: what torch says of a shape may have several."""
    return f"{client_id}: {in_one_line(why)}"


def quarantined(one: Quarantined) -> str:
    """Who is in quarantine, why, and until when."""
    return f"in quarantine: {one.client_id} ({one.reason}), since {_moment(one.since)}, until {_moment(one.until)}"


def _moment(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OSError, OverflowError, ValueError):
        return "a time that no clock shows"


def judged(client_id: str, verdicts: Mapping[str, int]) -> str:
    """What the aggregator has last said to a client."""
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(verdicts.items(), key=lambda item: -item[1]))
    number = sum(verdicts.values())
    return f"the aggregator's last {number} {'verdict' if number == 1 else 'verdicts'} on {client_id}: {said}"


def client_text(status: ClientStatus) -> str:
    """Everything that is known of one client."""
    return "\n".join([status.client_id, *(printable(f"  {name:<11} {said}") for name, said in _facts(status))])


def not_shown(client_id: str, why: str) -> str:
    """That what is on a client's status topic is not its word, or cannot be read."""
    return f"{client_id}: its last status is unreadable or unsigned, and not shown: {in_one_line(why)}"


def _facts(status: ClientStatus) -> Iterator[tuple[str, str]]:
    yield "state", status.state if status.state == "offline" else f"{status.state}, {status.activity}"
    if status.detail:
        yield "detail", in_one_line(status.detail)
    if _only_gone(status):
        yield "", "its process has ended; what it did before is not known here"
        return
    if status.base_version is not None:
        yield "trained on", f"version {status.base_version}" + (f" of run {status.run}" if status.run else "")
    if status.metrics:
        yield "measured", measured(status.metrics)
    yield "outbox", f"{status.waiting} {'update waits' if status.waiting == 1 else 'updates wait'}"
    yield "verdicts", f"{status.accepted} accepted, {status.rejected} rejected, since its process started"
    moved = f"{in_bytes(status.uplink_bytes)} sent, {in_bytes(status.downlink_bytes)} received"
    yield "bytes", f"{moved}, since its process started"
    today = ((status.uplink_today, "up"), (status.downlink_today, "down"))
    if said := ", ".join(f"{in_bytes(number)} {way}" for number, way in today if number is not None):
        yield "today", f"{said}, with all that belongs to MQTT, since 00:00 UTC"
    if status.task_version:
        yield "task", f"version {status.task_version}"
    yield "process", f"{status.incarnation[:12]}, connection {status.connection}"


def _only_gone(status: ClientStatus) -> bool:
    """Whether this is a last will, which says nothing but that its client went."""
    return status.state == "offline" and status.connection == 0


def _row(*cells: str) -> str:
    widths: Iterable[str] = ("<20", "<8", "<10", ">6", ">8", ">7", ">9", ">9", "<0")
    *figures, detail = (f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{' '.join(figures)}  {detail}".rstrip()
