"""The chaos is as good as its eyes: each kind of broken promise, made by hand, is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmq.aggregator.export import Run
from fedmq.aggregator.staleness import constant
from fedmq.aggregator.strategies import Strategy, fedasync_delta, fedbuff
from fedmq.schemas.layout import Entry, Layout
from tests.chaos.findings import Evidence, broken_promises
from tests.chaos.observer import Update, Verdict
from tests.chaos.one_hot_task import PLACES

OUTBOX = "0" * 32
ACCEPTED = Verdict("accepted", None, 0, 0)
EXPIRED = Verdict("rejected", "expired", None, None)
MALFORMED = Verdict("rejected", "malformed", None, None)
EXACT = fedasync_delta(alpha=1.0, staleness=constant())


def update(sequence: int, outbox: str = OUTBOX) -> Update:
    return Update("client-0", outbox, sequence)


def version(number: int, sequence: int) -> dict[str, Any]:
    folded = {
        "client_id": "client-0",
        "update": {"outbox_id": OUTBOX, "sequence": sequence},
        "base_version": number - 1,
        "staleness": 0,
        "weight": 1.0,
        "num_samples": 10,
    }
    return {"version": number, "updates": [folded], "buffer_size": 1, "why": "full", "seconds": float(number)}


def evidence(
    *folded: int,
    verdicts: dict[Update, set[Verdict]],
    stored: int = 2,
    strategy: Strategy = EXACT,
    **changes: Any,
) -> Evidence:
    """One client, whose updates of these sequence numbers made a version each."""
    weights = np.zeros(PLACES, np.float32)
    for sequence in folded:
        weights[sequence] += 1
    history = [version(number, sequence) for number, sequence in enumerate(folded, 1)]
    figures = {"accepted": len(folded)}
    run = Run("1" * 32, len(folded), Layout((Entry("counts", (PLACES,)),)), weights, history, figures)
    made = Evidence(run, strategy, True, ("client-0",), {"client-0": stored}, {"client-0": 0}, verdicts, {})
    return replace(made, **changes)


HEARD = {update(0): {ACCEPTED}, update(1): {ACCEPTED}}


def test_nothing_is_found_where_all_is_well() -> None:
    assert broken_promises(evidence(0, 1, verdicts=HEARD)) == []


@pytest.mark.parametrize("verdicts", [{}, {update(0): {EXPIRED}}, {update(0): {ACCEPTED, EXPIRED}}])
def test_what_the_observer_missed_or_heard_to_be_too_old_may_have_counted(verdicts: dict[Update, set[Verdict]]) -> None:
    assert broken_promises(evidence(0, verdicts=verdicts, stored=1)) == []


def test_an_update_that_expired_need_not_have_counted() -> None:
    assert broken_promises(evidence(verdicts={update(0): {EXPIRED}}, stored=1)) == []


def test_a_refused_update_does_not_count() -> None:
    assert broken_promises(evidence(verdicts={update(0): {MALFORMED}}, stored=1)) == []
    found = broken_promises(evidence(0, verdicts={update(0): {MALFORMED}}, stored=1))
    assert found == ["client-0 0: counts 1 times with malformed"]


def test_an_accepted_update_that_is_not_in_the_weights_is_found() -> None:
    assert broken_promises(evidence(0, verdicts=HEARD)) == ["client-0 1: counts 0 times with accepted"]


def test_an_update_that_left_the_outbox_and_never_came_is_found() -> None:
    assert broken_promises(evidence(0, verdicts={})) == ["client-0 1: counts 0 times with no receipt"]


@pytest.mark.parametrize("verdicts", [HEARD, {}, {update(1): {EXPIRED}}])
def test_an_update_that_counts_twice_is_found_whatever_its_receipts_say(verdicts: dict[Update, set[Verdict]]) -> None:
    (found,) = broken_promises(evidence(0, 1, 1, verdicts=verdicts))
    assert found.startswith("client-0 1: counts 2 times")


def test_an_update_that_no_outbox_ever_held_is_found() -> None:
    assert broken_promises(evidence(0, verdicts={}, stored=0)) == ["client-0 0: counts 1 times with no receipt"]


@pytest.mark.parametrize("other", [MALFORMED, ACCEPTED._replace(version=7)])
def test_two_verdicts_on_one_update_are_found(other: Verdict) -> None:
    (found,) = broken_promises(evidence(0, 1, verdicts=HEARD | {update(1): {ACCEPTED, other}}))
    assert "different verdicts" in found


def test_one_id_with_two_contents_is_found() -> None:
    (found,) = broken_promises(evidence(0, 1, verdicts=HEARD, digests={update(1): {"a", "b"}}))
    assert "different content" in found


def test_an_outbox_that_is_not_empty_is_found() -> None:
    (found,) = broken_promises(evidence(0, 1, verdicts=HEARD, waiting={"client-0": 1}))
    assert found == "client-0: 1 updates are in its outbox"


def test_weights_that_the_history_does_not_give_are_found_to_the_last_bit() -> None:
    strategy = fedbuff(buffer_size=1)
    moved = evidence(0, 1, verdicts=HEARD, strategy=strategy, counts_one=False)
    moved.run.weights[:2] = np.float32(0.7)
    assert broken_promises(moved) == []
    moved.run.weights[0] = np.nextafter(np.float32(0.7), np.float32(1))
    assert broken_promises(moved) == ["the weights are not those that the history gives"]


def test_an_accepted_update_that_is_in_no_history_is_found() -> None:
    made = evidence(0, 1, verdicts=HEARD)
    made.run.figures["accepted"] = 3
    assert broken_promises(made) == ["3 were accepted, the history has 2"]
