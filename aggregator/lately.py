"""What an aggregator has last said to each client, read from its run's folder while it may be working in it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fedmq.aggregator.ledger import Ledger
from fedmq.aggregator.ledger_rows import LedgerRows
from fedmq.schemas.errors import StoreError

__all__ = ["ACCEPTED", "Lately", "lately"]

ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Lately:
    """The verdicts that a run remembers.

    Attributes:
        run: its id; empty if nothing was committed yet.
        verdicts: by client, how often it was `accepted`, and how often each reason was why not, among the last 64 of
            each of its last two outboxes.

    """

    run: str = ""
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)


def lately(folder: Path) -> Lately:
    """Read them; nothing if there is no run in this folder. It is no work for the aggregator.

    Raises:
        StoreError: the folder cannot be read.

    """
    path = folder / "run.sqlite"
    ledger = Ledger()
    try:
        if not path.is_file():
            return Lately()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.execute("BEGIN")  # one moment for all of it
            row = database.execute("SELECT value FROM state WHERE key = 'state'").fetchone()
            LedgerRows().restore(database, ledger)
    except (sqlite3.Error, OSError, ValueError) as error:
        raise StoreError(f"run folder {folder}: its verdicts cannot be read: {error}") from error
    if row is None:
        return Lately()
    return Lately(json.loads(row[0])["run"], {client_id: _counted(ledger, client_id) for client_id in ledger.clients()})


def _counted(ledger: Ledger, client_id: str) -> Counter[str]:
    verdicts = (box.verdicts.get(number) for box in ledger.outboxes(client_id) for number in box.verdicts)
    return Counter(verdict.reason or ACCEPTED for verdict in verdicts if verdict is not None)
