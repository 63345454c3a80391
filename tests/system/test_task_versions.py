from __future__ import annotations

import pytest

from tests.system.processes import TASK, Federation

pytestmark = pytest.mark.broker


def test_updates_of_a_task_version_that_is_not_admitted_are_rejected(at_work: Federation) -> None:
    changed = at_work.task("changed.py", TASK.replace('task_version = "1"', 'task_version = "2"'))
    client = at_work.client("newer", changed)
    at_work.until(lambda: at_work.status("newer").rejected >= 2, "two verdicts")
    client.says("reason=task_version detail=\"task version '2', admitted: 1\"", times=2)
    assert at_work.status("newer").accepted == 0
    assert client.running
