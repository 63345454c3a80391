"""Pictures of runs: a metric against time, and how stale the updates were. They need matplotlib."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmq.aggregator.export import Run
from fedmq.printable import in_one_line
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.schemas.refusals import kind_of

__all__ = ["Curve", "Staleness", "draw", "draw_run"]

_COLOURS = ("#1f6feb", "#d4622a", "#7a8a3a")
_INK = "#333333"
_FIRST = "accuracy"  # of the metrics of a run, if it has it


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric against time: a name for people, and at each of these seconds its value."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Staleness:
    """Of every accepted update of a run, in versions, and a name of that run for people, or none."""

    of: Sequence[int]
    name: str = ""


def draw(
    path: Path, title: str, metric: str, curves: Sequence[Curve], staleness: Staleness, *, target: float | None = None
) -> None:
    """Write the picture as PNG.

    Args:
        path: of the file.
        title: of the curves.
        metric: that they show.
        curves: three at most.
        staleness: for the bars beside them.
        target: of the metric, a line across; None for none.

    Raises:
        ConfigError: matplotlib is not installed.
        StoreError: the file cannot be written.

    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError(
            f"a picture such as {path} needs the package matplotlib, which is not installed: pip install matplotlib"
        ) from error
    matplotlib.use("Agg")  # no window, and no display is needed
    matplotlib.rcParams["text.parse_math"] = False  # a metric may be named $x, which is no formula
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained")
    for curve, colour in zip(curves, _COLOURS, strict=False):
        left.plot(curve.seconds, curve.values, color=colour, linewidth=1.8, label=curve.name)
    if target is not None:
        left.axhline(target, color=_INK, linewidth=0.8, linestyle=":")
        left.annotate(
            f"target {target:.2f}", (0, target), xytext=(4, 3), textcoords="offset points", fontsize=8, color=_INK
        )
    left.set(title=title, xlabel="seconds since the first weights", ylabel=metric, xlim=(0, None))
    if metric == "accuracy":
        left.set(ylim=(0, 1.02))
    if curves:
        left.legend(frameon=False, loc="lower right" if metric == "accuracy" else "best")
    counts = Counter(staleness.of)
    right.bar(list(counts), list(counts.values()), color=_COLOURS[0], width=0.8)
    number = len(staleness.of)
    whose = f", {staleness.name}" if staleness.name else ""
    mean = sum(staleness.of) / number if number else 0.0
    right.set(
        title=f"Staleness of {number:,} updates{whose}\n(mean {mean:.1f})",
        xlabel="versions between base and use",
        ylabel="updates",
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(10)
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise kind_of(error)(f"{path}: it cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)


def draw_run(path: Path, run: Run) -> None:
    """Write a picture of a run: accuracy, or else its first metric, as devices and aggregator measured it.

    Raises:
        ConfigError: matplotlib is not installed.
        StoreError: there is nothing to draw yet, or the file cannot be written.

    """
    if not run.history:
        raise StoreError(f"{path}: no version of run {run.run} was made yet, so there is nothing to draw; try later")
    measured = {
        "the devices' mean": [(r["seconds"], r["devices"]["mean"]) for r in run.history if r["devices"]],
        "the aggregator's own": [(r["seconds"], r["aggregator"]) for r in run.history if r["aggregator"]],
    }
    names = [name for rows in measured.values() for _, metrics in rows for name in metrics]
    metric = _FIRST if _FIRST in names else next(iter(names), "")
    curves = [
        Curve(name, [at for at, metrics in rows if metric in metrics], [m[metric] for _, m in rows if metric in m])
        for name, rows in measured.items()
        if any(metric in metrics for _, metrics in rows)
    ]
    shown = in_one_line(metric)
    title = f"{shown.capitalize()} up to version {run.version}" if metric else "Nobody has evaluated the model"
    staleness = [update["staleness"] for record in run.history for update in record["updates"]]
    draw(path, title, shown, curves, Staleness(staleness))
