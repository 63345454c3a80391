"""Has Python look for garbage in cycles seldom: the aggregator makes next to none."""

from __future__ import annotations

import gc

__all__ = ["look_for_cycles_seldom"]

_OBJECTS = 50_000  # more than there were, until the newest are looked through


def look_for_cycles_seldom() -> None:
    """Set it for this whole process, and never look through what is there now.

    Verdicts wait for their commit by the thousand. To look through them for cycles every 700 objects, as Python does,
    takes a twentieth of all that is done with a small update.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
