from __future__ import annotations

import pytest

from fedmq.edge_client.actions import Action, AskLayout, Delete, Renew, SendOffer, SendPart
from fedmq.edge_client.core import ClientCore
from fedmq.schemas.messages import Missing, Reply
from tests.edge_client.words import (
    RUN,
    accepted,
    connected_core,
    head,
    later,
    missing,
    offer,
    offers,
    offline,
    online,
    rejected,
    trained_core,
    update,
)


def test_a_new_update_is_offered_at_once_with_its_bytes() -> None:
    _, actions = trained_core(sequence=4)
    assert offers(actions) == [SendOffer(4, with_body=True)]


def test_an_unanswered_offer_is_repeated_without_its_bytes_less_and_less_often() -> None:
    core, _ = trained_core()
    core.head(head(1), True, 0.0)  # it trains, so that offers are all that is due
    now, waits = 0.0, []
    for _ in range(9):
        due = core.deadline()
        assert due is not None
        assert offers(core.tick(due - 0.001)) == []
        assert offers(core.tick(due)) == [SendOffer(0, with_body=False)]
        waits.append(due - now)
        now = due
    for wait, expected in zip(waits, [2, 4, 8, 16, 32, 64, 120, 120, 120], strict=True):
        assert wait == pytest.approx(expected, rel=0.25)
    assert len({wait / round(wait) for wait in waits}) > 1, "jittered"


def test_what_was_in_the_outbox_before_is_offered_within_a_second_without_its_bytes() -> None:
    core = connected_core(offer(3), offer(4))
    assert offers(core.tick(1.0)) == [SendOffer(3, with_body=False), SendOffer(4, with_body=False)]


def test_bytes_that_are_missing_are_sent_at_once() -> None:
    core = connected_core(offer(3))
    core.tick(1.0)
    assert offers(core.reply(missing(3, (0, 4)), 1.1)) == [SendOffer(3, with_body=True)]
    assert offers(core.tick(1.2)) == []


def test_an_answer_that_nothing_is_missing_sends_nothing() -> None:
    core = connected_core(offer(3))
    core.tick(1.0)
    assert offers(core.reply(missing(3), 1.1)) == []


def test_later_is_obeyed_also_when_another_update_gets_its_receipt() -> None:
    core = connected_core(offer(0), offer(1))
    core.head(head(0), True, 0.0)  # it trains, so that offers are all that is due
    core.tick(1.0)
    core.reply(later(0, 3000.0), 1.1)
    assert offers(core.reply(accepted(1), 1.2)) == []
    assert offers(core.tick(3001.0)) == []
    due = core.deadline()
    assert due is not None
    assert 3001.1 <= due <= 1.1 + 1.5 * 3000.0
    assert offers(core.tick(due)) == [SendOffer(0, with_body=False)]


def test_a_receipt_ends_it_whatever_the_verdict() -> None:
    core = connected_core(offer(0), offer(1))
    core.tick(1.0)
    [receipt] = accepted(0).receipts
    assert core.reply(accepted(0), 1.1) == [Delete(0, receipt)]
    assert [type(action) for action in core.reply(rejected(1, "too_stale"), 1.1)] == [Delete]
    assert core.reply(accepted(0), 1.2) == [], "the same receipt again"
    assert offers(core.tick(1e6)) == []


def test_a_receipt_for_another_outbox_id_is_nothing() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    assert core.reply(rejected(0, "expired", outbox_id="f" * 32), 1.1) == []
    assert offers(core.tick(10.0)) == [SendOffer(0, with_body=False)]


def test_an_id_that_was_used_elsewhere_is_renewed_and_the_update_offered_with_its_bytes_under_the_new_one() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    assert core.reply(rejected(0, "id_reused"), 1.1) == [Renew(0)]
    assert offers(core.renewed(update(0, "f" * 32), 1.2)) == [SendOffer(0, with_body=True)]
    assert core.reply(rejected(0, "id_reused"), 1.3) == [], "about the old id"
    assert [type(a) for a in core.reply(rejected(0, "late", outbox_id="f" * 32), 1.4)] == [Delete]


def test_the_same_receipt_twice_in_one_reply_renews_an_id_once() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    [receipt] = rejected(0, "id_reused").receipts
    assert core.reply(Reply(run=RUN, incarnation="1" * 32, receipts=(receipt, receipt)), 5.0) == [Renew(0)]
    assert offers(core.renewed(update(0, "f" * 32), 5.0)) == [SendOffer(0, with_body=True)]


def test_of_several_receipts_for_one_update_the_first_counts() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    [reused], [late] = rejected(0, "id_reused").receipts, rejected(0, "late").receipts
    assert core.reply(Reply(run=RUN, incarnation="1" * 32, receipts=(reused, late)), 1.1) == [Renew(0)]


