"""The ledger in the database: after any commits, what is read back is what was in memory."""

from __future__ import annotations

import random
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.judged import Judged, short
from fedmq.aggregator.ledger import Ledger, Outbox
from fedmq.aggregator.ledger_rows import SCHEMA, LedgerRows
from fedmq.aggregator.state import News
from fedmq.aggregator.window import RECORD_BYTES, WINDOW, Verdict
from fedmq.schemas.messages import UpdateId
from tests.aggregator.small_run import outbox
from tests.generators import unhurried

Step = tuple[str, int, int] | None
"""Client, outbox and sequence number of an update; None for a commit."""

updates = st.tuples(st.sampled_from(["alice", "bob", "carol"]), st.integers(0, 4), st.integers(0, 300))


class World:
    """A ledger, and a database with what was committed of it."""

    def __init__(self) -> None:
        self.ledger, self.rows, self.news = Ledger(), LedgerRows(), News()
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript(SCHEMA)

    def judge(self, client_id: str, box: int, sequence: int, reason: str = "") -> None:
        update, digest = UpdateId(outbox_id=outbox(box), sequence=sequence), f"{sequence:064x}"
        if self.ledger.find(client_id, update, digest, 6) is None:
            version, staleness = (None, None) if reason else (7, 1)
            judged = Judged(update, "layout" if reason else None, reason, version, staleness, short(digest))
            record, first = self.ledger.enter(client_id, judged)
            if first:
                self.news.renewed.add(client_id)
            self.news.judged.append((client_id, update, record))

    def commit(self) -> None:
        for sql, rows in self.rows.statements(self.ledger, self.news):
            self.database.executemany(sql, rows)
        self.news = News()

    def restart(self) -> None:
        self.ledger, self.rows = self.read()

    def crash(self) -> None:
        """What is in no commit is gone."""
        self.ledger, self.rows, self.news = Ledger(), LedgerRows(), News()
        self.rows.restore(self.database, self.ledger)

    def read(self) -> tuple[Ledger, LedgerRows]:
        ledger, rows = Ledger(), LedgerRows()
        rows.restore(self.database, ledger)
        assert content(ledger) == content(self.ledger)
        return ledger, rows

    def count(self, table: str) -> int:
        return int(self.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def content(ledger: Ledger) -> dict[str, object]:
    """What `find` goes by: of a number that has a past nothing else matters."""
    return {
        client: (
            [(box.outbox_id, box.past, seen(box)) for box in ledger.outboxes(client)],
            list(ledger.retired(client).items()),
            ledger.forgotten(client),
        )
        for client in sorted(ledger.clients())
    }


def seen(box: Outbox) -> dict[int, Verdict | None]:
    return {n: box.verdicts.get(n) for n in box.verdicts if not box.past.judged(n)}


@unhurried
@given(st.lists(st.lists(updates, max_size=5), max_size=200), st.sets(st.integers(0, 199)))
def test_what_is_read_back_is_what_was_committed(commits: list[list[tuple[str, int, int]]], restarts: set[int]) -> None:
    world = World()
    for number, some in enumerate(commits):
        for client_id, box, sequence in some:
            world.judge(client_id, box, sequence)
        world.commit()
        if number in restarts:
            world.restart()
    world.restart()


@pytest.mark.parametrize("again_after", [1000, 100, 7, 1])
def test_a_restart_at_any_of_many_commits_changes_nothing(again_after: int) -> None:
    world = World()
    for number in range(300):
        world.judge("alice", 0, number)
        world.judge("bob", 0, 2 * number, reason="" if number % 3 else "other entries")
        world.judge("carol", 0, 70 * (number // 2) + number % 2)  # past numbers that never come
        world.judge("dave", 0, number // 10)
        world.commit()
        world.read()
        if number % again_after == 0:
            world.restart()


def test_a_window_is_written_once_in_many_commits() -> None:
    world, written = World(), 0
    for sequence in range(64 * 4):
        world.judge("alice", 0, sequence)
        written += sum(len(rows) for sql, rows in world.rows.statements(world.ledger, world.news) if "O window" in sql)
        world.news = News()
    assert written == 3


def test_the_last_verdicts_are_in_a_few_rows_and_the_rest_in_windows() -> None:
    world = World()
    for sequence in range(1000):
        for client in range(5):
            world.judge(f"client-{client}", 0, sequence)
        world.commit()
    assert world.count("judged") == 64
    assert world.count("window") == 5
    assert world.count("outbox") == 5


def test_an_outbox_that_two_others_followed_leaves_no_window() -> None:
    world = World()
    for box in range(4):
        for sequence in range(10):
            world.judge("alice", box, sequence)
            world.commit()
    for sequence in range(100):
        world.judge("bob", 0, sequence)
        world.commit()
    assert world.count("window") == 2 + 1
    world.restart()


def test_an_outbox_that_comes_back_in_the_commit_in_which_two_others_followed_it_is_kept_from_then_on() -> None:
    world = World()
    world.judge("alice", 0, 0)
    world.commit()
    for box, sequence in ((1, 0), (2, 0), (0, 1)):
        world.judge("alice", box, sequence)
    world.commit()
    for sequence in range(200):  # until its verdicts are in no row of a commit any more
        world.judge("bob", 0, sequence)
        world.commit()
    world.restart()
    for sequence in (0, 1):
        assert world.ledger.find("alice", UpdateId(outbox_id=outbox(0), sequence=sequence), "0" * 64, 6) is not None


@pytest.mark.parametrize("seed", range(12))
def test_nothing_counts_twice_and_nothing_is_lost_whatever_outboxes_follow_each_other(seed: int) -> None:
    """Against a memory of everything: updates out of order, outboxes that return, commits and crashes at random."""
    draw, world = random.Random(seed), World()
    boxes, most = draw.choice([(4, 40), (5, 300), (10, 80), (66, 80)])
    counted: dict[tuple[int, int], int] = {}
    saved = dict(counted)
    others = 0
    for step in range(400):
        box, sequence = draw.randrange(boxes), max(0, most * step // 400 + draw.randrange(-60, 4))
        newest = max((n for b, n in counted if b == box), default=-1)
        update = UpdateId(outbox_id=outbox(box), sequence=sequence)
        known = world.ledger.find("alice", update, f"{sequence:064x}", 6)
        if (box, sequence) in counted:
            assert known is not None
        elif sequence > newest - WINDOW:
            assert known is None
        if known is None:
            world.judge("alice", box, sequence)
            counted[box, sequence] = step
        if draw.random() < 0.3:
            world.commit()
            saved = dict(counted)
        if draw.random() < 0.02:  # quiet for it, until what the last commits judged is in no row of theirs any more
            for _ in range(70):
                world.judge("bob", 0, others)
                world.commit()
                others += 1
            saved = dict(counted)
        if draw.random() < 0.05:
            world.crash()
            counted = dict(saved)


def test_a_commit_that_judged_nothing_writes_nothing() -> None:
    world = World()
    world.judge("alice", 0, 0)
    world.commit()
    assert [rows for _, rows in world.rows.statements(world.ledger, News()) if rows] == []


def test_another_run_begins_with_nothing_of_the_old_one() -> None:
    world = World()
    for sequence in range(WINDOW + 10):
        world.judge("alice", 0, sequence)
        world.commit()
    for sql, rows in world.rows.forget():
        world.database.executemany(sql, rows)
    world.ledger = Ledger()
    world.restart()
    for sequence in range(200):
        world.judge("alice", 0, sequence)
        world.commit()
    world.restart()


@pytest.mark.parametrize(
    ("table", "column", "content"),
    [
        ("window", "records", b"\0"),
        ("window", "records", b"\xff" * (WINDOW * RECORD_BYTES)),
        ("judged", "verdicts", b"\0"),
    ],
)
def test_damage_is_noticed(table: str, column: str, content: bytes) -> None:
    world = World()
    for sequence in range(100):
        world.judge("alice", 0, sequence)
        world.commit()
    world.database.execute(f"UPDATE {table} SET {column} = ?", (content,))
    with pytest.raises(ValueError, match="bytes of"):
        LedgerRows().restore(world.database, Ledger())
