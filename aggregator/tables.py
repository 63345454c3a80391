"""The rows of a run: ledger, history, scores and the small figures, in one SQLite database."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from fedmq.aggregator.buffer import Folded
from fedmq.aggregator.ledger import DIGEST_BYTES, Outbox, Verdict
from fedmq.aggregator.state import News, State, VersionRecord
from fedmq.aggregator.tempo import Tempo
from fedmq.schemas.errors import Reason
from fedmq.schemas.messages import Evaluation

__all__ = ["Tables"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (version INTEGER PRIMARY KEY, record TEXT NOT NULL, devices TEXT, aggregator TEXT);
CREATE TABLE IF NOT EXISTS outbox (
    client_id TEXT NOT NULL, outbox_id TEXT NOT NULL,
    place INTEGER NOT NULL, -- in the order of their coming; below 0 if only the id is remembered
    newest INTEGER NOT NULL,
    PRIMARY KEY (client_id, outbox_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdict (
    client_id TEXT NOT NULL, outbox_id TEXT NOT NULL, sequence INTEGER NOT NULL, digest TEXT NOT NULL,
    receipt TEXT NOT NULL, PRIMARY KEY (client_id, outbox_id, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS score (
    client_id TEXT PRIMARY KEY, version INTEGER NOT NULL, evaluation TEXT NOT NULL) WITHOUT ROWID;
"""
_REASONS: dict[str, Reason] = {reason: reason for reason in get_args(Reason)}
_FOLDED = TypeAdapter(list[Folded])
_RECORD = TypeAdapter(VersionRecord)


class Tables:
    """The database of one run. Raises sqlite3.Error; the store translates it."""

    def __init__(self, path: Path) -> None:
        # One thread opens it, another may serve the run; never two at once.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        """Let the database go."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the writes inside, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def get(self, key: str) -> Any:
        """A small figure by name; None if there is none."""
        row = self._db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def set(self, key: str, value: Any) -> None:
        """Keep a small figure."""
        self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, json.dumps(value)))

    def write(self, state: State, news: News) -> None:
        """The rows of a commit; inside a transaction."""
        self.set("state", _figures(state))
        for record in news.versions:
            text = _RECORD.dump_json(record).decode()
            self._db.execute("INSERT OR REPLACE INTO history (version, record) VALUES (?, ?)", (record.version, text))
        for client_id, outboxes in news.outboxes.items():
            self._write_client(state, client_id, outboxes)
        measured = {
            state.scores.newest[client_id][0] for client_id in news.outboxes if client_id in state.scores.newest
        }
        for version in measured:
            devices = state.scores.of(version)
            if devices is not None:
                row = (devices.model_dump_json(), version)
                self._db.execute("UPDATE history SET devices = ? WHERE version = ?", row)
        for version, metrics in news.measured.items():
            self._db.execute("UPDATE history SET aggregator = ? WHERE version = ?", (json.dumps(metrics), version))

    def restore(self, state: State) -> None:
        """Fill everything but the vectors of a state from the last commit."""
        saved = self.get("state")
        for name in ("version", "accepted", "staleness_sum", "uplink_bytes", "seconds", "finished"):
            setattr(state, name, saved[name])
        state.rejected = Counter(saved["rejected"])
        state.tempo = _tempo(saved["tempo"])
        buffer = saved["buffer"]
        state.buffer.weight, state.buffer.mass, state.buffer.opened = buffer["weight"], buffer["mass"], buffer["opened"]
        state.buffer.updates = _FOLDED.validate_python(buffer["updates"])
        for client_id, outboxes, retired in self._ledger():
            state.ledger.restore(client_id, outboxes, retired)
        for client_id, version, evaluation in self._db.execute("SELECT client_id, version, evaluation FROM score"):
            state.scores.add(client_id, version, Evaluation.model_validate_json(evaluation))

    def history(self) -> Iterator[dict[str, Any]]:
        """How each version came to be, oldest first, with what was measured of it."""
        rows = self._db.execute("SELECT record, devices, aggregator FROM history ORDER BY version")
        for record, devices, aggregator in rows:
            measured = {"devices": devices, "aggregator": aggregator}
            yield json.loads(record) | {key: json.loads(text) if text else None for key, text in measured.items()}

    def _write_client(self, state: State, client_id: str, news: dict[str, list[int]]) -> None:
        key, remembered = (client_id,), state.ledger.outboxes(client_id)
        for outbox in remembered:
            new = [s for s in news.get(outbox.outbox_id, ()) if s in outbox.verdicts]
            rows = [(client_id, outbox.outbox_id, s, *_row(outbox.verdicts[s])) for s in new]
            self._db.executemany("INSERT INTO verdict VALUES (?, ?, ?, ?, ?)", rows)
            oldest = (client_id, outbox.outbox_id, min(outbox.verdicts))
            self._db.execute("DELETE FROM verdict WHERE client_id = ? AND outbox_id = ? AND sequence < ?", oldest)
        retired = state.ledger.retired(client_id)
        places = [(*key, box.outbox_id, n, box.newest) for n, box in enumerate(remembered)]
        places += [(*key, outbox_id, n - len(retired), -1) for n, outbox_id in enumerate(retired)]
        self._db.execute("DELETE FROM outbox WHERE client_id = ?", key)
        self._db.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?)", places)
        for outbox_id in retired:
            self._db.execute("DELETE FROM verdict WHERE client_id = ? AND outbox_id = ?", (client_id, outbox_id))
        if client_id in state.scores.newest:
            version, evaluation = state.scores.newest[client_id]
            score = (client_id, version, evaluation.model_dump_json())
            self._db.execute("INSERT OR REPLACE INTO score VALUES (?, ?, ?)", score)

    def _ledger(self) -> Iterator[tuple[str, list[Outbox], list[str]]]:
        clients: dict[str, tuple[list[Outbox], list[str]]] = {}
        boxes: dict[tuple[str, str], Outbox] = {}
        for client_id, outbox_id, place, newest in self._db.execute("SELECT * FROM outbox ORDER BY client_id, place"):
            outboxes, retired = clients.setdefault(client_id, ([], []))
            if place < 0:
                retired.append(outbox_id)
            else:
                boxes[client_id, outbox_id] = Outbox(outbox_id, newest)
                outboxes.append(boxes[client_id, outbox_id])
        rows = self._db.execute("SELECT * FROM verdict ORDER BY client_id, outbox_id, sequence")
        for client_id, outbox_id, sequence, digest, receipt in rows:
            boxes[client_id, outbox_id].verdicts[sequence] = _verdict(digest, receipt)
        for client_id, (outboxes, retired) in clients.items():
            yield client_id, outboxes, retired


