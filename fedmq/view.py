"""What a person sees of a testbed at work: a live table on a terminal, plain lines elsewhere. On standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fedmq.status_text import failed, in_bytes
from fedmq.watch import Watch

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["View"]

_PLAIN_INTERVAL = 3.0


class View:
    """A context manager; `show` as often as you like.

    Args:
        title: first line.
        footer: last line.
        metric: which of the devices' metrics is shown; accuracy if they have one, else loss, if None.
        target: the metric's goal; None for no goal.
        seconds: when the run ends at the latest; None for no end.
        speeds: of the clients, as factors; shown if given.

    """

    def __init__(
        self,
        title: str,
        *,
        footer: str = "",
        metric: str | None = None,
        target: float | None = None,
        seconds: float | None = None,
        speeds: Mapping[str, float] | None = None,
    ) -> None:
        self._title = title
        self._footer = footer
        self._metric = metric
        self._target = target
        self._seconds = seconds
        self._speeds = speeds or {}
        self._live = None
        self._plain_at = float("-inf")
        self._plain = ""
        self._failed: set[str] = set()  # as it was said
        if sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.live import Live
            except ImportError:
                return  # the extra `view` is not there: plain lines do
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, watch: Watch, clients: int, seconds: float) -> None:
        """Show what the watch has heard, `seconds` after the first weights; 0 while clients are still starting."""
        if self._live is not None:
            self._live.update(self._picture(watch, clients, seconds), refresh=True)
            return
        for line in _failing(watch):
            if line not in self._failed:  # it is tried again and again
                self._failed.add(line)
                print(f"{self._title}: {line}", file=sys.stderr, flush=True)
        if time.monotonic() >= self._plain_at + _PLAIN_INTERVAL:
            news = self._news(watch, clients)
            if news != self._plain:  # the time alone is none
                self._plain, self._plain_at = news, time.monotonic()
                print(self._line(watch, clients, seconds), file=sys.stderr, flush=True)

    def _line(self, watch: Watch, clients: int, seconds: float) -> str:
        news = self._news(watch, clients)
        if watch.progress is None:
            return f"{self._title}: {news}"
        if self._seconds:
            return f"{self._title}: {min(seconds, self._seconds):4.0f} of {self._seconds:g} s  {news}"
        return f"{self._title}: {seconds:4.0f} s  {news}"

    def _news(self, watch: Watch, clients: int) -> str:
        progress = watch.progress
        online = sum(status.state == "online" for status in watch.clients.values())
        if progress is None:
            return f"{online} of {clients} clients ready"
        name, value = self._measured(watch)
        parts = [f"version {progress.version}", "nothing measured yet" if value is None else f"{name} {value:.3f}"]
        if progress.updates:
            parts.append(f"{progress.updates_per_second:.1f} updates/s")
            parts.append(f"mean staleness {progress.mean_staleness:.1f}")
            parts.append(f"{in_bytes(progress.uplink_bytes / progress.updates)} an update")
        if progress.state == "training":  # at the end all leave, which looks like an accident
            failing = f", {len(watch.failing)} failing" if watch.failing else ""
            parts.append(f"{online} of {clients} clients{failing}")
        return "  ".join(parts)

    def _measured(self, watch: Watch) -> tuple[str, float | None]:
        """What is shown, and the devices' mean of it, None until there is one."""
        devices = watch.progress.devices if watch.progress else None
        means = devices.mean if devices else {}
        name = self._metric or ("loss" if "loss" in means and "accuracy" not in means else "accuracy")
        return name, means.get(name)

    def _picture(self, watch: Watch, clients: int, seconds: float) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        name, value = self._measured(watch)
        table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
        for column in ("client", "state"):
            table.add_column(column)
        for column in ("speed", "trained on", "accepted", name, "sent", "received"):
            table.add_column(column, justify="right")
        for client_id, status in sorted(watch.clients.items()):
            activity = status.activity if status.state == "online" else "offline"
            colour = {"training": "green", "waiting": "yellow", "error": "red", "offline": "red"}.get(activity, "")
            factor = self._speeds.get(client_id)
            table.add_row(
                client_id,
                Text(activity, style=colour),
                f"{factor:.1f} x" if factor else "",
                "" if status.base_version is None else f"version {status.base_version}",
                str(status.accepted),
                f"{status.metrics[name]:.3f}" if name in status.metrics else "",
                in_bytes(status.uplink_bytes),
                in_bytes(status.downlink_bytes),
            )
        done = seconds / self._seconds if self._seconds else 0.0
        if self._target is not None:
            done = (value or 0.0) / self._target
        goal = f" / {self._target:g}" if self._target is not None else ""
        bar = ProgressBar(total=1.0, completed=min(1.0, max(0.0, done)))
        first = Text(self._line(watch, clients, seconds))
        parts: list[RenderableType] = [first, Text(""), table, Text("")]
        if watch.failing:
            parts += [*(Text(line, style="red") for line in _failing(watch)), Text("")]
        if watch.progress is not None:
            parts += [Text("" if value is None else f"{name} {value:.3f}{goal}"), bar]
        return Panel(Group(*parts), subtitle=self._footer or None, border_style="dim")


def _failing(watch: Watch) -> list[str]:
    return [failed(client_id, why) for client_id, why in sorted(watch.failing.items())]
