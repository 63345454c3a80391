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

DIGEST, OTHER = (hashlib.sha256(content).hexdigest() for content in (b"one", b"other"))


def update(sequence: int, box: int = 1) -> UpdateId:
    return UpdateId(outbox_id=outbox(box), sequence=sequence)


def accepted(sequence: int, box: int = 1, digest: str = DIGEST) -> Judged:
    return Judged(update(sequence, box), version=3, staleness=1, digest=short(digest))


def reason_of(judged: Judged | None) -> str | None:
    assert judged is not None
    assert judged.verdict == "rejected"
    return judged.reason


def test_what_was_never_judged_has_no_verdict() -> None:
    ledger = Ledger()
    assert ledger.find("alice", update(0), DIGEST) is None
    ledger.enter("alice", accepted(0))
    assert ledger.find("alice", update(1), DIGEST) is None
    assert ledger.find("bob", update(0), DIGEST) is None


def test_a_verdict_is_the_same_however_often_it_is_asked_for() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(5))
    assert [ledger.find("alice", update(5), DIGEST) for _ in range(3)] == [accepted(5)] * 3


def test_a_rejection_keeps_its_reason_and_not_its_sentence() -> None:
    ledger = Ledger()
    refused = Judged(update(0), "layout", "x" * 2000, digest=short(DIGEST))
    ledger.enter("alice", refused)
    found = ledger.find("alice", update(0), DIGEST)
    assert found is not None
    assert found._replace(detail=refused.detail) == refused
    assert 0 < len(found.detail) < 120


def test_the_same_id_with_other_bytes_is_refused_and_the_first_verdict_stays() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(5))
    assert reason_of(ledger.find("alice", update(5), OTHER)) == "id_reused"
    assert ledger.find("alice", update(5), DIGEST) == accepted(5)


def test_the_last_64_sequence_numbers_are_remembered_and_older_ones_are_expired() -> None:
    ledger = Ledger()
    for sequence in range(100):
        ledger.enter("alice", accepted(sequence))
    assert reason_of(ledger.find("alice", update(99 - WINDOW), DIGEST)) == "expired"
    assert ledger.find("alice", update(100 - WINDOW), DIGEST) == accepted(100 - WINDOW)
    assert len(ledger.outboxes("alice")[0].verdicts) == WINDOW


def test_a_gap_in_the_window_is_still_to_be_judged() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(70))
    assert ledger.find("alice", update(69), DIGEST) is None
    assert ledger.find("alice", update(7), DIGEST) is None
    assert reason_of(ledger.find("alice", update(6), DIGEST)) == "expired"


def test_a_number_that_comes_late_does_not_turn_the_window_back() -> None:
    ledger = Ledger()
    for sequence in (100, 50):
        ledger.enter("alice", accepted(sequence))
    assert reason_of(ledger.find("alice", update(36), DIGEST)) == "expired"
    assert ledger.find("alice", update(50), DIGEST) == accepted(50)


def test_two_outboxes_are_remembered_and_a_third_retires_the_first_for_ever() -> None:
    ledger = Ledger()
    for box in (1, 2):
        ledger.enter("alice", accepted(0, box))
    assert ledger.find("alice", update(0, 1), DIGEST) == accepted(0, 1)
    ledger.enter("alice", accepted(0, 3))
    assert [box.outbox_id for box in ledger.outboxes("alice")] == [outbox(2), outbox(3)]
    assert ledger.retired("alice") == [outbox(1)]
    assert reason_of(ledger.find("alice", update(0, 1), DIGEST)) == "expired"
    assert reason_of(ledger.find("alice", update(1, 1), DIGEST)) == "expired"


def test_clients_do_not_touch_each_others_outboxes() -> None:
    ledger = Ledger()
    ledger.enter("alice", accepted(0))
    ledger.enter("bob", accepted(0, digest=OTHER))
    assert ledger.find("alice", update(0), DIGEST) == accepted(0)
    assert ledger.find("bob", update(0), OTHER) == accepted(0, digest=OTHER)
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
    for client, box, sequence, digest in offers:
        boxes = list(dict.fromkeys(b for c, b, _ in verdicts if c == client))
        newest = max((s for c, b, s in verdicts if (c, b) == (client, box)), default=-1)
        known = verdicts.get((client, box, sequence))

        found = ledger.find(client, update(sequence, box), digest)
        if box in boxes[:-2] or sequence <= newest - WINDOW:
            assert reason_of(found) == "expired"
        elif known is None:
            assert found is None
            judged = accepted(sequence, box, digest)
            ledger.enter(client, judged)
            verdicts[client, box, sequence] = (digest, judged)
        elif known[0] != digest:
            assert reason_of(found) == "id_reused"
        else:
            assert found == known[1]