def _row(verdict: Verdict) -> tuple[str, str]:
    receipt = {"reason": verdict.reason, "version": verdict.version, "staleness": verdict.staleness}
    return verdict.digest.hex(), json.dumps({key: value for key, value in receipt.items() if value is not None})


def _verdict(digest: str, receipt: str) -> Verdict:
    said = json.loads(receipt)
    reason = _REASONS[said["reason"]] if "reason" in said else None
    # FedMQ once kept whole digests and receipts in these columns.
    return Verdict(bytes.fromhex(digest)[:DIGEST_BYTES], reason, said.get("version"), said.get("staleness"))


def _figures(state: State) -> dict[str, Any]:
    tempo, buffer = state.tempo, state.buffer
    return {
        "run": state.run,
        "version": state.version,
        "accepted": state.accepted,
        "rejected": dict(state.rejected),
        "staleness_sum": state.staleness_sum,
        "uplink_bytes": state.uplink_bytes,
        "seconds": state.seconds,
        "finished": state.finished,
        "bases": sorted(state.bases),
        "buffer": {
            "weight": buffer.weight,
            "mass": buffer.mass,
            "opened": buffer.opened,
            "updates": _FOLDED.dump_python(buffer.updates, mode="json"),
        },
        "tempo": {
            "clients_at_work": tempo.clients_at_work,
            "buffer_size": tempo.buffer_size,
            "intervals": list(tempo.intervals),
            "samples": list(tempo.samples),
            "made_at": list(tempo.made_at),
        },
    }


def _tempo(saved: dict[str, Any]) -> Tempo:
    tempo = Tempo(saved["clients_at_work"], saved["buffer_size"])
    tempo.intervals.extend(saved["intervals"])
    tempo.samples.extend(saved["samples"])
    tempo.made_at = deque(((version, count) for version, count in saved["made_at"]), tempo.made_at.maxlen)
    return tempo
