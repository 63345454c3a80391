"""A client that came into quarantine, as people see it and let it out."""

from __future__ import annotations

import json

import pytest

from tests.system.handmade import HandmadeClient
from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def test_a_client_in_quarantine_is_shown_through_a_restart_and_let_out_by_a_command(fed: Federation) -> None:
    fed.set(aggregator__quarantine_after=3)
    aggregator = fed.aggregator()
    fed.client("ada")
    fed.work("ada")
    with HandmadeClient(fed, "mallory") as mallory:
        for sequence in range(3):
            mallory.send(mallory.offer(sequence, layout="f" * 64))
            assert mallory.receipt(sequence).reason == "layout"
        aggregator.says("quarantine client=mallory reason=layout seconds=3600")
        fed.until(lambda: fed.watch.progress and fed.watch.progress.quarantine, "the quarantine to be shown")
        assert "in quarantine: mallory (layout), since " in fed.command("status").stdout
        aggregator.kill()
        aggregator.ends()

        said = fed.command("release", "nobody")
        assert said.returncode == 2
        assert "client 'nobody' is not in quarantine in run folder" in said.stderr
        assert "; in quarantine are: mallory\n" in said.stderr

        fed.aggregator()
        fed.work("ada")
        one = json.loads(fed.command("status", "--json", "mallory").stdout)
        assert one["quarantine"]["reason"] == "layout"
        said = fed.command("release", "mallory")
        assert (said.returncode, said.stdout) == (0, "client mallory is out of quarantine\n")
        mallory.send(mallory.offer(3))
        assert mallory.receipt(3).verdict == "accepted"
        assert fed.command("release", "mallory").returncode == 2
    fed.until(lambda: fed.watch.progress and not fed.watch.progress.quarantine, "the quarantine to be empty")


SICK = """
from pathlib import Path

from fedmq import Trained

task_version = "1"
trainings = Path(__file__).with_suffix(".trainings")

def train_numpy(weights, plan):
    number = len(trainings.read_text()) if trainings.exists() else 0
    trainings.write_text("." * (number + 1))
    return Trained({name: array + (1e6 if number < 3 else 1.0) for name, array in weights.items()}, num_samples=10)
"""
"""Makes three updates that are too long, and then good ones."""


def test_a_device_in_quarantine_says_so_and_after_its_release_what_waits_counts_at_once(fed: Federation) -> None:
    fed.set(aggregator__quarantine_after=3, aggregator__max_norm=1000.0)
    aggregator = fed.aggregator()
    fed.client("ada")
    fed.work("ada")
    eve = fed.client("eve", fed.task("sick.py", SICK))
    aggregator.says("quarantine client=eve reason=norm_bound")
    eve.says("waiting client=eve reason=quarantine detail=")
    assert "the operator ends it with `fedmq release eve` on the aggregator's machine" in eve.log
    fed.until(lambda: "in quarantine" in fed.status("eve").detail, "eve's status to say so")
    assert fed.command("release", "eve").returncode == 0
    fed.work("eve")  # who is not told offers again after five minutes
    eve.says("heard again client=eve")
    fed.until(lambda: not fed.status("eve").detail, "eve's status to take it back")
    assert eve.log.count("reason=quarantine") == 1
