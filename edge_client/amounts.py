"""Bytes in words: one unit for a part and its whole."""

from __future__ import annotations

__all__ = ["beyond", "of"]

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def of(part: int, whole: int) -> str:
    """Such as "0.9 of 1.5 MB"."""
    unit, name = _unit(whole)
    return f"{part / unit:.{1 if unit > 1 else 0}f} of {whole / unit:.3g} {name}"


def beyond(used: int, needed: int, whole: int) -> tuple[str, str]:
    """Such as "3.0 of 5 MB" and "2.5 MB", with as many digits as show that the two are more than the whole."""
    unit, name = _unit(whole)
    digits, most = (1, len(str(unit)) - 1) if unit > 1 else (0, 0)
    while True:
        step = unit // 10**digits
        parts = [round(number / step) for number in (used, needed, whole)]
        if digits == most or parts[0] + parts[1] > parts[2]:
            break
        digits += 1
    first, second, limit = (f"{part * step / unit:.{digits}f}" for part in parts)
    return f"{first} of {limit.rstrip('0').rstrip('.') if digits else limit} {name}", f"{second} {name}"


def _unit(whole: int) -> tuple[int, str]:
    return next(((unit, name) for unit, name in _UNITS if whole >= unit), (1, "B"))
