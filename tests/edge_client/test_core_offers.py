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


def test_when_one_update_shows_that_a_quarantine_is_over_the_others_are_offered_too() -> None:
    core = connected_core(offer(0), offer(1), offer(2))
    core.head(head(0), True, 0.0)  # it trains, so that offers are all that is due
    core.tick(1.0)
    core.reply(later(0, 300.0, "quarantine"), 1.1)
    core.reply(later(1, 300.0, "quarantine"), 1.1)
    core.reply(accepted(2), 1.2)  # it was judged before
    assert core.offers.put_off == "quarantine"
    assert offers(core.tick(200.0)) == []
    core.reply(later(1, 1.0, "quarantine"), 200.0)  # as when it is over
    assert core.offers.put_off == "quarantine"
    assert offers(core.tick(201.5)) == [SendOffer(1, with_body=False)]
    core.reply(accepted(1), 201.6)
    assert core.offers.put_off is None
    assert offers(core.tick(202.7)) == [SendOffer(0, with_body=False)]


def test_a_quota_lasts_until_an_update_that_waits_for_it_has_another_answer() -> None:
    core = connected_core(offer(0), offer(1))
    core.tick(1.0)
    core.reply(later(1, 3600.0, "quota"), 1.1)
    core.reply(accepted(0), 1.2)
    assert core.offers.put_off == "quota"
    core.reply(missing(1, (0, 4)), 6000.0)
    assert core.offers.put_off is None


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
    assert list(times) == list(range(8))
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


_PART = 120 << 10


def _asked_for(core: ClientCore, sequence: int, *ranges: tuple[int, int], now: float, heard: int = 1000) -> list[str]:
    """What is sent when these bytes of an update are missing, and nothing of it is on its way."""
    answer = Missing(update=update(sequence), ranges=ranges, window=8, heard=heard)
    return _words(core.reply(Reply(run=RUN, incarnation="1" * 32, missing=(answer,)), now))


def _words(actions: list[Action]) -> list[str]:
    named: dict[type[Action], str] = {SendPart: "part", SendOffer: "offer", Delete: "delete"}
    return [f"{named[type(a)]} {a.sequence}" for a in actions if isinstance(a, SendPart | SendOffer | Delete)]


def _in_parts(*sequences: int) -> ClientCore:
    core = connected_core(*(offer(sequence, size=2 * _PART) for sequence in sequences))
    core.offers.part_bytes = _PART
    return core


def test_an_update_in_parts_is_offered_behind_the_last_part_of_the_one_before() -> None:
    core = _in_parts(0, 1, 2, 3)
    assert _words(core.tick(1.0)) == ["offer 0"]
    # Fewer parts than half a window: the aggregator is asked what it has.
    sent = ["part 0", "part 0", "offer 0"]
    assert _asked_for(core, 0, (0, 2 * _PART), now=1.1) == [*sent, "offer 1"]
    assert _words(core.tick(1.2)) == []
    assert _asked_for(core, 1, (0, 2 * _PART), now=1.3) == ["part 1", "part 1", "offer 1", "offer 2"]
    # Three are on their way.
    assert _asked_for(core, 2, (0, 2 * _PART), now=1.4) == ["part 2", "part 2", "offer 2"]
    assert _words(core.reply(accepted(0), 1.5)) == ["delete 0", "offer 3"]


def test_an_update_in_parts_waits_until_all_of_the_one_before_is_sent_also_what_was_lost() -> None:
    core = connected_core(offer(0, size=20 * _PART), offer(1, size=2 * _PART))
    core.offers.part_bytes = _PART
    core.tick(1.0)
    whole = 20 * _PART
    assert _asked_for(core, 0, (0, whole), now=1.1) == ["part 0", "part 0", "offer 0"]  # slowly at first
    assert _asked_for(core, 0, (2 * _PART, whole), now=1.2) == ["part 0"] * 8
    assert _asked_for(core, 0, (10 * _PART, whole), now=1.3) == ["part 0"] * 8
    assert _asked_for(core, 0, (18 * _PART, whole), now=1.4) == ["part 0", "part 0", "offer 1"]
    # The second is put off, since a part of the first was lost; so the first alone is on its way.
    core.reply(later(1, 5.0), 1.5)
    assert _asked_for(core, 0, (19 * _PART, whole), now=1.6) == ["part 0"]


def test_who_is_told_later_keeps_no_other_update_in_parts_from_being_offered() -> None:
    core = _in_parts(0, 1)
    assert _words(core.tick(1.0)) == ["offer 0"]
    assert _words(core.reply(later(0, 3000.0), 1.1)) == ["offer 1"]
    assert _asked_for(core, 1, (0, 2 * _PART), now=1.2) == ["part 1", "part 1", "offer 1"]


def test_also_when_part_of_it_was_sent() -> None:
    core = connected_core(offer(0, size=20 * _PART), offer(1, size=2 * _PART))
    core.offers.part_bytes = _PART
    core.tick(1.0)
    assert _asked_for(core, 0, (0, 20 * _PART), now=1.1) == ["part 0", "part 0", "offer 0"]
    assert _words(core.reply(later(0, 3000.0), 1.2)) == ["offer 1"]
    assert core.offers.sending() is None


def test_an_update_in_parts_that_nobody_answers_keeps_the_next_one_back_for_a_moment_only() -> None:
    core = _in_parts(0, 1)
    core.head(head(0), True, 0.0)  # it trains, so that offers are all that is due
    assert _words(core.tick(1.0)) == ["offer 0"]
    due = core.deadline()
    assert due is not None
    assert 2.0 < due < 4.0
    assert _words(core.tick(due)) == ["offer 1"]
    sent = ["part 0", "part 0", "offer 0"]
    assert _asked_for(core, 0, (0, 2 * _PART), now=due + 0.1) == sent  # a late answer
    assert _words(core.reply(later(1, 5.0), due + 0.2)) == []


def test_small_updates_wait_for_none_in_parts() -> None:
    core = connected_core(offer(0, size=2 * _PART), offer(1), offer(2, size=2 * _PART))
    core.offers.part_bytes = _PART
    assert _words(core.tick(1.0)) == ["offer 0", "offer 1"]


def test_after_a_return_updates_in_parts_are_offered_in_order_one_after_the_other() -> None:
    core = _in_parts(0, 1)
    core.head(head(0), True, 0.0)
    core.tick(1.0)
    _asked_for(core, 0, (0, 2 * _PART), now=1.1)
    assert core.presence(online("2" * 32), 1.2) == []
    due = core.deadline()
    assert due is not None
    assert _words(core.tick(due)) == ["offer 0"]
    assert _words(core.tick(2.2)) == []  # nobody knows what the new one has of the first
    assert _words(core.reply(accepted(0), 2.3)) == ["delete 0", "offer 1"]


def test_of_two_updates_in_parts_the_one_that_is_sent_is_the_one_that_is_shown() -> None:
    core = _in_parts(0, 1)
    core.tick(1.0)
    assert core.offers.sending() is None
    _asked_for(core, 0, (0, 2 * _PART), now=1.1)
    assert core.offers.sending() == (0, 0, 2 * _PART)
    answer = Missing(update=update(1), ranges=((0, 3 * _PART),), window=1, heard=1)
    core.reply(Reply(run=RUN, incarnation="1" * 32, missing=(answer,)), 1.2)
    assert core.offers.sending() == (1, 0, 2 * _PART)
