"""What people see of a federation while it works: status, and a folder that is taken."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.system.processes import TASK, Federation

pytestmark = pytest.mark.broker


def test_status_shows_the_run_and_each_client(at_work: Federation) -> None:
    begun = time.monotonic()
    shown = at_work.command("status")
    assert shown.returncode == 0, shown.stderr
    assert time.monotonic() - begun < 6  # news that keep coming are no reason to wait
    run = at_work.read_run().run
    assert f"aggregator online, run {run}" in shown.stdout
    assert "fedbuff, K = 1, goal: until stopped" in shown.stdout
    assert "\nlimits: an update takes 65,552 bytes at most; of task version 1\n" in shown.stdout
    for client_id in ("ada", "bob"):
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith(client_id)]
        assert "online" in line


def test_status_of_one_client_shows_all_of_it_and_of_nobody_fails(at_work: Federation) -> None:
    shown = at_work.command("status", "ada")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("ada\n")
    for field in ("state", "trained on", "outbox", "verdicts", "bytes", "task", "process"):
        assert f"\n  {field} " in shown.stdout
    nobody = at_work.command("status", "nobody")
    assert nobody.returncode == 1
    assert f" nothing is shown of client 'nobody' of federation {at_work.name!r}; clients there: ada, " in nobody.stdout


def test_status_shows_what_the_aggregator_has_said_to_a_client_where_its_folder_is(fed: Federation) -> None:
    fed.set(aggregator__task_versions=["1"])
    fed.aggregator()
    fed.client("ada")
    other = fed.client("eve", fed.task("other.py", TASK.replace('"1"', '"2"')))
    fed.work("ada", updates=2)
    other.says("rejected client=eve", 2)
    shown = fed.command("status")
    assert re.search(r"\nthe aggregator's last \d+ verdicts on eve: \d+ task_version\n", shown.stdout), shown.stdout
    assert "verdicts on ada" not in shown.stdout, "nothing of it was rejected"
    assert re.search(r"verdicts on ada: \d+ accepted\n", fed.command("status", "ada").stdout)
    elsewhere = fed.command("status", "--set", f"aggregator.folder={fed.folder}/none")
    assert "verdicts on" not in elsewhere.stdout
    (fed.folder / "broken").mkdir()
    (fed.folder / "broken" / "run.sqlite").write_text("no database at all, and long enough to be looked at " * 9)
    broken = fed.command("status", "--set", f"aggregator.folder={fed.folder}/broken")
    assert f"run folder {fed.folder}/broken: its verdicts cannot be read" in broken.stdout


def test_status_of_a_federation_that_is_not_there_says_where_it_looked(at_work: Federation) -> None:
    shown = at_work.command("status", "--federation", "plnt")
    url = at_work.settings["broker.url"]
    assert (shown.returncode, shown.stdout) == (
        1,
        f"at {url} nothing is shown of federation 'plnt': has its aggregator started, is the name right?\n",
    )


def test_the_first_lines_say_where_everything_is(at_work: Federation) -> None:
    aggregator, ada = at_work.programs[:2]
    where = f"federation={at_work.name} broker={at_work.settings['broker.url']} reconnect_max_seconds=1"
    assert f"starting {where} run_folder={at_work.run_folder} strategy=fedbuff" in aggregator.log
    outbox = at_work.folder / "state" / "fedmq" / at_work.name / "ada"
    assert f"starting client=ada {where} device_folder={outbox}" in ada.log


def test_an_aggregator_says_at_the_start_that_one_fast_device_could_shut_out_the_slow_ones(fed: Federation) -> None:
    fed.set(plan__max_staleness=3)
    fed.aggregator().says("max_staleness = 3, but one fast device alone can make more versions than that")


def test_status_as_json_is_one_object(at_work: Federation) -> None:
    seen = json.loads(at_work.command("status", "--json").stdout)
    assert seen["aggregator"]["state"] == "online"
    assert seen["progress"]["version"] >= 1
    assert set(seen["clients"]) >= {"ada", "bob"}
    nobody = at_work.command("status", "nobody", "--json")
    assert (nobody.returncode, nobody.stdout) == (1, "null\n")
    ada = json.loads(at_work.command("status", "ada", "--json").stdout)
    assert ada["accepted"] >= seen["clients"]["ada"]["accepted"] >= 1


def test_a_second_aggregator_on_a_run_folder_refuses_to_start(at_work: Federation) -> None:
    second = at_work.aggregator()
    assert second.ends() == 1
    assert f"an aggregator (process {at_work.programs[0].pid}) works in it" in second.log
    assert "Traceback" not in second.log
