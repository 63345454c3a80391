"""The packed verdicts of one outbox."""

from __future__ import annotations

import tracemalloc
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.judged import Judged
from fedmq.aggregator.ledger import Ledger
from fedmq.aggregator.window import DIGEST_BYTES, WINDOW, Verdict, Window
from fedmq.schemas.errors import Reason
from fedmq.schemas.messages import UpdateId
from tests.aggregator.small_run import outbox
from tests.generators import unhurried

DIGEST = bytes(range(DIGEST_BYTES))

accepted = st.builds(
    lambda digest, version, staleness: Verdict(digest, None, version, staleness),
    st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES),
    st.integers(0, (1 << 63) - 1),
    st.integers(0, (1 << 32) - 1),
)
rejected = st.sampled_from([Verdict(DIGEST, reason, None, None) for reason in get_args(Reason)])
steps = st.lists(st.tuples(st.integers(0, 200) | st.integers(0, (1 << 63) - 1), accepted | rejected), max_size=80)


@unhurried
@given(steps)
def test_it_remembers_what_a_dictionary_would_of_the_newest_numbers(steps: list[tuple[int, Verdict]]) -> None:
    window, everything = Window(), dict[int, Verdict]()
    for sequence, verdict in steps:
        if sequence <= window.newest - WINDOW:
            continue
        window.put(sequence, *verdict)
        everything[sequence] = verdict
        kept = {s: v for s, v in everything.items() if s > max(everything) - WINDOW}
        assert {s: window.get(s) for s in window} == kept
        assert len(window) == len(kept)
        assert window.newest == max(everything)


def test_a_staleness_that_does_not_fit_is_the_largest_that_does() -> None:
    window = Window()
    window.put(0, DIGEST, None, 1 << 40, 1 << 40)
    assert window.get(0) == Verdict(DIGEST, None, 1 << 40, (1 << 32) - 1)


def test_a_client_takes_two_kilobytes_however_much_it_has_sent() -> None:
    tracemalloc.start()
    try:
        ledger = Ledger()
        for number in range(200):
            for sequence in range(100):
                update = UpdateId(outbox_id=outbox(number), sequence=sequence)
                judged = Judged(update, version=10**6 + sequence, staleness=3, digest="ab" * 8)
                ledger.enter(f"client-{number}", judged)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 200 < 2500


@pytest.mark.parametrize("skipped", [1, 2, 40, 63])
def test_a_number_that_was_passed_over_has_no_verdict_of_another_that_had_its_place(skipped: int) -> None:
    window = Window()
    for sequence in range(WINDOW):
        window.put(sequence, DIGEST, None, sequence, 0)
    window.put(WINDOW + skipped, DIGEST, None, 7, 0)
    assert [window.get(WINDOW + n) for n in range(skipped)] == [None] * skipped


@unhurried
@given(steps)
def test_what_is_packed_comes_back(steps: list[tuple[int, Verdict]]) -> None:
    window, copy = Window(), Window()
    for sequence, verdict in steps:
        if sequence > window.newest - WINDOW:
            copy.put_record(sequence, window.put(sequence, *verdict))
    assert Window(window.newest, window.packed()) == window == copy


def test_the_places_of_the_reasons_are_what_folders_on_disks_have() -> None:
    assert get_args(Reason)[:15] == (
        "malformed", "too_large", "wrong_run", "wrong_client", "signature", "revoked", "id_reused", "expired",
        "task_version", "layout", "unknown_base", "too_stale", "late", "not_finite", "internal",
    )  # fmt: skip
