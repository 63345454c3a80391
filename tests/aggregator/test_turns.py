"""Offers that wait for a thread: whose turn it is, and how many of whom may wait."""

from __future__ import annotations

import pytest

from fedmq.aggregator.turns import Turns
from fedmq.schemas.messages import Offer
from tests.aggregator.small_run import layout_of, offer_of

NOTHING = memoryview(b"")


def offer(name: str, sequence: int) -> Offer:
    return offer_of([1.0], layout_of(1), client_id=name, sequence=sequence)[0]


def waiting(*names: str, most_bytes: int = 400) -> Turns:
    """So many wait, without their bytes."""
    turns = Turns(most_bytes)
    for sequence, name in enumerate(names):
        assert turns.wait(name, offer(name, sequence), NOTHING)
    return turns


def order(turns: Turns) -> list[tuple[str, int]]:
    found = []
    while turns:
        client_id, next_one, _ = turns.next()
        found.append((client_id, next_one.update.sequence))
    return found


def test_clients_take_turns_however_many_offers_one_of_them_makes() -> None:
    turns = waiting("mallory", "mallory", "mallory", "alice", "mallory", "bob", "alice")
    assert order(turns) == [
        ("mallory", 0), ("alice", 3), ("bob", 5), ("mallory", 1), ("alice", 6), ("mallory", 2), ("mallory", 4),
    ]  # fmt: skip


def test_who_offers_again_and_again_stays_behind_those_who_wait() -> None:
    turns = waiting("mallory", "alice", "bob")
    served = []
    for sequence in range(100, 104):
        client_id, _, _ = turns.next()
        served.append(client_id)
        assert turns.wait("mallory", offer("mallory", sequence), NOTHING)
    assert served == ["mallory", "alice", "bob", "mallory"]


def test_the_same_offer_again_takes_the_place_that_it_has() -> None:
    turns = waiting("alice", "alice")
    assert turns.wait("alice", offer("alice", 0), memoryview(b"bytes"))
    _, first, body = turns.next()
    assert (first.update.sequence, bytes(body)) == (0, b"bytes")
    assert order(turns) == [("alice", 1)]


def test_an_offer_that_is_repeated_without_its_bytes_has_those_that_came_before() -> None:
    turns = waiting("bob")
    assert turns.wait("alice", offer("alice", 0), memoryview(b"bytes"))
    assert turns.wait("alice", offer("alice", 0), NOTHING)
    other = offer("alice", 1)
    assert turns.wait("alice", other, memoryview(b"of another"))
    assert turns.wait("alice", other.model_copy(update={"digest": "0" * 64}), NOTHING)
    turns.next()
    assert [bytes(turns.next()[2]) for _ in range(2)] == [b"bytes", b""]


def test_no_client_has_more_places_than_a_device_keeps_updates_and_all_together_have_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = waiting(*["mallory"] * 64)
    assert not turns.wait("mallory", offer("mallory", 64), NOTHING)
    assert turns.wait("mallory", offer("mallory", 63), NOTHING)  # again
    assert turns.wait("alice", offer("alice", 0), NOTHING)
    monkeypatch.setattr("fedmq.aggregator.turns._MOST", 65)
    assert not turns.wait("bob", offer("bob", 0), NOTHING)
    turns.drop("mallory")
    assert turns.wait("bob", offer("bob", 0), NOTHING)
    turns.clear()
    assert not turns


def test_a_client_has_a_quarter_of_the_bytes_or_one_update_and_all_together_have_no_more() -> None:
    turns = waiting(most_bytes=400)
    assert [turns.wait("mallory", offer("mallory", n), memoryview(bytes(50))) for n in range(3)] == [True, True, False]
    assert turns.wait("alice", offer("alice", 0), memoryview(bytes(200)))
    assert not turns.wait("alice", offer("alice", 1), memoryview(bytes(1)))
    assert turns.wait("alice", offer("alice", 1), NOTHING)
    assert not turns.wait("bob", offer("bob", 0), memoryview(bytes(101)))
    assert turns.wait("bob", offer("bob", 0), memoryview(bytes(100)))
