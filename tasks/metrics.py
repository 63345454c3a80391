"""What a user's functions measure, made fit to travel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedmq.schemas.errors import ConfigError

__all__ = ["checked"]

_MOST = 32


def checked(metrics: Any, what: str) -> dict[str, float]:
    """Metrics as plain floats; those that are not finite are left out, since a diverged loss is no reason to stop.

    Args:
        metrics: name -> number; names are cut at 64 characters, and no more than 32 are kept.
        what: whose they are, for an error.

    Raises:
        ConfigError: they are something else.

    """
    if not isinstance(metrics, Mapping):
        raise ConfigError(f"{what}: a {type(metrics).__name__}, expected a dict of name -> number")
    try:
        plain = {str(name)[:64]: float(value) for name, value in metrics.items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: a metric that is not a number: {error}") from error
    if "" in plain:
        raise ConfigError(f"{what}: a metric without a name")
    return {name: value for name, value in list(plain.items())[:_MOST] if math.isfinite(value)}
