"""What is sent to clients: the bytes that the protocol's own models would give."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.judged import Judged, short
from fedmq.aggregator.replies import Replies
from fedmq.schemas.errors import Reason
from fedmq.schemas.messages import Later, Missing, Receipt, Reply
from fedmq.schemas.wire import decode, encode
from tests.generators import counts, sha256, texts, unhurried, updates

RUN, INCARNATION = "1" * 32, "2" * 32

accepted = st.builds(
    lambda update, version, staleness, digest: Judged(update, None, "", version, staleness, digest),
    updates, counts, counts, sha256.map(short),
)  # fmt: skip
rejected = st.builds(
    lambda update, reason, detail, digest: Judged(update, reason, detail, digest=digest),
    updates, st.sampled_from(get_args(Reason)), texts, st.none() | sha256.map(short),
)  # fmt: skip
later = st.builds(Later, update=updates, reason=st.just("busy"), seconds=st.floats(0, 10))
missing = st.builds(
    Missing, update=updates, ranges=st.just(((0, 5), (9, 12))), window=st.integers(1, 8), heard=st.none() | counts
)


def receipt(judged: Judged) -> Receipt:
    return Receipt(
        update=judged.update,
        verdict=judged.verdict,
        reason=judged.reason,
        detail=judged.detail,
        version=judged.version,
        staleness=judged.staleness,
        digest=judged.digest,
    )


@unhurried
@given(st.lists(accepted | rejected | later | missing, min_size=1, max_size=8, unique_by=lambda a: a.update.outbox_id))
def test_a_reply_is_the_bytes_of_its_model(answers: list[Judged | Later | Missing]) -> None:
    replies = Replies()
    for answer in answers:
        replies.add("alice", answer)
    model = Reply(
        run=RUN,
        incarnation=INCARNATION,
        receipts=tuple(receipt(answer) for answer in answers if isinstance(answer, Judged)),
        later=tuple(answer for answer in answers if isinstance(answer, Later)),
        missing=tuple(answer for answer in answers if isinstance(answer, Missing)),
    )
    assert list(replies.messages(RUN, INCARNATION, 1 << 20)) == [("alice", encode(model))]


@unhurried
@given(st.lists(accepted, min_size=1, max_size=100, unique_by=lambda a: a.update.outbox_id))
def test_many_answers_go_in_several_replies_and_each_goes_once(answers: list[Judged]) -> None:
    replies = Replies()
    for answer in [*answers, *answers]:
        replies.add("alice", answer)
    read = [decode(payload, Reply)[0].receipts for _, payload in replies.messages(RUN, INCARNATION, 1 << 20)]
    assert max(map(len, read)) <= 32
    assert [told for part in read for told in part] == [receipt(answer) for answer in answers]
