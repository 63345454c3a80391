"""The demo's picture: accuracy against time, and how stale the updates were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedmq.demo.plan import TARGET
from fedmq.demo.run import Result

__all__ = ["draw"]

_COLOURS = ("#1f6feb", "#d4622a", "#7a8a3a")
_INK = "#333333"


def draw(path: Path, results: Sequence[Result], central_accuracy: float | None) -> None:
    """Write the picture as PNG; the first result is FedMQ's own."""
    import matplotlib

    matplotlib.use("Agg")  # no window, and no display is needed
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained")
    for result, colour in zip(results, _COLOURS, strict=False):
        seconds = [sample.seconds for sample in result.samples if "accuracy" in sample.metrics]
        accuracy = [sample.metrics["accuracy"] for sample in result.samples if "accuracy" in sample.metrics]
        left.plot(seconds, accuracy, color=colour, linewidth=1.8, label=result.name)
    left.axhline(TARGET, color=_INK, linewidth=0.8, linestyle=":")
    left.annotate(
        f"target {TARGET:.2f}", (0, TARGET), xytext=(4, 3), textcoords="offset points", fontsize=8, color=_INK
    )
    title = "Validation accuracy, mean over the devices"
    if central_accuracy is not None:
        title += f"\n(test: {results[0].accuracy:.3f}, trained centrally {central_accuracy:.3f})"
    left.set(title=title, xlabel="seconds since the first weights", ylabel="accuracy", ylim=(0, 1.02), xlim=(0, None))
    left.legend(frameon=False, loc="lower right")
    counts = Counter(results[0].stalenesses)
    right.bar(list(counts), list(counts.values()), color=_COLOURS[0], width=0.8)
    right.set(
        title=f"Staleness of {results[0].updates:,} updates, {results[0].name}\n(mean {results[0].mean_staleness:.1f})",
        xlabel="versions between base and use",
        ylabel="updates",
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(10)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
