from __future__ import annotations

import resource
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
    shown = fed.version
    fed.until(lambda: fed.status("ada").waiting >= 3, "its client to go on with its work, and keep it")
    (fed.folder / "gone").rename(fed.run_folder)
    aggregator.says("going on from the last commit")
    assert fed.read_run().version >= shown
    fed.work("ada", updates=3)
    fed.until(lambda: fed.status("ada").waiting <= 1, "the outbox to be emptied")
    fed.until(lambda: fed.watch.aggregator and not fed.watch.aggregator.detail, "the complaint to be gone")
    assert aggregator.running
    assert client.running
    assert "Traceback" not in aggregator.log


def test_an_aggregator_whose_disk_is_full_goes_on_when_there_is_room(fed: Federation) -> None:
    """No file of its process may grow: to it that is a full disk, in the middle of whatever it was writing."""
    aggregator = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=2)
    unlimited = resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE)
    for _ in range(2):
        resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        fed.until(lambda: fed.watch.aggregator and fed.watch.aggregator.detail, "its complaint")
        assert fed.watch.aggregator is not None
        assert "the commit failed" in fed.watch.aggregator.detail
        resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE, unlimited)
        fed.work("ada", updates=3)
        fed.until(lambda: fed.watch.aggregator and not fed.watch.aggregator.detail, "the complaint to be gone")
    assert aggregator.running
    assert client.running
    client.kill()
    fed.until(lambda: fed.status("ada").state == "offline", "the end of the client")
    aggregator.terminate()
    assert aggregator.ends() == 0
    run = fed.read_run()
    accepted = [update["update"]["sequence"] for record in run.history for update in record["updates"]]
    with closing(sqlite3.connect(fed.folder / "state" / "fedmq" / fed.name / "ada" / "outbox.sqlite")) as outbox:
        kept = {sequence for (sequence,) in outbox.execute("SELECT sequence FROM entry")}
    # Each once, and none is gone: one that was told to come later may be waiting for that, behind newer ones.
    assert len(accepted) == len(set(accepted))
    assert {*accepted, *kept} == set(range(max(*accepted, *kept) + 1))
    assert run.figures["accepted"] == len(accepted)


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
