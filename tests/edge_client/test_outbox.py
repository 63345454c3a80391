from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedmq.edge_client.feedback import Residual
from fedmq.edge_client.outbox import MOST_UPDATES, Outbox
from fedmq.schemas.errors import ConfigError, StoreError, UnusableError
from tests.edge_client.words import DIGEST, RUN, offer


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path)
    yield outbox
    outbox.close()


def sequences(outbox: Outbox) -> list[int]:
    return [pending.update.sequence for pending in outbox.pending()]


def test_an_update_is_there_with_its_bytes_until_it_is_deleted_also_after_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    first, dropped = outbox.add(offer(999), b"one!", None)
    second, _ = outbox.add(offer(999), b"two!", None)
    assert dropped == []
    assert [first.update.sequence, second.update.sequence] == [0, 1], "the outbox gives the id"
    assert first.update.outbox_id == second.update.outbox_id
    outbox.close()

    again = Outbox(tmp_path)
    assert again.pending() == [first, second]
    assert again.offer(1) == second
    assert again.body(1) == b"two!"
    again.delete(0)
    assert sequences(again) == [1]
    third, _ = again.add(offer(999), b"tres", None)
    assert third.update.sequence == 2, "a number is never given twice"
    again.close()


def test_it_holds_at_most_63_updates_and_the_oldest_goes(outbox: Outbox) -> None:
    for _ in range(MOST_UPDATES):
        assert outbox.add(offer(0), b"", None)[1] == []
    assert MOST_UPDATES == 63
    assert outbox.add(offer(0), b"", None)[1] == [0]
    assert sequences(outbox) == list(range(1, 64))


def test_waiting_sequence_numbers_lie_within_the_last_63_also_when_those_between_are_judged(outbox: Outbox) -> None:
    for sequence in range(MOST_UPDATES):
        assert outbox.add(offer(0), b"", None)[1] == []
        if sequence > 1:
            outbox.delete(sequence)
    assert sequences(outbox) == [0, 1]
    assert outbox.add(offer(0), b"", None)[1] == [0]
    assert sequences(outbox) == [1, 63]


def test_the_oldest_go_when_the_bytes_are_too_many_but_never_the_newest() -> None:
    outbox = Outbox(None, most_bytes=10)
    outbox.add(offer(0), b"1234", None)
    outbox.add(offer(0), b"1234", None)
    assert outbox.add(offer(0), b"1234", None)[1] == [0]
    assert sorted(outbox.add(offer(0, size=11), b"12345678901", None)[1]) == [1, 2]
    assert sequences(outbox) == [3]
    outbox.close()


def test_a_renewed_update_has_another_outbox_id_and_all_later_ones_too(outbox: Outbox) -> None:
    old, _ = outbox.add(offer(0), b"one!", None)
    renewed = outbox.renew(0)
    assert renewed.update.outbox_id != old.update.outbox_id
    assert renewed.update.sequence == 0
    assert outbox.offer(0) == renewed
    assert outbox.body(0) == b"one!"
    later, _ = outbox.add(offer(0), b"two!", None)
    assert later.update.outbox_id == renewed.update.outbox_id


def test_updates_that_are_renewed_one_after_the_other_share_one_new_outbox_id(outbox: Outbox) -> None:
    for _ in range(5):
        outbox.add(offer(0), b"", None)
    ids = {outbox.renew(sequence).update.outbox_id for sequence in range(5)}
    assert len(ids) == 1, "the aggregator remembers two outboxes of a client, not five"
    assert outbox.renew(2).update.outbox_id not in ids, "the new id was used elsewhere too"


def test_after_an_update_of_a_forgotten_outbox_later_ones_have_one_new_outbox_id(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    old = [outbox.add(offer(0), b"", None)[0] for _ in range(3)]
    outbox.delete(0, forgotten=True)
    outbox.delete(1, forgotten=True)
    assert outbox.pending() == [old[2]], "it stays what it is: it may have been judged under its id"
    first, _ = outbox.add(offer(0), b"", None)
    outbox.delete(2, forgotten=True)
    outbox.close()
    again = Outbox(tmp_path)
    second, _ = again.add(offer(0), b"", None)
    again.close()
    assert first.update.outbox_id == second.update.outbox_id != old[0].update.outbox_id
    assert [first.update.sequence, second.update.sequence] == [3, 4]


def test_what_stays_on_the_device_comes_back_as_it_was(tmp_path: Path) -> None:
    local: dict[str, npt.NDArray[Any]] = {
        "head.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "norm.num_batches_tracked": np.array(41, np.int64),
    }
    outbox = Outbox(tmp_path)
    assert outbox.local() is None
    outbox.add(offer(0), b"", local)
    outbox.add(offer(0), b"", None)
    outbox.close()
    again = Outbox(tmp_path)
    back = again.local()
    again.close()
    assert back is not None
    assert back.keys() == local.keys()
    for name, array in local.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array, strict=True)


