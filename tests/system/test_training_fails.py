from __future__ import annotations

import pytest

from tests.system.processes import Federation, until

pytestmark = pytest.mark.broker


def test_a_training_that_raises_is_reported_and_harms_nobody(at_work: Federation) -> None:
    dora = at_work.client("dora", at_work.task("failing_too.py", (at_work.folder / "failing.py").read_text()))
    at_work.until(lambda: at_work.status("dora").activity == "error", "her status")
    assert at_work.status("dora").detail == "the training failed: RuntimeError: the sensor is unplugged"
    assert "failing_too.py" in dora.log  # with a traceback into the task, for who wrote it
    at_work.work("ada", "bob")
    assert dora.running


def test_a_training_that_raises_is_tried_again_later_and_later(at_work: Federation) -> None:
    attempts = at_work.folder / "failing.attempts"  # carl's
    until(lambda: attempts.read_text().count("\n") >= 3, "the third attempt")
    first, second, third = map(float, attempts.read_text().split()[:3])
    assert second - first >= 3.5
    assert third - second >= 7.0


CANNOT_BEGIN = """
import torch

def build_model():
    if not HAS_MODEL:
        raise LookupError("no such architecture")
    return torch.nn.Linear(4, 1)

def load_data(client_id):
    return open("/nonexistent/recordings")
"""


def test_a_task_that_raises_before_any_training_ends_the_process_with_its_line(fed: Federation) -> None:
    fed.set(aggregator__init=None)
    client = fed.client("ada", fed.task("without_data.py", CANNOT_BEGIN + "HAS_MODEL = True"))
    aggregator = fed.aggregator(fed.task("without_model.py", CANNOT_BEGIN + "HAS_MODEL = False"))
    assert [client.ends(), aggregator.ends()] == [2, 2]
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/recordings'" in client.log
    assert f"({fed.folder}/without_data.py:10)" in client.log
    assert "LookupError: no such architecture" in aggregator.log
    assert f"({fed.folder}/without_model.py:6)" in aggregator.log
    for program in (client, aggregator):
        assert len(program.log.splitlines()) == 1
