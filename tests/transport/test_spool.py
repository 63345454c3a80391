"""Bodies in parts: each byte is as it came first, and what a crash leaves is used as far as it is whole."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmq.schemas.errors import StoreError
from fedmq.transport.spool import FileSpool, MemorySpool, Spool, key_of

BODY = bytes(range(200))
New = Callable[[], Spool]


@pytest.fixture(params=["file", "memory"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> New:
    """Makes empty spools for BODY."""
    counter = iter(range(1000))
    if request.param == "memory":
        return lambda: MemorySpool(len(BODY))
    return lambda: FileSpool(tmp_path / f"{next(counter)}.body", "key", len(BODY))


def put(spool: Spool, start: int, end: int, body: bytes = BODY) -> None:
    spool.write(start, memoryview(body)[start:end])


def in_file(folder: Path, key: str = "key", size: int = len(BODY)) -> FileSpool:
    return FileSpool(folder / "ada.body", key, size)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=12))
def test_parts_in_any_order_twice_and_overlapping_give_the_body(new: New, parts: list[tuple[int, int]]) -> None:
    spool = new()
    for start, end in [*parts, (0, 90), (90, 200)]:
        if start < end:
            put(spool, start, end)
    assert spool.coverage.complete
    assert bytes(spool.view()) == BODY
    assert spool.digest() == hashlib.sha256(BODY).hexdigest()
    spool.close()


def test_the_digest_of_parts_in_another_order_is_reckoned_while_others_come(tmp_path: Path) -> None:
    body, part = os.urandom(4 << 20), 64 << 10
    spool = in_file(tmp_path, size=len(body))
    starts = range(0, len(body), part)
    for start in [*starts[1:9], 0, *starts[9:]]:
        put(spool, start, start + part, body)
    assert spool._hashed == len(body)  # so that nobody waits for a gigabyte to be read when the last one is here
    assert spool.digest() == hashlib.sha256(body).hexdigest()
    spool.close()


def test_what_came_first_stays_and_the_digest_is_of_what_is_there(new: New) -> None:
    spool = new()
    put(spool, 0, 120)
    put(spool, 100, 200, bytes(200))
    mixed = BODY[:120] + bytes(80)
    assert bytes(spool.view()) == mixed
    assert spool.digest() == hashlib.sha256(mixed).hexdigest()
    spool.close()


def test_a_view_stays_good_when_the_body_goes_and_another_takes_its_place(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    put(spool, 0, 200)
    view = spool.view()
    spool.close()
    spool.remove()
    other = in_file(tmp_path, "other", 5)
    assert bytes(view) == BODY
    other.close()


def test_another_process_goes_on_where_one_died(tmp_path: Path) -> None:
    first = in_file(tmp_path)
    put(first, 0, 50)
    put(first, 100, 150)
    second = in_file(tmp_path)
    assert second.coverage.there() == [(0, 50), (100, 150)]
    put(second, 50, 100)
    put(second, 150, 200)
    assert second.digest() == hashlib.sha256(BODY).hexdigest()
    for spool in (first, second):
        spool.close()


@pytest.mark.parametrize(("key", "size"), [("another", 200), ("key", 201)])
def test_what_is_there_of_another_body_goes(tmp_path: Path, key: str, size: int) -> None:
    first = in_file(tmp_path)
    put(first, 0, 200)
    first.close()
    second = in_file(tmp_path, key, size)
    assert second.coverage.there() == []
    second.close()


def test_a_part_that_did_not_reach_the_disk_is_missing_again_and_no_other(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    for start in (0, 50, 100, 150):
        put(spool, start, start + 50)
    spool.close()
    with open(tmp_path / "ada.body", "r+b") as file:
        file.seek(120)
        file.write(b"\0")
    again = in_file(tmp_path)
    assert list(again.coverage.missing()) == [(100, 150)]
    again.close()


def test_a_list_that_a_crash_cut_in_a_line_counts_up_to_there(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    for start in (0, 50, 100):
        put(spool, start, start + 50)
    spool.close()
    listed = tmp_path / "ada.body.parts"
    os.truncate(listed, listed.stat().st_size - 4)
    again = in_file(tmp_path)
    assert list(again.coverage.missing()) == [(100, 200)]
    again.close()


def test_whose_a_file_is_can_be_asked(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    spool.close()
    assert key_of(tmp_path / "ada.body") == "key"
    (tmp_path / "ada.body.parts").write_text("rubbish")
    assert key_of(tmp_path / "ada.body") == key_of(tmp_path / "bob.body") == ""


def test_what_is_in_memory_moves_to_the_disk(tmp_path: Path) -> None:
    memory, moved = MemorySpool(200), in_file(tmp_path)
    put(memory, 0, 70)
    put(memory, 150, 200)
    memory.move(moved)
    assert moved.coverage.there() == [(0, 70), (150, 200)]
    put(moved, 70, 150)
    assert bytes(moved.view()) == BODY
    moved.close()


def test_a_folder_that_cannot_be_is_a_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "parts").write_text("a file")
    with pytest.raises(StoreError, match=r"ada\.body: a part cannot be kept: .*exists"):
        in_file(tmp_path / "parts")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """To whoever writes more into a file the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_part_that_the_disk_refuses_is_missing_still(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    put(spool, 0, 50)
    with files_of_at_most(60), pytest.raises(StoreError, match="a part cannot be kept"):
        put(spool, 50, 100)
    assert spool.coverage.there() == [(0, 50)]
    put(spool, 50, 200)
    assert spool.digest() == hashlib.sha256(BODY).hexdigest()
    spool.close()


def test_a_line_that_a_full_disk_cut_costs_that_part_alone(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    listed = tmp_path / "ada.body.parts"
    put(spool, 0, 50)
    with files_of_at_most(listed.stat().st_size + 10), pytest.raises(StoreError, match="not written whole"):
        put(spool, 50, 55)
    put(spool, 60, 100)
    spool.close()
    again = in_file(tmp_path)
    assert again.coverage.there() == [(0, 50), (60, 100)]
    again.close()


def test_who_is_done_with_a_spool_is_so_on_a_full_disk_too(tmp_path: Path) -> None:
    spool = in_file(tmp_path)
    put(spool, 0, 20)
    with files_of_at_most((tmp_path / "ada.body.parts").stat().st_size):
        with pytest.raises(StoreError, match=r"part cannot be kept: .*(too large|whole)"):
            put(spool, 20, 25)
        spool.close()
        spool.remove()
    assert list(tmp_path.iterdir()) == []
