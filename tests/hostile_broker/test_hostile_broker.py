"""Nothing is accepted that was not sent, and clients lose nothing, whatever the broker does.

`make test` has a few seconds of it. `HOSTILE=long`, which `make hostile-broker` sets, attacks for ten times as long and
leaves out each check of signatures once, to see that it is missed. `HOSTILE_SEED` repeats what the broker does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_broker.mutated import MUTATIONS
from tests.hostile_broker.siege import siege

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

LONG = os.environ.get("HOSTILE") == "long"
SEED = int(os.environ.get("HOSTILE_SEED") or random.SystemRandom().randrange(1_000_000))
SECONDS, LEAST = (60.0, 40) if LONG else (4.0, 6)

KINDS = {"aggregator", "head", "layout", "offer", "progress", "reply", "status"}
IN_PARTS = {"snapshot-part", "part", "need"}


@pytest.fixture
def report(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints, whether or not the test passes."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None

    def write(text: str) -> None:
        with capfd.disabled():
            reporter.write_line(f"\n{text}")

    return write


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_a_hostile_broker_makes_nothing_count_and_nothing_be_lost(
    mosquitto_installed: None, tmp_path: Path, report: Callable[[str], None], parts: bool
) -> None:
    outcome = siege(tmp_path / "siege", SEED, SECONDS, parts=parts, least=LEAST)
    report(f"hostile broker, {'in parts' if parts else 'in one message'}, seed {SEED}: {outcome}")
    assert outcome.broken == []
    assert outcome.accepted >= LEAST
    assert outcome.signature >= 1
    assert {"it is not signed", "it is an old one, repeated"} <= set(outcome.refusals)
    replayed = {kind for deed, kind in outcome.deeds if deed == "replayed"}
    if LONG:
        assert replayed >= KINDS | (IN_PARTS if parts else set())


@pytest.mark.skipif(not LONG, reason="make hostile-broker runs it")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_check_that_is_left_out_is_missed(
    mosquitto_installed: None, tmp_path: Path, mutation: str, report: Callable[[str], None]
) -> None:
    for number, seed in enumerate(range(SEED, SEED + 3)):
        outcome = siege(tmp_path / f"{seed}", seed, 20.0, parts=number % 2 == 0, mutation=mutation)
        report(f"without a check ({mutation}), seed {seed}: {outcome}")
        if outcome.broken:
            return
    pytest.fail(f"that {mutation} was not missed in three runs")
