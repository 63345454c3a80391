"""Commits clock themselves."""

from __future__ import annotations

import pytest

from fedmq.aggregator.pace import Pace


def waiting(verdicts: int, since: float = 0.0, lasted: float = 0.0, ended: float = -100.0) -> Pace:
    pace = Pace(ended=ended, lasted=lasted)
    for _ in range(verdicts):
        pace.judged(since)
    return pace


@pytest.mark.parametrize(
    ("pace", "now", "idle", "wanted", "due"),
    [
        (waiting(1), 0.0, True, False, True),
        (waiting(1), 0.05, False, False, False),
        (waiting(1), 0.05, False, True, False),
        (waiting(1, lasted=0.5), 0.3, False, True, True),
        (waiting(0), 0.3, False, True, True),
        (waiting(0), 100.0, False, False, False),
        (waiting(1), 0.3, False, False, True),
        (waiting(4095), 0.05, False, False, False),
        (waiting(4096), 0.05, False, False, True),
        (waiting(1, lasted=0.5), 4.0, False, False, False),
        (waiting(1, lasted=0.5), 4.5, False, False, True),
        (waiting(4096, lasted=1.0, ended=0.0), 1.9, True, True, False),
        (waiting(4096, lasted=1.0, ended=0.0), 2.0, False, False, True),
    ],
    ids=["idle", "young", "young and to be shown", "to be shown", "without a verdict to be shown",
         "without a verdict", "old", "few", "many", "not old for a slow disk", "old for a slow disk",
         "a third of the time is over", "two thirds are over"],
)  # fmt: skip
def test_when_a_commit_is_due(pace: Pace, now: float, idle: bool, wanted: bool, due: bool) -> None:
    assert pace.due(now, idle=idle, wanted=wanted) is due


def test_slow_commits_under_load_take_a_tenth_of_the_time_and_never_more_than_a_third() -> None:
    for idle, share in ((False, 0.1), (True, 1 / 3)):
        pace, now, committing = Pace(), 0.0, 0.0
        while now < 1000:
            pace.judged(now)
            if pace.due(now, idle=idle, wanted=False):
                pace.begun(now)
                committing, now = committing + 0.5, now + 0.5
                pace.committed(now)
            now += 0.01
        assert committing / now == pytest.approx(share, rel=0.03)


def test_the_age_of_verdicts_is_that_of_the_first() -> None:
    pace = Pace()
    pace.judged(1.0)
    pace.judged(2.0)
    assert pace.since == 1.0
