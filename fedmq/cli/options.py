"""Options that several commands have."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from fedmq.logs import log_to_stderr
from fedmq.schemas.errors import ConfigError
from fedmq.settings import Settings, load_settings

__all__ = ["FILE", "LOG_LEVELS", "add_settings", "check_seconds", "settings_of"]

LOG_LEVELS = ("debug", "info", "warning", "error")

_OPTIONS = {"federation": "--federation", "broker.url": "--broker"}
FILE = Path("federation.toml")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--config and what overrides the file."""
    group = parser.add_argument_group("settings")
    group.add_argument("--config", type=Path, metavar="FILE", help="the federation's file (default: federation.toml)")
    group.add_argument("--federation", metavar="NAME", help="the federation's name, over the file's")
    group.add_argument("--broker", metavar="URL", help="mqtt://host:1883 or mqtts://host:8883, over the file's")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="any other setting, such as plan.learning_rate=0.1; also FEDMQ_PLAN__LEARNING_RATE in the environment",
    )
    group.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="of the lines on standard error (default: info)",
    )


def settings_of(options: argparse.Namespace, *more: str) -> Settings:
    """The settings that these options choose; logging is set up."""
    log_to_stderr(options.log_level)
    path = options.config or (FILE if FILE.is_file() else None)
    overrides = list(options.overrides)
    if options.federation is not None:
        overrides.append(f'federation="{options.federation}"')
    if options.broker is not None:
        overrides.append(f'broker.url="{options.broker}"')
    named = "FEDMQ_FEDERATION" in os.environ or any(text.startswith("federation=") for text in [*overrides, *more])
    if path is None and not named:
        raise ConfigError("there is no federation.toml here; name one with --config, or give --federation NAME")
    names = {"federation": options.federation, "broker.url": options.broker}
    return load_settings(
        path, [*overrides, *more], options={key: _OPTIONS[key] for key, value in names.items() if value is not None}
    )


def check_seconds(option: str, seconds: float) -> None:
    """Raise ConfigError for what is no length of time; the option is named as it was given."""
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{option} {seconds:g}: expected a number of seconds above 0")
