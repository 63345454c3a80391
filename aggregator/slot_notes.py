"""What an aggregator has left in the slots on the broker, noted for the next process."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedmq.schemas.messages import Head

__all__ = ["SLOTS", "SlotNotes"]

log = logging.getLogger("fedmq.aggregator")

SLOTS = 2
"""One for the newest snapshot, and one for the one before it, or for who is slow."""


class SlotNotes:
    """A small file; without it, topics stay filled, and a slow device may have to begin anew.

    Args:
        path: of the file; None keeps nothing.

    Attributes:
        filled: of each slot, how many topics may hold something.
        heads: of each slot, of the snapshot whose parts are all out; None while there is none.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.filled = [0] * SLOTS
        self.heads: list[Head | None] = [None] * SLOTS
        try:
            noted: Any = json.loads(path.read_text(encoding="utf-8")) if path is not None else None
            self.filled = [int(noted["filled"][slot]) for slot in range(SLOTS)]
            heads = [noted["heads"][slot] for slot in range(SLOTS)]
            self.heads = [Head.model_validate_json(head) if head else None for head in heads]
        except (OSError, ValueError, TypeError, LookupError, ValidationError):
            pass  # none yet, or none that can be used

    def write(self) -> None:
        """Note it. Topics are noted before they are filled and after they are emptied."""
        if self._path is None:
            return
        heads = [head.model_dump_json(exclude_none=True) if head is not None else None for head in self.heads]
        beside = self._path.with_name(self._path.name + ".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"filled": self.filled, "heads": heads}), encoding="utf-8")
            os.replace(beside, self._path)
        except OSError as error:
            log.warning("what is in the slots is not noted: %s", error)
