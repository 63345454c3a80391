"""One live aggregator per run, and none from an old copy: whoever comes looks first at what the broker shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.system.processes import Federation, Program

pytestmark = pytest.mark.broker


def in_folder(folder: Path) -> tuple[str, str]:
    return "--set", f'aggregator.folder="{folder}"'


def stopped(program: Program) -> None:
    program.terminate()
    assert program.ends() == 0


def test_another_run_is_refused_and_the_one_that_is_there_goes_on(fed: Federation) -> None:
    first = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=2)
    other = fed.aggregator(*in_folder(fed.folder / "other"))
    assert other.ends() == 2
    assert "the broker shows another run of this federation" in other.log
    assert "put this run in its place with --replace" in other.log
    assert "Traceback" not in other.log
    fed.work("ada", updates=2)
    assert first.running
    assert client.running


def test_with_replace_the_newer_of_two_takes_over(fed: Federation) -> None:
    older = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=2)
    newer = fed.aggregator("--replace", *in_folder(fed.folder / "other"))
    assert older.ends() == 1
    assert "another aggregator serves this federation now; stop one of the two" in older.log
    fed.work("ada", updates=3)
    assert newer.running
    assert client.running


def test_an_older_copy_is_refused_while_the_newest_works_and_after_it(fed: Federation) -> None:
    first = fed.aggregator()
    fed.client("ada")
    fed.work("ada", updates=2)
    stopped(first)
    backup = fed.folder / "backup"
    shutil.copytree(fed.run_folder, backup)
    newest = fed.aggregator()
    fed.goes_on()
    for _ in range(2):
        copy = fed.aggregator(*in_folder(backup))
        assert copy.ends() == 2
        assert "of this run, this folder ends at version" in copy.log
        assert "it is an older copy; use the newest one, or go on from these weights as another run" in copy.log
        if newest.running:
            fed.goes_on()
            stopped(newest)


def test_an_older_copy_may_go_on_as_another_run(fed: Federation) -> None:
    first = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=2)
    stopped(first)
    backup = fed.folder / "backup"
    shutil.copytree(fed.run_folder, backup)
    weights, old = fed.read_run().weights, fed.read_run().run
    second = fed.aggregator()
    fed.goes_on()
    stopped(second)
    third = fed.aggregator("--new-run", "--set", "aggregator.buffer_size=1000", *in_folder(backup))
    third.says("the old run")
    fed.until(lambda: fed.watch.progress and fed.watch.progress.run != old, "the new run")
    assert fed.watch.progress is not None
    assert fed.watch.progress.version == 0
    third.kill()
    fed.run_folder = backup
    new = fed.read_run()
    assert (new.run != old, new.version, new.history) == (True, 0, [])
    assert new.weights.tobytes() == weights.tobytes()
    fed.run_folder = backup / f"run-{old[:8]}"
    kept = fed.read_run()
    assert (kept.run, kept.weights.tobytes()) == (old, weights.tobytes())
    assert len(kept.history) == kept.version
    assert client.running


def test_of_two_copies_that_begin_at_once_one_goes_on_and_each_update_counts_once(fed: Federation) -> None:
    first = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=2)
    stopped(first)
    copy = fed.folder / "copy"
    shutil.copytree(fed.run_folder, copy)
    two = [fed.aggregator(), fed.aggregator(*in_folder(copy))]
    fed.until(lambda: sum(program.running for program in two) < 2, "one of two to give way")
    [ended] = [program for program in two if not program.running]
    if ended.ends() == 1:
        assert "another aggregator serves" in ended.log
    else:
        assert "of this run" in ended.log
    fed.work("ada", updates=2)
    assert client.running
