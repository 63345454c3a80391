"""Bytes that come in parts, compared with a plain row of marks."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from fedmq.schemas.parts import Coverage, Range, cut

SIZE = 40
ranges = st.lists(st.tuples(st.integers(-5, SIZE + 5), st.integers(-5, SIZE + 5)), max_size=12)


def marked(there: list[bool], wanted: bool) -> list[Range]:
    """The runs of equal marks, by looking at each byte."""
    found: list[Range] = []
    for at, mark in enumerate(there):
        if mark is not wanted:
            continue
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return found


@given(ranges)
def test_what_is_missing_is_what_no_part_brought_whatever_their_order(parts: list[Range]) -> None:
    coverage, there = Coverage(SIZE), [False] * SIZE
    for start, end in parts:
        coverage.add(start, end)
        for at in range(max(start, 0), min(end, SIZE)):
            there[at] = True
        assert list(coverage.missing()) == marked(there, False)
        assert coverage.there() == marked(there, True)
        assert coverage.lacks(7, 29) == [(at + 7, to + 7) for at, to in marked(there[7:29], False)]
        assert coverage.complete is all(there)
    assert list(Coverage(SIZE, parts).missing()) == marked(there, False)


@given(st.integers(1, 17), ranges)
def test_what_is_cut_is_whole_and_no_piece_is_too_large(part_bytes: int, parts: list[Range]) -> None:
    pieces = list(cut(parts, part_bytes))
    assert all(0 < end - start <= part_bytes for start, end in pieces)
    assert all(start // part_bytes == (end - 1) // part_bytes for start, end in pieces)
    assert [at for piece in pieces for at in range(*piece)] == [at for part in parts for at in range(*part)]


def test_a_body_of_no_bytes_is_complete() -> None:
    assert Coverage(0).complete
    assert list(Coverage(0).missing()) == []


def test_pieces_lie_where_they_would_lie_without_a_gap() -> None:
    """So a part that was lost is asked for, and sent, as the part that it was."""
    assert list(cut([(0, 10), (13, 25)], 10)) == [(0, 10), (13, 20), (20, 25)]


def test_the_first_that_is_missing_of_very_many_ranges_is_found_at_once() -> None:
    grain, count = 4096, 20_000
    coverage = Coverage(2 * count * grain, ((2 * at * grain, (2 * at + 1) * grain) for at in range(count)))
    begun = time.perf_counter()
    for _ in range(count):
        assert next(coverage.missing()) == (grain, 2 * grain)
    assert time.perf_counter() - begun < 5.0  # it was a minute and more when all of them were looked for each time
