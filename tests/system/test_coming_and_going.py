from __future__ import annotations

import re

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def test_a_late_joiner_trains_on_the_newest_version_and_contributes(at_work: Federation) -> None:
    at_work.until(lambda: at_work.version >= 3, "a few versions without it")
    before = at_work.version
    late = at_work.client("late", "--log-level=debug")
    late.says("trained client=late", times=2)
    first = int(re.findall(r"trained client=late version=(\d+)", late.log)[0])
    assert first >= before
    at_work.work("late")
    updates = [folded for record in at_work.read_run().history for folded in record["updates"]]
    assert {folded["base_version"] for folded in updates if folded["client_id"] == "late"} >= {first}


def test_a_client_that_is_killed_shows_as_offline_and_holds_nobody_up(at_work: Federation) -> None:
    gone = at_work.client("gone")
    at_work.work("gone")
    gone.kill()
    at_work.until(lambda: at_work.status("gone").state == "offline", "the last will")
    at_work.work("ada", "bob", updates=2)
    at_work.goes_on()
    assert at_work.status("gone").state == "offline"
