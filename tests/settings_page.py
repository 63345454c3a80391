"""Writes docs/settings.md from the settings' own models: `python -m tests.settings_page > docs/settings.md`."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.staleness import exponential, hinge, polynomial
from fedmq.aggregator.strategies import STRATEGIES
from fedmq.broker_config.settings import BrokerSettings
from fedmq.edge_client.config import DeviceSettings
from fedmq.schemas.plan import Plan
from fedmq.signing_settings import SigningSettings

INTRODUCTION = """# Settings

Every key of `federation.toml`, with its default. Beside the sections there are `federation`, the name that is also the
topic prefix and has to be there, and `task`, the path of the task file. Relative paths count from the file's folder.

Any key can be overridden: `--set plan.learning_rate=0.01`, or `FEDMQ_PLAN__LEARNING_RATE=0.01` in the environment. A
section or key that does not exist, or a value of another type, is an error that names it. Aggregator and devices may
read the same file: each uses what concerns it, and a login that differs from device to device goes into the environment
(`FEDMQ_BROKER__USERNAME`).

This page is written by `python -m tests.settings_page`, and a test compares.
"""

STALENESS = {"polynomial": polynomial, "hinge": hinge, "exponential": exponential}

SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("broker", BrokerSettings, "How to reach the broker."),
    (
        "plan",
        Plan,
        "How to train. The aggregator's file decides; it travels with the model.",
    ),
    (
        "aggregator",
        AggregatorSettings,
        "How updates become versions. Settings of a strategy have its default unless they are given; they are explained"
        " in [Algorithms](algorithms.md).",
    ),
    ("aggregator.goal", Goal, "Whatever comes first ends the run; with none it goes on until it is stopped."),
    ("device", DeviceSettings, "What a device decides for itself."),
    (
        "signing",
        SigningSettings,
        "Keys that sign what is sent and verify what is heard. Without them nothing is signed.",
    ),
)


def page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for name, model, sentence in SECTIONS:
        described = dict(re.findall(r"^ +(\w+): (.*)$", model.__doc__ or "", re.MULTILINE))
        rows = [f"## `[{name}]`\n\n{sentence}\n\n| key | default | |\n| --- | --- | --- |"]
        for key, field in model.model_fields.items():
            if key != "goal":
                text = field.description or described.get(key) or f"{defaults(key)}; see Algorithms"
                rows.append(f"| `{key}` | {shown(field.default)} | {text.replace('|', '&#124;')} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def defaults(key: str) -> str:
    """What a setting of strategies, or of staleness functions, is where it is not given."""
    letter = key.removeprefix("staleness_")
    makers: dict[str, Any] = STRATEGIES if letter == key else STALENESS
    found: dict[str, list[str]] = {}
    for name, make in makers.items():
        parameter = inspect.signature(make).parameters.get(letter)
        if parameter is not None:
            found.setdefault(shown(parameter.default).strip('"') or "none", []).append(name)
    everywhere = [value for value, names in found.items() if len(names) == len(makers)]
    return "; ".join(everywhere or [f"{value} in {', '.join(names)}" for value, names in found.items()])


def shown(default: Any) -> str:
    """A default as it would stand in the file."""
    if default is None or default is PydanticUndefined:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f'"{default}"' if isinstance(default, str) else "[]" if default == () else f"{default}"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 (that is what it does)
