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
        assert "there are mallory" in said.stderr

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
