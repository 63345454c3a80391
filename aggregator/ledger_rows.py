"""The ledger in the database: a commit's verdicts go into one row, and many commits later into outboxes' windows.

A thousand clients with a verdict each are a thousand places in a database; to write to all of them in every commit took
a tenth of the aggregator's time. When a window is written at last, it has had many.
"""

from __future__ import annotations

import sqlite3
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any

from fedmq.aggregator.ledger import Ledger, Outbox, Past
from fedmq.aggregator.state import News
from fedmq.aggregator.window import RECORD_BYTES, WINDOW, Window
from fedmq.schemas.messages import UpdateId

__all__ = ["SCHEMA", "LedgerRows", "Statement"]

SCHEMA = """
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY, client_id TEXT NOT NULL, outbox_id TEXT NOT NULL,
    place INTEGER NOT NULL, -- among its client's, in the order of their coming
    floor INTEGER NOT NULL, newest INTEGER NOT NULL, had BLOB NOT NULL, base INTEGER NOT NULL); -- its past
CREATE INDEX outbox_of_client ON outbox (client_id);
CREATE TABLE retired ( -- outboxes whose verdicts are forgotten
    client_id TEXT NOT NULL, outbox_id TEXT NOT NULL, place INTEGER NOT NULL,
    floor INTEGER NOT NULL, newest INTEGER NOT NULL, had BLOB NOT NULL, base INTEGER NOT NULL);
CREATE INDEX retired_of_client ON retired (client_id);
CREATE TABLE forgotten (client_id TEXT PRIMARY KEY, base INTEGER NOT NULL); -- of clients that had more than these
CREATE TABLE judged (number INTEGER PRIMARY KEY, verdicts BLOB NOT NULL); -- of each of the last commits
CREATE TABLE window (
    outbox INTEGER PRIMARY KEY, -- its number
    newest INTEGER NOT NULL, records BLOB NOT NULL); -- without what `judged` still has
"""

Statement = tuple[str, list[tuple[Any, ...]]]
"""SQL, and the rows that it is executed for."""

_COMMITS = 64  # whose verdicts are in no window yet
_VERDICT = struct.Struct(f"<IQ{RECORD_BYTES}s")  # an outbox's number, a sequence number, a window's record
_FORGET_WINDOWS = """
DELETE FROM window WHERE outbox IN (SELECT number FROM outbox WHERE client_id = ? AND number NOT IN (?, ?))
"""


