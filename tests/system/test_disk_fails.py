from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def test_an_aggregator_whose_disk_fails_says_so_answers_later_and_goes_on_when_it_works_again(fed: Federation) -> None:
    aggregator = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada")
    fed.run_folder.rename(fed.folder / "gone")
    fed.until(lambda: fed.watch.aggregator and "the commit failed" in fed.watch.aggregator.detail, "its complaint")
    aggregator.says("the disk failed, trying again in")
    assert "the commit failed" in fed.command("status").stdout
    fed.refresh()
    shown, accepted = fed.version, fed.accepted("ada")
    client.says("trained", times=accepted + 2)  # it goes on with its work, and keeps it
    (fed.folder / "gone").rename(fed.run_folder)
    aggregator.says("the disk works again")
    assert fed.read_run().version >= shown
    fed.work("ada", updates=3)
    fed.until(lambda: fed.status("ada").waiting <= 1, "the outbox to be emptied")
    fed.until(lambda: fed.watch.aggregator and not fed.watch.aggregator.detail, "the complaint to be gone")
    assert aggregator.running
    assert client.running
    assert "Traceback" not in aggregator.log


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
