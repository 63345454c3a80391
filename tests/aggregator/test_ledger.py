"""What is remembered of judged updates: a verdict is given once and stays."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.judged import Judged, short
from fedmq.aggregator.ledger import Ledger
from fedmq.aggregator.window import WINDOW
from fedmq.schemas.messages import UpdateId
from tests.aggregator.small_run import outbox
from tests.generators import unhurried

BASE = 2
DIGEST, OTHER = (hashlib.sha256(content).hexdigest() for content in (b"one", b"other"))


def update(sequence: int, box: int = 1) -> UpdateId:
    return UpdateId(outbox_id=outbox(box), sequence=sequence)


def accepted(sequence: int, box: int = 1, digest: str = DIGEST) -> Judged:
    return Judged(update(sequence, box), version=BASE + 1, staleness=1, digest=short(digest))


def reason_of(judged: Judged | None) -> str | None:
    assert judged is not None
    assert judged.verdict == "rejected"
    return judged.reason


def test_what_was_never_judged_has_no_verdict() -> None:
    ledger = Ledger()
    assert ledger.find("alice", update(0), DIGEST, BASE) is None
    ledger.enter("alice", accepted(0))
    assert ledger.find("alice", update(1), DIGEST, BASE) is None
    assert ledger.find("bob", update(0), DIGEST, BASE) is None


def test_a_verdict_is_the_same_however_often_it_is_asked_for() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(5))
    assert [ledger.find("alice", update(5), DIGEST, BASE) for _ in range(3)] == [accepted(5)] * 3


def test_a_rejection_keeps_its_reason_and_not_its_sentence() -> None:
    ledger = Ledger()
    refused = Judged(update(0), "layout", "x" * 2000, digest=short(DIGEST))
    ledger.enter("alice", refused)
    found = ledger.find("alice", update(0), DIGEST, BASE)
    assert found is not None
    assert found._replace(detail=refused.detail) == refused
    assert 0 < len(found.detail) < 120


def test_the_same_id_with_other_bytes_is_refused_and_the_first_verdict_stays() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(5))
    assert reason_of(ledger.find("alice", update(5), OTHER, BASE)) == "id_reused"
    assert ledger.find("alice", update(5), DIGEST, BASE) == accepted(5)


def test_the_last_64_sequence_numbers_are_remembered_and_older_ones_are_expired() -> None:
    ledger = Ledger()
    for sequence in range(100):
        ledger.enter("alice", accepted(sequence))
    assert reason_of(ledger.find("alice", update(99 - WINDOW), DIGEST, BASE)) == "expired"
    assert ledger.find("alice", update(100 - WINDOW), DIGEST, BASE) == accepted(100 - WINDOW)
    assert len(ledger.outboxes("alice")[0].verdicts) == WINDOW


def test_a_gap_in_the_window_is_still_to_be_judged() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(70))
    assert ledger.find("alice", update(69), DIGEST, BASE) is None
    assert ledger.find("alice", update(7), DIGEST, BASE) is None
    assert reason_of(ledger.find("alice", update(6), DIGEST, BASE)) == "expired"


def test_a_number_that_comes_late_does_not_turn_the_window_back() -> None:
    ledger = Ledger()
    for sequence in (100, 50):
        ledger.enter("alice", accepted(sequence))
    assert reason_of(ledger.find("alice", update(36), DIGEST, BASE)) == "expired"
    assert ledger.find("alice", update(50), DIGEST, BASE) == accepted(50)


def test_of_an_outbox_that_two_others_followed_nothing_counts_twice_and_what_was_not_judged_still_may() -> None:
    ledger = Ledger()
    for sequence in (0, 1, 3, 70, 72):
        ledger.enter("alice", accepted(sequence, 1))
    ledger.enter("alice", accepted(0, 2))
    assert ledger.find("alice", update(70, 1), DIGEST, BASE) == accepted(70, 1)
    ledger.enter("alice", accepted(0, 3))
    assert [box.outbox_id for box in ledger.outboxes("alice")] == [outbox(2), outbox(3)]
    assert list(ledger.retired("alice")) == [outbox(1)]
    judged = {sequence for sequence in range(80) if ledger.find("alice", update(sequence, 1), DIGEST, BASE)}
    assert judged == {*range(9), 70, 72}  # what is 64 below the newest may have been judged
    assert reason_of(ledger.find("alice", update(70, 1), DIGEST, BASE)) == "expired"
    ledger.enter("alice", accepted(9, 1))  # it comes back with what it has kept
    assert ledger.find("alice", update(9, 1), DIGEST, BASE) == accepted(9, 1)
    assert reason_of(ledger.find("alice", update(72, 1), DIGEST, BASE)) == "expired"
    for box in (4, 5):
        ledger.enter("alice", accepted(0, box))
    assert reason_of(ledger.find("alice", update(9, 1), DIGEST, BASE)) == "expired"
    assert ledger.find("alice", update(10, 1), DIGEST, BASE) is None


def accepted_from(base: int, box: int, sequence: int = 0) -> Judged:
    return Judged(update(sequence, box), version=base + 4, staleness=4, digest=short(DIGEST))


def test_an_outbox_may_come_back_again_and_again_and_all_that_was_ever_judged_of_it_stays_so() -> None:
    ledger = Ledger()
    for sequence in (5, 9):
        ledger.enter("alice", accepted_from(200, 0, sequence))
    for back in range(3):
        for box in (100 + 2 * back, 101 + 2 * back):
            ledger.enter("alice", accepted_from(30, box))
        assert list(ledger.retired("alice"))[-1] == outbox(0)
        ledger.enter("alice", accepted_from(10, 0, (7, 20, 8)[back]))
    for box in (110, 111):
        ledger.enter("alice", accepted_from(30, box))
    judged = {sequence for sequence in range(100) if ledger.find("alice", update(sequence, 0), DIGEST, 0)}
    assert judged == {5, 7, 8, 9, 20}
    for box in range(200, 264):
        ledger.enter("alice", accepted_from(30, box))
    assert ledger.forgotten("alice") == 200


def test_an_update_that_may_be_of_an_outbox_of_which_nothing_is_remembered_is_expired() -> None:
    ledger = Ledger()
    for box in range(66):
        ledger.enter("alice", accepted_from(100 + box, box))
    assert ledger.find("alice", update(0, 99), DIGEST, 0) is None  # all are remembered
    ledger.enter("alice", accepted_from(50, 66))
    for box in (0, 99):  # which of them it was, it does not know any more
        assert reason_of(ledger.find("alice", update(0, box), DIGEST, 100)) == "expired"
        assert ledger.find("alice", update(0, box), DIGEST, 101) is None
    assert ledger.find("alice", update(1, 66), DIGEST, 0) is None
    assert ledger.find("alice", update(1, 1), DIGEST, 0) is None
    assert ledger.find("bob", update(0, 0), DIGEST, 0) is None
    for box in range(67, 100):
        ledger.enter("alice", Judged(update(0, box), "layout", "", digest=short(DIGEST)))
    assert ledger.forgotten("alice") == 133


def test_an_outbox_that_was_forgotten_is_not_taken_for_a_new_one_when_it_comes_back() -> None:
    ledger = Ledger()
    for box in range(67):
        ledger.enter("alice", accepted_from(100 + box, box))
    assert ledger.forgotten("alice") == 100
    for turn in range(2):  # at work, and then as one that two others followed
        ledger.enter("alice", accepted_from(200, 0, 1 + turn))
        for outboxes in range(2):
            assert reason_of(ledger.find("alice", update(0, 0), DIGEST, 100)) == "expired"
            assert ledger.find("alice", update(9, 0), DIGEST, 101) is None
            for box in (70, 71) if outboxes == 0 else ():
                ledger.enter("alice", accepted_from(200, 2 * turn + box))


def test_an_outbox_of_which_nothing_was_accepted_leaves_nothing_behind() -> None:
    ledger = Ledger()
    for box in range(200):
        ledger.enter("alice", Judged(update(0, box), "layout", "", digest=short(DIGEST)))
    assert ledger.find("alice", update(0, 0), DIGEST, 0) is None
    assert len(ledger.retired("alice")) == 64


def test_clients_do_not_touch_each_others_outboxes() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(0))
    ledger.enter("bob", accepted(0, digest=OTHER))
    assert ledger.find("alice", update(0), DIGEST, BASE) == accepted(0)
    assert ledger.find("bob", update(0), OTHER, BASE) == accepted(0, digest=OTHER)
    assert (len(ledger), sorted(ledger.clients())) == (2, ["alice", "bob"])


offers = st.lists(
    st.tuples(
        st.sampled_from(["alice", "bob"]), st.integers(1, 4), st.integers(0, 150), st.sampled_from([DIGEST, OTHER])
    ),
    max_size=120,
)


@unhurried
@given(offers)
def test_in_any_order_of_offers_the_ledger_says_what_a_plain_dictionary_would(
    offers: list[tuple[str, int, int, str]],
) -> None:
    ledger = Ledger()
    verdicts: dict[tuple[str, int, int], tuple[str, Judged]] = {}  # everything, for ever
    at_work: dict[str, list[int]] = {"alice": [], "bob": []}
    since: dict[tuple[str, int], set[int]] = {}  # what was judged of an outbox since it began or came back
    for client, box, sequence, digest in offers:
        newest = max((s for c, b, s in verdicts if (c, b) == (client, box)), default=-1)
        known = verdicts.get((client, box, sequence))

        found = ledger.find(client, update(sequence, box), digest, BASE)
        if sequence <= newest - WINDOW:
            assert reason_of(found) == "expired"
        elif known is None:
            assert found is None
            judged = accepted(sequence, box, digest)
            ledger.enter(client, judged)
            verdicts[client, box, sequence] = (digest, judged)
            if box not in at_work[client]:
                at_work[client] = [*at_work[client], box][-2:]
                since[client, box] = set()
            since[client, box].add(sequence)
        elif box not in at_work[client] or sequence not in since[client, box]:
            assert reason_of(found) == "expired"
        elif known[0] != digest:
            assert reason_of(found) == "id_reused"
        else:
            assert found == known[1]