def test_what_is_of_a_type_that_cannot_be_kept_is_no_damage_and_keeps_nothing(outbox: Outbox) -> None:
    with pytest.raises(ConfigError, match="what stays on the device is of a type that cannot be kept"):
        outbox.add(offer(0), b"one!", {"phases": np.ones(2, np.complex128)})
    assert outbox.pending() == []
    outbox.add(offer(0), b"one!", {"phases": np.ones(2, np.float64)})
    assert sequences(outbox) == [0]


ROOT = Path(__file__).parents[2]

ADDING = """
    import hashlib, os, sys
    from pathlib import Path
    import numpy as np
    from fedmq.edge_client.outbox import Outbox
    from tests.edge_client.words import offer

    outbox = Outbox(Path(sys.argv[1]))
    while True:
        body = os.urandom(20_000)
        digest = hashlib.sha256(body).hexdigest()
        local = {"digest": np.frombuffer(digest.encode(), np.uint8)}
        added, _ = outbox.add(offer(0, size=len(body), digest=digest), body, local)
        print(added.update.sequence, digest, flush=True)
"""


def test_whatever_kill_9_hits_each_update_is_whole_and_no_number_is_given_twice(tmp_path: Path) -> None:
    luck = random.Random(0)
    known: dict[int, str] = {}
    for _ in range(5):
        command = [sys.executable, "-c", textwrap.dedent(ADDING), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(luck.uniform(0.0, 0.05))  # any instant is good
            process.kill()
            lines = [line.split() for line in (first + process.stdout.read()).splitlines()]
        said = [words for words in lines if len(words) == 2]  # the last line may be cut anywhere
        outbox = Outbox(tmp_path)
        pending = outbox.pending()
        bodies = {p.update.sequence: outbox.body(p.update.sequence) for p in pending}
        local = outbox.local()
        outbox.close()

        assert said
        assert all(after == before + 1 for before, after in pairwise(bodies))
        for one in pending:
            body = bodies[one.update.sequence]
            assert len(body) == one.size
            assert hashlib.sha256(body).hexdigest() == one.digest
            assert known.setdefault(one.update.sequence, one.digest) == one.digest, "a number twice"
        assert len({one.update.outbox_id for one in pending}) == 1
        for sequence, digest in said:
            if len(digest) == 64:
                assert known.setdefault(int(sequence), digest) == digest
                assert int(sequence) in bodies or int(sequence) < min(bodies), "what was kept is kept"
        assert local is not None
        assert bytes(local["digest"]).decode() == pending[-1].digest, "in one step with the update"


def test_a_second_process_is_refused_and_the_folder_is_free_again_when_the_first_is_gone(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from fedmq.edge_client.outbox import Outbox\n"
    script += "outbox = Outbox(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(StoreError, match="another client works in it"):
            Outbox(tmp_path)
        process.kill()
    Outbox(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UnusableError, match=r"device folder .*file/dev: a part of this path is a file .*choose another"
    ):
        Outbox(tmp_path / "file" / "dev")


def test_a_file_that_is_no_database_is_a_clear_error_and_keeps_no_lock(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(os.urandom(8192))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"outbox\.sqlite cannot be used"):
            Outbox(tmp_path)


def test_damage_within_the_file_is_a_clear_error(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for _ in range(20):
        outbox.add(offer(0, size=3000), os.urandom(3000), None)
    outbox.close()
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(path.read_bytes()[:8192] + b"\xff" * (path.stat().st_size - 8192))
    with pytest.raises(StoreError, match="device folder"):  # noqa: PT012 (where it shows is SQLite's matter)
        outbox = Outbox(tmp_path)
        try:
            outbox.pending()
        finally:
            outbox.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entry SET offer = '{}'",
        "UPDATE entry SET offer = x'ff00'",
        "UPDATE meta SET value = x'ffffffffffffffffffff' WHERE key = 'local'",
    ],
)
def test_contents_that_make_no_sense_are_a_clear_error(tmp_path: Path, damage: str) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(offer(0), b"", {"x": np.zeros(2, np.float32)})
    outbox.close()
    with sqlite3.connect(tmp_path / "outbox.sqlite") as database:
        database.execute(damage)
    database.close()
    again = Outbox(tmp_path)
    with pytest.raises(StoreError, match=r"outbox\.sqlite is damaged"):  # noqa: PT012
        again.pending()
        again.local()
    again.close()


def test_an_update_that_is_not_there_is_a_clear_error(outbox: Outbox) -> None:
    with pytest.raises(StoreError, match="no update 7"):
        outbox.body(7)


def test_a_write_that_fails_keeps_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(offer(0), b"one!", None)
    # As a disk that is full when the bytes are written already and the next number is not.
    outbox._db.execute("CREATE TRIGGER full BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(StoreError, match="full; is the disk full or read-only"):
        outbox.add(offer(0), b"two!", None)
    outbox._db.execute("DROP TRIGGER full")
    assert sequences(outbox) == [0]
    assert outbox.add(offer(0), b"tres", None)[0].update.sequence == 1
    outbox.close()


def test_the_same_image_put_back_twice_gives_the_same_update_the_same_new_id(tmp_path: Path) -> None:
    image = tmp_path / "image"
    outbox = Outbox(image)
    outbox.add(offer(0), b"body", None)
    outbox.close()
    renewed = []
    for number in (1, 2):
        shutil.copytree(image, tmp_path / str(number))
        outbox = Outbox(tmp_path / str(number))
        renewed.append(outbox.renew(0).update)
        assert [one.update for one in outbox.pending()] == renewed[-1:]
        outbox.close()
    assert renewed[0] == renewed[1]


def test_a_large_update_has_a_file_of_its_own_and_goes_with_it(tmp_path: Path) -> None:
    body = os.urandom(3 << 20)
    outbox = Outbox(tmp_path)
    large, _ = outbox.add(offer(0, size=len(body)), body, None)
    outbox.add(offer(0), b"tiny", None)
    assert (tmp_path / "outbox.sqlite").stat().st_size < 1 << 20
    outbox.close()
    again = Outbox(tmp_path)
    assert again.body(0) == body
    assert again.body(0, 70_000, 70_010) == body[70_000:70_010]
    assert again.body(1, 1, 3) == b"in"
    again.delete(large.update.sequence)
    assert list(tmp_path.glob("*.body*")) == []
    again.close()


def test_large_updates_that_overflow_take_their_files_with_them(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, most_bytes=5 << 20)
    for _ in range(3):
        outbox.add(offer(0, size=2 << 20), bytes(2 << 20), None)
    assert [one.update.sequence for one in outbox.pending()] == [1, 2]
    assert sorted(path.name for path in tmp_path.glob("*.body*")) == ["update-1.body", "update-2.body"]
    outbox.close()


def test_a_file_that_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(offer(0, size=2 << 20), bytes(2 << 20), None)
    outbox.close()
    for name in ("update-1.body", "update-1.body.part", "update-x.body"):
        (tmp_path / name).write_bytes(b"x")
    again = Outbox(tmp_path)
    assert [path.name for path in tmp_path.glob("*.body*")] == ["update-0.body"]
    assert again.body(0) == bytes(2 << 20)
    again.close()


def test_a_thread_that_outlives_its_client_writes_no_file_of_the_next_one(tmp_path: Path) -> None:
    old = Outbox(tmp_path)
    ahead = old.ahead()
    old.close()
    again = Outbox(tmp_path)
    theirs = again.ahead()
    body, left = b"n" * (2 << 20), np.full(1 << 20, 2, np.float32)
    theirs.write(body, Residual(RUN, DIGEST, 0, left))
    again.add(offer(0, size=len(body)), theirs, None)
    with pytest.raises(StoreError, match="its client was stopped"):
        ahead.write(b"o" * (2 << 20), Residual(RUN, DIGEST, 0, np.ones(1 << 20, np.float32)))
    assert again.body(0) == body
    residual = again.residual()
    assert residual is not None
    np.testing.assert_array_equal(residual.left, left)
    assert list(tmp_path.glob("*.part")) == []
    again.close()


@pytest.mark.parametrize("name", ["update-0.body", "residual-1.body"])
def test_a_thread_that_is_in_the_middle_of_a_file_when_its_client_stops_does_not_put_it_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    old = Outbox(tmp_path)
    ahead, fsync = old.ahead(), os.fsync
    others: list[Outbox] = []
    body, left = b"n" * (2 << 20), np.full(1 << 20, 2, np.float32)

    def slow(file: int) -> None:
        fsync(file)
        if not others and (tmp_path / f"{name}.part").exists():
            old.close()
            others.append(again := Outbox(tmp_path))
            theirs = again.ahead()
            theirs.write(body, Residual(RUN, DIGEST, 0, left))
            again.add(offer(0, size=len(body)), theirs, None)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(StoreError, match="its client was stopped"):
        ahead.write(b"o" * (2 << 20), Residual(RUN, DIGEST, 0, np.ones(1 << 20, np.float32)))
    (again,) = others
    assert again.body(0) == body
    residual = again.residual()
    assert residual is not None
    np.testing.assert_array_equal(residual.left, left)
    again.close()
