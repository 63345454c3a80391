"""How much a stale update weighs: functions s(tau) of the staleness in versions.

A fresh update weighs exactly 1 and s never rises. From Xie, Koyejo and Gupta 2019, arXiv 1903.03934, section 5.2;
exponential is the common fourth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

from fedmq.schemas.errors import ConfigError

__all__ = ["Staleness", "StalenessName", "constant", "exponential", "hinge", "polynomial", "staleness_named"]

Staleness = Callable[[int], float]
"""(staleness in versions, at least 0) -> weight in (0, 1]."""

StalenessName = Literal["constant", "polynomial", "hinge", "exponential"]

_LEAST = 1e-30  # never quite 0, so that the sum of weights in a buffer cannot be 0


def constant() -> Staleness:
    """s = 1: stale or not is all the same."""
    return lambda tau: 1.0


def polynomial(a: float = 0.5) -> Staleness:
    """s = (1 + tau)^-a."""
    _require(a >= 0, "polynomial", "a", a)
    return lambda tau: max(float((1.0 + tau) ** -a), _LEAST)


def hinge(a: float = 10.0, b: float = 4.0) -> Staleness:
    """s = 1 up to staleness b, then 1 / (a (tau - b) + 1)."""
    _require(a >= 0, "hinge", "a", a)
    _require(b >= 0, "hinge", "b", b)
    return lambda tau: 1.0 if tau <= b else max(1.0 / (a * (tau - b) + 1.0), _LEAST)


def exponential(a: float = 0.1) -> Staleness:
    """s = e^(-a tau)."""
    _require(a >= 0, "exponential", "a", a)
    return lambda tau: max(math.exp(-a * tau), _LEAST)


def staleness_named(name: StalenessName, a: float | None = None, b: float | None = None) -> Staleness:
    """The function of this name; a and b where it has them and they are given.

    Raises:
        ConfigError: no such name, or a number that would make s rise or is not used by it.

    """
    given = {key: value for key, value in (("a", a), ("b", b)) if value is not None}
    functions = {"constant": constant, "polynomial": polynomial, "hinge": hinge, "exponential": exponential}
    if name not in functions:
        raise ConfigError(f"staleness {name!r}: expected one of {', '.join(get_args(StalenessName))}")
    try:
        return functions[name](**given)
    except TypeError as error:
        raise ConfigError(f"staleness {name!r} does not take {' and '.join(given)}") from error


def _require(holds: bool, name: str, key: str, value: float) -> None:
    if not (holds and math.isfinite(value)):
        raise ConfigError(f"staleness {name!r}: {key} = {value}, expected a finite number of at least 0")
