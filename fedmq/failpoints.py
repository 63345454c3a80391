"""Named places between the steps of what happens to an update, at which a test can have the process die.

Off unless the environment says otherwise: FEDMQ_CRASH_AT="committed:3,receipt-sent:1" kills the process with SIGKILL at
the third passing of `committed` or the first of `receipt-sent`, whichever comes first; the name is written to the file
FEDMQ_CRASH_LOG before.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping

from fedmq.schemas.errors import ConfigError

__all__ = ["AGGREGATOR_POINTS", "CLIENT_POINTS", "crash_points"]

AGGREGATOR_POINTS = (
    "judged",
    "vectors-written",
    "vectors-renamed",
    "transaction-open",
    "committed",
    "receipt-sent",
    "snapshot-sent",
)
"""A verdict is in memory; files are synced aside, and named; rows are written, and committed; what follows is sent."""

CLIENT_POINTS = ("trained", "stored", "offered", "receipt-read", "deleted")
"""An update is in memory, in the outbox, on its way; its receipt is there; it is out of the outbox."""


def crash_points(environment: Mapping[str, str] = os.environ) -> Callable[[str], None]:
    """What to call with the name of each step that is done.

    Raises:
        ConfigError: FEDMQ_CRASH_AT names a place that is none.

    """
    said = environment.get("FEDMQ_CRASH_AT", "")
    if not said:
        return lambda step: None
    wanted: dict[str, int] = {}
    for part in said.split(","):
        name, _, number = part.partition(":")
        if name not in AGGREGATOR_POINTS + CLIENT_POINTS or not number.isdigit():
            raise ConfigError(f"FEDMQ_CRASH_AT={said}: expected NAME:NUMBER, found {part!r}")
        wanted[name] = int(number)
    passed: Counter[str] = Counter()
    log = environment.get("FEDMQ_CRASH_LOG")

    def step(name: str) -> None:
        passed[name] += 1
        if passed[name] == wanted.get(name):
            if log:
                with open(log, "a", encoding="utf-8") as file:
                    file.write(f"{name}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    return step
