"""Old snapshots, for strategies that mix: a few, the newer ones close together and the older ones further apart.

The last few alone would be as old as versions are quick: one fast device would have all that slower ones send refused.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["HELD_BASES", "nearest", "to_drop"]

HELD_BASES = 16
"""Snapshots whose weights are held for a strategy that mixes."""

_NEWEST = 8  # that are all held


def to_drop(held: Iterable[int]) -> int | None:
    """The version that is to go when there are more than are held: where the gap is smallest for its age.

    The oldest stays, so every base since then lies between two that are held. For the first thousand snapshots, none is
    further from a held one than half of its age, and a seventh of it in the mean.
    """
    versions = sorted(held)
    if len(versions) <= HELD_BASES:
        return None
    newest = versions[-1]

    def gap(place: int) -> float:
        older, younger = versions[place - 1], versions[place + 1]
        return (younger - older) / (newest - older)

    return versions[min(range(1, HELD_BASES + 1 - _NEWEST), key=gap)]


def nearest(held: Iterable[int], version: int) -> int | None:
    """The held version that stands for this one; of two, the older. None for what is older than all that are held."""
    versions = sorted(held)
    if not versions or version < versions[0]:
        return None
    return min(versions, key=lambda candidate: abs(candidate - version))
