from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def test_an_aggregator_that_cannot_commit_ends_and_says_so(fed: Federation) -> None:
    aggregator = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada")
    fed.run_folder.rename(fed.folder / "gone")
    assert aggregator.ends() == 1
    assert "the commit failed" in aggregator.log
    assert "Traceback" not in aggregator.log
    fed.until(lambda: fed.watch.aggregator and fed.watch.aggregator.state == "offline", "its presence")
    shown = fed.version
    (fed.folder / "gone").rename(fed.run_folder)
    assert fed.read_run().version >= shown
    assert client.running
    fed.aggregator()
    fed.goes_on()


def test_a_client_that_cannot_keep_its_updates_ends_and_says_so(at_work: Federation) -> None:
    client = at_work.client("damaged")
    at_work.work("damaged")
    outbox = at_work.folder / "state" / "fedmq" / at_work.name / "damaged" / "outbox.sqlite"
    with closing(sqlite3.connect(outbox, timeout=20)) as database, database:
        database.execute("DROP TABLE entry")
    assert client.ends() == 1
    assert "no such table: entry" in client.log
    assert "Traceback" not in client.log
    at_work.until(lambda: at_work.status("damaged").activity == "stopped", "its status")
    assert "no such table: entry" in at_work.status("damaged").detail
