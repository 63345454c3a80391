"""What the broker shows decides whether an aggregator may take updates."""

from __future__ import annotations

import re

import pytest

from fedmq.aggregator.fence import Fence
from fedmq.schemas.messages import AggregatorPresence, Head
from fedmq.schemas.plan import Plan

OWN, OTHER, RUN, ANOTHER_RUN, DIGEST = "1" * 32, "2" * 32, "a" * 32, "b" * 32, "d" * 64


def head(version: int, run: str = RUN, digest: str = DIGEST) -> Head:
    return Head(run=run, version=version, plan=Plan(), layout="c" * 64, codec="float32", size=4, digest=digest)


def presence(state: str, incarnation: str = OTHER) -> AggregatorPresence:
    fields = {"state": state, "run": RUN, "incarnation": incarnation, "version": 3}
    return AggregatorPresence.model_validate(fields)


def decided(fence: Fence, version: int = 3) -> str | None:
    return fence.own_word(RUN, version, lambda codec: DIGEST, 0)


def test_it_is_closed_until_the_own_word_is_back() -> None:
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


def test_weights_that_have_moved_on_since_are_not_compared() -> None:
    fence = Fence(OWN)
    fence.connected()
    fence.head(head(3, digest="e" * 64))
    assert fence.own_word(RUN, 3, lambda codec: None, 0) is None
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
