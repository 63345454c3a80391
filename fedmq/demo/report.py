"""The demo's picture: accuracy against time, and how stale the updates were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedmq.demo.plan import TARGET
from fedmq.demo.run import Result
from fedmq.report import Curve, Staleness, draw

__all__ = ["draw_demo"]


def draw_demo(path: Path, results: Sequence[Result], central_accuracy: float | None) -> None:
    """Write the picture as PNG; the first result is FedMQ's own. Errors as for `fedmq.report.draw`."""
    curves = [
        Curve(
            result.name,
            [sample.seconds for sample in result.samples if "accuracy" in sample.metrics],
            [sample.metrics["accuracy"] for sample in result.samples if "accuracy" in sample.metrics],
        )
        for result in results
    ]
    title = "Validation accuracy, mean over the devices"
    if central_accuracy is not None:
        title += f"\n(test: {results[0].accuracy:.3f}, trained centrally {central_accuracy:.3f})"
    draw(path, title, "accuracy", curves, Staleness(results[0].stalenesses, results[0].name), target=TARGET)
