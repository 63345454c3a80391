"""Whatever dies, in whatever order: every update counts as its receipt says, once."""

from __future__ import annotations

import os

import pytest

from fedmq.failpoints import AGGREGATOR_POINTS, CLIENT_POINTS
from tests.chaos.virtual.any_schedule import prove

LONG = os.environ.get("CHAOS") == "long"
"""`make chaos`: other schedules each time. Otherwise the same few every time."""


@pytest.mark.timeout(1800 if LONG else 180)
def test_in_any_schedule_of_faults_every_update_counts_as_its_receipt_says() -> None:
    seen = prove(1000 if LONG else 30, fresh=LONG)
    print(f"in virtual time: {dict(sorted(seen.items()))}")  # noqa: T201 (the figures of a long run)
    assert seen["accepted"] >= (50_000 if LONG else 1000)
    if LONG:
        wanted = {*AGGREGATOR_POINTS, *CLIENT_POINTS, "id reused", "old backup", "two aggregators", "new run"}
        assert all(seen[what] >= 10 for what in wanted), "a proof without these proves nothing of them"
