"""Which old snapshots are held: few, and one near any that a device may have trained from."""

from __future__ import annotations

import random

import pytest

from fedmq.aggregator.base_snapshots import HELD_BASES, nearest, to_drop


def published(versions: list[int]) -> list[int]:
    """What is held when these were published."""
    held: list[int] = []
    for version in versions:
        held.append(version)
        gone = to_drop(held)
        if gone is not None:
            held.remove(gone)
    return held


def test_the_newest_eight_and_the_oldest_are_always_held() -> None:
    for count in (10, 100, 1000):
        held = published(list(range(count)))
        assert len(held) == min(count, HELD_BASES)
        assert held[0] == 0
        assert held[-8:] == list(range(count - 8, count))


@pytest.mark.parametrize(("count", "part"), [(16, 0.0), (100, 0.4), (1000, 0.5), (5000, 0.75)])
def test_a_base_is_no_further_from_a_held_one_than_a_part_of_its_age(count: int, part: float) -> None:
    held = published(list(range(count)))
    for version in range(count - 1):
        stand_in = nearest(held, version)
        assert stand_in is not None
        assert abs(stand_in - version) <= part * (count - 1 - version)


def test_versions_of_which_only_some_were_published_are_thinned_out_by_age_too() -> None:
    turns, versions = random.Random(1), [0]
    while len(versions) < 1000:
        versions.append(versions[-1] + turns.randint(1, 9))
    held = published(versions)
    assert len(held) == HELD_BASES
    for version in versions[:-1]:
        stand_in = nearest(held, version)
        assert stand_in is not None
        assert abs(stand_in - version) <= 0.7 * (versions[-1] - version)


def test_of_two_that_are_as_near_the_older_stands() -> None:
    assert [nearest({2, 4, 10}, version) for version in (2, 3, 7, 8, 99)] == [2, 2, 4, 10, 10]


def test_what_is_older_than_all_has_none() -> None:
    assert nearest({2, 4}, 1) is None
    assert nearest({}, 0) is None
