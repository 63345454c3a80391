"""What the broker shows decides whether an aggregator may take updates."""

from __future__ import annotations

import re

import pytest

from fedmq.aggregator.fence import Fence
from fedmq.schemas.messages import AggregatorPresence, Head, Progress
from fedmq.schemas.plan import Plan

OWN, OTHER, RUN, ANOTHER_RUN, DIGEST = "1" * 32, "2" * 32, "a" * 32, "b" * 32, "d" * 64


def head(version: int, run: str = RUN, digest: str = DIGEST) -> Head:
    return Head(run=run, version=version, plan=Plan(), layout="c" * 64, codec="float32", size=4, digest=digest)


def presence(state: str, incarnation: str = OTHER) -> AggregatorPresence:
    fields = {"state": state, "run": RUN, "incarnation": incarnation, "version": 3}
    return AggregatorPresence.model_validate(fields)


def decided(fence: Fence, version: int = 3) -> str | None:
    return fence.decide(RUN, version, lambda codec: DIGEST, 0, 0)


def test_it_is_closed_until_it_is_decided() -> None:
    fence = Fence(OWN)
    fence.connected()
    assert not fence.open
    assert decided(fence) is None
    assert fence.open
    fence.connected()
    assert not fence.open


@pytest.mark.parametrize("shown", [None, head(2), head(3)], ids=["nothing", "an older version", "this version"])
def test_what_this_folder_has_shown_opens_it(shown: Head | None) -> None:
    fence = Fence(OWN)
    fence.connected()
    if shown:
        fence.head(shown)
    assert decided(fence) is None
    assert fence.open


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (head(4), "version 4 of this run, this folder ends at version 3: it is an older copy"),
        (head(3, digest="e" * 64), "other weights as version 3 of this run"),
        (head(0, run=ANOTHER_RUN), r"another run of this federation \(bbbbbbbb…, version 0, training\)"),
    ],
    ids=["newer", "other weights", "another run"],
)
def test_what_it_has_not_shown_keeps_it_closed(shown: Head, says: str) -> None:
    fence = Fence(OWN)
    fence.connected()
    fence.head(shown)
    why = decided(fence)
    assert why is not None
    assert re.search(says, why)
    assert not fence.open


@pytest.mark.parametrize(
    ("updates", "verdicts", "says"),
    [
        (6, 9, "6 accepted updates of this run, this folder holds 5: it is an older copy"),
        (5, 9, "9 verdicts on updates of this run, this folder holds 8: it is an older copy"),
        (5, 8, None),
        (4, 0, None),
    ],
    ids=["accepted", "refused", "the same", "before"],
)
def test_of_one_version_it_counts_what_was_told(updates: int, verdicts: int, says: str | None) -> None:
    fence = Fence(OWN)
    fence.connected()
    fence.head(head(3))
    fence.progress(
        Progress(run=RUN, version=3, state="training", strategy="fedbuff", updates=updates, verdicts=verdicts)
    )
    why = fence.decide(RUN, 3, lambda codec: DIGEST, 5, 8)
    assert (why is None) == fence.open == (says is None)
    assert says is None or says in (why or "")


def test_weights_that_have_moved_on_since_are_not_compared() -> None:
    fence = Fence(OWN)
    fence.connected()
    fence.head(head(3, digest="e" * 64))
    assert fence.decide(RUN, 3, lambda codec: None, 0, 0) is None
    assert fence.open


@pytest.mark.parametrize("replaces", [None, frozenset({ANOTHER_RUN})], ids=["any run", "that run"])
def test_a_run_that_may_be_replaced_opens_it(replaces: frozenset[str] | None) -> None:
    fence = Fence(OWN, replaces)
    fence.connected()
    fence.head(head(9, run=ANOTHER_RUN))
    assert decided(fence) is None
    assert fence.open
    assert fence.replaced == ANOTHER_RUN


def test_replacing_a_run_is_no_leave_to_go_on_from_an_older_copy_of_the_own() -> None:
    fence = Fence(OWN, None)
    fence.connected()
    fence.head(head(4))
    assert decided(fence) is not None