class LedgerRows:
    """What of the ledger is where in the database, and what has to be written next."""

    def __init__(self) -> None:
        # Of outboxes, by client and id, with the window that the number is for: one that comes back begins another.
        self._numbers: dict[str, dict[str, tuple[int, Window]]] = {}
        self._next_number = 0
        self._next_row = 0
        self._unwritten: dict[int, Window] = {}  # that are not in the database as they are
        self._since: deque[list[int]] = deque()  # their numbers, by the commit from which on they are not

    def statements(self, ledger: Ledger, news: News) -> list[Statement]:
        """What a commit of this news writes, as of now."""
        outboxes = [row for client_id in news.renewed for row in self._outboxes(ledger, client_id)]
        remembered = {client_id: [-1, -1] for client_id in news.renewed}
        for number, client_id, _, place, *_ in outboxes:
            remembered[client_id][place] = number
        clients = [(client_id,) for client_id in remembered]
        retired = [row for client_id in remembered for row in _retired(ledger, client_id)]
        forgotten = [(client_id, base) for client_id in remembered if (base := ledger.forgotten(client_id)) >= 0]
        written: list[Statement] = [
            (_FORGET_WINDOWS, [(client_id, *numbers) for client_id, numbers in remembered.items()]),
            ("DELETE FROM outbox WHERE client_id = ?", clients),
            ("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?)", outboxes),
            ("DELETE FROM retired WHERE client_id = ?", clients),
            ("INSERT INTO retired VALUES (?, ?, ?, ?, ?, ?, ?)", retired),
            ("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", forgotten),
        ]
        changed: list[int] = []
        verdicts = b"".join(self._verdicts(ledger, news.judged, changed))
        if verdicts:
            self._since.append(changed)
            due = self._since.popleft() if len(self._since) > _COMMITS else []
            windows = [(n, window) for n in due if (window := self._unwritten.pop(n, None)) is not None]
            written += [
                ("INSERT INTO judged VALUES (?, ?)", [(self._next_row, verdicts)]),
                ("INSERT OR REPLACE INTO window VALUES (?, ?, ?)", [(n, w.newest, w.packed()) for n, w in windows]),
                ("DELETE FROM judged WHERE number <= ?", [(self._next_row - _COMMITS,)]),
            ]
            self._next_row += 1
        return written

    def forget(self) -> list[Statement]:
        """What removes all of it."""
        self._numbers, self._unwritten, self._since = {}, {}, deque()
        return [(f"DELETE FROM {table}", [()]) for table in ("outbox", "retired", "forgotten", "judged", "window")]  # noqa: S608

    def restore(self, database: sqlite3.Connection, ledger: Ledger) -> None:
        """Fill a ledger from the last commit.

        Raises:
            ValueError: what is there is no ledger.

        """
        clients: dict[str, tuple[list[Outbox], dict[str, Past]]] = {}
        boxes: dict[int, Outbox] = {}
        of_outboxes = (
            "SELECT number, client_id, outbox_id, floor, newest, had, base FROM outbox ORDER BY client_id, place"
        )
        for number, client_id, outbox_id, *past in database.execute(of_outboxes):
            self._next_number = max(self._next_number, number + 1)
            boxes[number] = Outbox(outbox_id, _past(*past))
            clients.setdefault(client_id, ([], {}))[0].append(boxes[number])
        of_retired = "SELECT client_id, outbox_id, floor, newest, had, base FROM retired ORDER BY client_id, place"
        for client_id, outbox_id, *past in database.execute(of_retired):
            clients[client_id][1][outbox_id] = _past(*past)
        forgotten = dict(database.execute("SELECT client_id, base FROM forgotten"))
        for number, newest, records in database.execute("SELECT outbox, newest, records FROM window"):
            boxes[number].verdicts = Window(newest, records)
        numbers = {id(box): number for number, box in boxes.items()}
        for client_id, (outboxes, _) in clients.items():
            self._numbers[client_id] = {box.outbox_id: (numbers[id(box)], box.verdicts) for box in outboxes}
        for row, verdicts in database.execute("SELECT number, verdicts FROM judged ORDER BY number"):
            self._next_row = row + 1
            self._since.append(self._again(boxes, verdicts))
        for client_id, (outboxes, retired) in clients.items():
            ledger.restore(client_id, outboxes, retired, forgotten.get(client_id, -1))

    def _again(self, boxes: dict[int, Outbox], verdicts: bytes) -> list[int]:
        """Put a commit's verdicts into windows; the numbers of those that are not in the database since then."""
        if len(verdicts) % _VERDICT.size:
            raise ValueError(f"{len(verdicts)} bytes of verdicts")
        changed = []
        for number, sequence, record in _VERDICT.iter_unpack(verdicts):
            box = boxes.get(number)
            if box is None:  # two others followed it
                continue
            window = box.verdicts
            if sequence > window.newest - WINDOW:
                window.put_record(sequence, record)
            if number not in self._unwritten:
                self._unwritten[number] = window
                changed.append(number)
        return changed

    def _outboxes(self, ledger: Ledger, client_id: str) -> Iterator[tuple[Any, ...]]:
        before, after = self._numbers.get(client_id, {}), dict[str, tuple[int, Window]]()
        for place, box in enumerate(ledger.outboxes(client_id)):
            number, window = before.get(box.outbox_id, (-1, None))
            if window is not box.verdicts:
                number, self._next_number = self._next_number, self._next_number + 1
            after[box.outbox_id] = number, box.verdicts
            yield number, client_id, box.outbox_id, place, *_packed(box.past)
        for number, _ in before.values():
            if number not in {kept for kept, _ in after.values()}:
                self._unwritten.pop(number, None)
        self._numbers[client_id] = after

    def _verdicts(
        self, ledger: Ledger, judged: list[tuple[str, UpdateId, bytes]], changed: list[int]
    ) -> Iterator[bytes]:
        for client_id, update, record in judged:
            known = self._numbers[client_id].get(update.outbox_id)
            if known is None:  # two other outboxes followed within this commit
                continue
            number, window = known
            if number not in self._unwritten:
                self._unwritten[number] = window
                changed.append(number)
            yield _VERDICT.pack(number, update.sequence, record)


def _retired(ledger: Ledger, client_id: str) -> Iterator[tuple[Any, ...]]:
    for place, (outbox_id, past) in enumerate(ledger.retired(client_id).items()):
        yield client_id, outbox_id, place, *_packed(past)


def _packed(past: Past) -> tuple[int, int, bytes, int]:
    return past.floor, past.newest, past.had.to_bytes(WINDOW // 8, "little"), past.base


def _past(floor: int, newest: int, had: bytes, base: int) -> Past:
    return Past(floor, newest, int.from_bytes(had, "little"), base)
