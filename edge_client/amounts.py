"""Bytes in words: one unit for a part and its whole."""

from __future__ import annotations

__all__ = ["in_words", "of"]

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def of(part: int, whole: int) -> str:
    """Such as "0.9 of 1.5 MB"."""
    unit, name = _unit(whole)
    return f"{part / unit:.{1 if unit > 1 else 0}f} of {whole / unit:.3g} {name}"


def in_words(number: int, whole: int) -> str:
    """A number of bytes in the unit that `of` would take for this whole, such as "1.5 MB"."""
    unit, name = _unit(whole)
    return f"{number / unit:.1f} {name}"


def _unit(whole: int) -> tuple[int, str]:
    return next(((unit, name) for unit, name in _UNITS if whole >= unit), (1, "B"))