def test_an_update_of_another_layout_makes_it_look_at_the_layout() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    assert core.reply(rejected(0, "layout"), 1.1)[1:] == [AskLayout()]


def test_at_most_eight_offers_are_on_their_way() -> None:
    core = connected_core(*(offer(sequence) for sequence in range(20)))
    assert [o.sequence for o in offers(core.tick(1.0))] == list(range(8))
    assert offers(core.tick(1.1)) == []
    assert [o.sequence for o in offers(core.reply(accepted(2, 5), 1.2))] == [8, 9]
    assert offers(core.tick(1.3)) == []


def test_offers_that_nobody_answers_do_not_keep_the_others_from_being_offered() -> None:
    core = connected_core(*(offer(sequence) for sequence in range(20)))
    seen: set[int] = set()
    now = 0.0
    while len(seen) < 20:
        due = core.deadline()
        assert due is not None
        assert now <= due < 60.0
        now = due
        seen |= {o.sequence for o in offers(core.tick(now))}


def test_nothing_is_offered_while_the_aggregator_is_offline_or_there_is_no_connection() -> None:
    core = connected_core(offer(0))
    core.presence(offline(), 0.1)
    assert offers(core.tick(100.0)) == []
    core.presence(online(), 101.0)
    core.disconnected()
    assert offers(core.tick(200.0)) == []
    assert core.deadline() is None, "nothing is due until it is connected"


@pytest.mark.parametrize("news", ["another incarnation", "a new connection"])
def test_on_a_return_each_update_is_offered_once_within_a_second_but_not_all_at_once(news: str) -> None:
    core = connected_core(*(offer(sequence) for sequence in range(8)))
    core.tick(1.0)
    if news == "another incarnation":
        assert core.presence(online("2" * 32), 1.2) == []
    else:
        core.disconnected()
        core.connected(1.2)
        assert core.presence(online(), 1.2) == []
    times: dict[int, float] = {}
    while (due := core.deadline()) is not None and due <= 2.2:
        for offered in offers(core.tick(due)):
            assert offered.sequence not in times
            assert not offered.with_body
            times[offered.sequence] = due
    assert sorted(times) == list(range(8))
    assert len(set(times.values())) == 8


def test_the_same_incarnation_again_is_no_news() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    before = core.deadline()
    assert core.presence(online(), 1.1) == []
    assert core.deadline() == before


def test_what_the_outbox_had_to_drop_is_not_offered_any_more() -> None:
    core = connected_core(offer(0), offer(1))
    core.head(head(0), True, 0.0)
    actions = core.trained(offer(2), [0], 5.0)
    assert {o.sequence for o in offers(actions)} == {1, 2}


def test_an_empty_reply_changes_nothing() -> None:
    core = connected_core(offer(0))
    core.tick(1.0)
    assert core.reply(Reply(run=RUN, incarnation="1" * 32), 1.1) == []


_MEGABYTE = 1 << 20


def _lacks(core: ClientCore, start: int, now: float) -> list[tuple[int, int]]:
    """Say that the update's bytes from here on are missing and nothing is on its way; the parts that are sent then."""
    answer = Missing(update=update(0), ranges=((start, _MEGABYTE),), window=8, heard=1000)
    sent: list[Action] = core.reply(Reply(run=RUN, incarnation="1" * 32, missing=(answer,)), now)
    parts = [(action.piece.start, action.piece.end) for action in sent if isinstance(action, SendPart)]
    # Fewer than half a window is not answered unasked.
    assert bool(offers(sent)) == (len(parts) < 4)
    return parts


def test_on_a_slow_link_two_small_parts_at_a_time_are_on_their_way_so_that_little_waits_behind_them() -> None:
    core = connected_core(offer(0, size=_MEGABYTE))
    core.offers.part_bytes = 120 << 10
    core.tick(1.0)
    assert _lacks(core, 0, 2.0) == [(0, 120 << 10), (120 << 10, 240 << 10)]
    # 15 KiB a second: parts of 16 KiB.
    assert _lacks(core, 240 << 10, 18.0) == [(240 << 10, 256 << 10), (256 << 10, 272 << 10)]
    # 64 KiB a second.
    assert _lacks(core, 272 << 10, 18.5) == [(272 << 10, 320 << 10), (320 << 10, 384 << 10)]


def test_on_a_fast_link_as_many_parts_are_on_their_way_as_the_aggregator_takes() -> None:
    core = connected_core(offer(0, size=_MEGABYTE))
    core.offers.part_bytes = 60 << 10
    core.tick(1.0)
    assert len(_lacks(core, 0, 2.0)) == 2
    assert len(_lacks(core, 120 << 10, 2.1)) == 8