def test_who_was_there_before_is_a_predecessor_and_who_comes_later_ends_it() -> None:
    fence = Fence(OWN)
    fence.connected()
    assert fence.presence(presence("online")) is None
    decided(fence)
    assert fence.presence(presence("offline")) is None
    assert fence.presence(presence("starting", "3" * 32)) is None
    assert fence.presence(presence("offline", OWN)) is None
    why = fence.presence(presence("online", "3" * 32))
    assert why is not None
    assert "another aggregator serves this federation now" in why


def test_one_farewell_of_an_unknown_one_is_the_will_of_a_start_that_was_refused() -> None:
    fence = Fence(OWN)
    fence.connected()
    decided(fence)
    assert fence.presence(presence("offline")) is None
    assert fence.presence(presence("offline")) is not None


def test_a_predecessor_that_the_broker_remembers_from_long_ago_is_no_rival() -> None:
    fence = Fence(OWN, predecessors=frozenset({OTHER}))
    fence.connected()
    decided(fence)
    assert fence.presence(presence("online")) is None


def test_it_waits_for_the_mark_on_each_topic_and_for_no_mark_from_before_its_word() -> None:
    fence = Fence(OWN)
    fence.connected()
    assert not fence.marked("model")
    fence.marks("model", "progress")
    assert not fence.marked("model")
    assert not fence.marked("model")
    assert fence.marked("progress")
    assert not fence.marked("progress")


def test_each_connection_has_its_own_word() -> None:
    fence = Fence(OWN)
    words = set()
    for _ in range(3):
        fence.connected()
        words.add(fence.word)
    assert len(words) == 3


def test_what_cannot_be_read_keeps_it_closed_unless_anything_may_be_replaced() -> None:
    for replaces, opens in ((frozenset[str](), False), (None, True)):
        fence = Fence(OWN, replaces)
        fence.connected()
        fence.unreadable("plan.warmup: Extra inputs are not permitted")
        why = decided(fence)
        assert fence.open is opens
        assert opens or (why is not None and "plan.warmup: Extra inputs" in why)


@pytest.mark.parametrize(
    ("new", "replaces", "opens"),
    [(True, frozenset(), False), (False, frozenset(), True), (True, None, True)],
    ids=["a new run", "one that goes on", "one that may replace any"],
)
def test_what_cannot_be_verified_keeps_a_new_run_from_taking_its_place(
    new: bool, replaces: frozenset[str] | None, opens: bool
) -> None:
    fence = Fence(OWN, replaces, new=new)
    fence.connected()
    fence.unverified("fedmq/f/model")
    why = decided(fence)
    assert fence.open is opens
    assert (why is None) is opens
    assert opens or "this folder holds a new run, and the broker shows on fedmq/f/model" in (why or "")


def test_a_new_run_that_was_let_in_is_not_stopped_by_what_cannot_be_verified() -> None:
    fence = Fence(OWN, new=True)
    fence.connected()
    assert decided(fence) is None
    fence.unverified("fedmq/f/model")
    fence.connected()
    fence.unverified("fedmq/f/model")
    assert decided(fence) is None
    assert fence.open


def test_the_progress_alone_tells_of_another_run_and_of_more_than_is_known() -> None:
    shown = {"version": 3, "state": "training", "strategy": "fedbuff"}
    for progress, says in (
        (Progress.model_validate(shown | {"run": ANOTHER_RUN, "updates": 0}), "another run of this federation"),
        (Progress.model_validate(shown | {"run": RUN, "updates": 1}), "1 accepted updates of this run"),
    ):
        fence = Fence(OWN)
        fence.connected()
        fence.progress(progress)
        why = decided(fence)
        assert why is not None
        assert says in why
        assert not fence.open


def test_a_broker_that_makes_up_aggregators_fills_no_memory() -> None:
    fence = Fence(OWN)
    fence.connected()
    for number in range(5_000):
        assert fence.presence(presence("online", f"{number:032x}")) is None
    assert decided(fence) is None
    for number in range(5_000, 10_000):
        assert fence.presence(presence("offline", f"{number:032x}")) is None
    assert len(fence._predecessors) == len(fence._farewells) == 1024
    assert fence.presence(presence("offline", f"{9_999:032x}")) is not None
