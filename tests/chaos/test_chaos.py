"""Real processes, a real broker, SIGKILL at any instant: nothing is lost, and nothing counts twice.

`make test` has short runs of one strategy and one mutation. `CHAOS=long`, which `make chaos` sets, has all strategies
and all mutations: three times the hits of each fail-point, ten times the updates. `CHAOS_SEED` repeats a run's kills.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedmq.failpoints import AGGREGATOR_POINTS, CLIENT_POINTS
from tests.chaos.mutated import MUTATIONS
from tests.chaos.storm import Scale, storm

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

LONG = os.environ.get("CHAOS") == "long"
SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))

FULL = Scale(
    clients=4,
    aggregator_kills=20,
    client_kills=4,
    broker_kills=4,
    hits=2,
    half_full_hits=1,
    accepted=345,
    seconds=74.0,
)
"""Of each of the three strategies; in sum they are what `LONG` asks for."""

SHORT = Scale(
    clients=3,
    aggregator_kills=8,
    client_kills=2,
    broker_kills=2,
    hits=1,
    half_full_hits=0,
    accepted=100,
    seconds=60.0,
)

UNCOPIED = replace(FULL, accepted=150)

UNCOPIED_SHORT = replace(SHORT, aggregator_kills=5, accepted=30)

MUTATED = Scale(
    clients=3,
    aggregator_kills=4,
    client_kills=0,
    broker_kills=0,
    hits=4,
    half_full_hits=0,
    accepted=20,
    seconds=40.0,
)

WHERE_IT_SHOWS = {
    "receipt_before_commit": ("vectors-written", "transaction-open"),
    "no_ledger": ("committed", "offered"),
    "cleared_when_sent": ("judged", "vectors-written"),
}
"""By mutation, the fail-points at which a crash brings it to light."""


@pytest.fixture
def report(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints, whether or not the test passes."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None

    def write(text: str) -> None:
        with capfd.disabled():
            reporter.write_line(f"\n{text}")

    return write


def test_every_update_counts_as_its_receipt_says_whatever_is_killed(
    mosquitto_installed: None, tmp_path: Path, report: Callable[[str], None]
) -> None:
    begun = time.monotonic()
    names, scale = (("fedasync_delta", "fedbuff_paper", "fedbuff"), FULL) if LONG else (("fedbuff_paper",), SHORT)
    report(f"chaos, seed {SEED}")
    outcomes = []
    for name in names:
        outcomes.append(storm(tmp_path / name, name, scale, SEED))
        report(str(outcomes[-1]))
    seconds = time.monotonic() - begun
    assert [sentence for outcome in outcomes for sentence in outcome.broken] == []
    kills = sum((outcome.kills for outcome in outcomes), Counter[str]())
    hits = sum((outcome.hits for outcome in outcomes), Counter[str]())
    half_full = sum((outcome.half_full for outcome in outcomes), Counter[str]())
    accepted, trained = sum(o.accepted for o in outcomes), sum(o.trained for o in outcomes)
    killed = ", ".join(f"{name} {count}" for name, count in kills.items())
    report(f"in all: {seconds:.0f} s, {accepted} accepted of {trained} trained ({accepted / trained:.1%}), {killed}")
    clients = [kills[f"client-{number}"] for number in range(scale.clients)]
    assert accepted >= 0.95 * trained
    assert accepted >= (1000 if LONG else 100)
    assert kills["aggregator"] >= (50 if LONG else 8)
    assert min(clients) >= (10 if LONG else 2)
    assert kills["broker"] >= (10 if LONG else 2)
    for point in AGGREGATOR_POINTS + CLIENT_POINTS:
        assert hits[point] >= (3 if LONG else 1), point
        assert half_full[point] >= 1 or not LONG, point
    assert sum(half_full.values()) >= 1
    assert seconds <= 240


def test_the_same_of_a_model_that_is_not_copied_to_be_written(
    mosquitto_installed: None, tmp_path: Path, report: Callable[[str], None]
) -> None:
    scale = UNCOPIED if LONG else UNCOPIED_SHORT
    outcome = storm(tmp_path / "uncopied", "fedbuff_paper", scale, SEED, ("tests.chaos.uncopied",))
    report(f"not copied, on a slow disk, seed {SEED}, {outcome}")
    assert outcome.broken == []


@pytest.mark.parametrize("mutation", MUTATIONS if LONG else ["cleared_when_sent"])
def test_a_broken_promise_is_found(
    mosquitto_installed: None, tmp_path: Path, mutation: str, report: Callable[[str], None]
) -> None:
    # A death of the wrong process at the wrong time breaks nothing; on a busy machine that may be all of a run's.
    for seed in range(SEED, SEED + 3):
        program = ("tests.chaos.mutated", mutation)
        outcome = storm(tmp_path / f"{seed}", "fedbuff_paper", MUTATED, seed, program, WHERE_IT_SHOWS[mutation])
        report(f"with the mutation {mutation}, seed {seed}, {outcome}")
        if outcome.broken:
            return
    pytest.fail(f"the mutation {mutation} was not found in three runs")
