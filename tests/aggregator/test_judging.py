"""Large updates and snapshots are worked on in threads: the link is served meanwhile, and nothing is seen half done."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedmq.aggregator import publisher, verdicts, writer
from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.quarantine import QuarantineRule
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.room import Room
from fedmq.aggregator.service import AggregatorService, Ending
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Commit, Store
from fedmq.aggregator.transfers import Transfers
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import StoreError
from fedmq.schemas.messages import ClientStatus, Head, Offer, Part, Receipt, Reply
from fedmq.schemas.parts import HEADER_BYTES, cut
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Message
from fedmq.transport.memory import MemoryBroker, MemoryLink
from fedmq.transport.spool import FileSpool
from tests.aggregator.small_run import RUN, layout_of, offer_of, plain_fedbuff

TOPICS = Topics("large")
PART = 16 << 10
LAYOUT = layout_of(20_000)  # floats: five parts


def core_of(state: State) -> AggregatorCore:
    return AggregatorCore(state, plain_fedbuff(2), Rules(RUN, LAYOUT), Goal())


class Hall:
    """An aggregator to whom this model is large, and clients that are written by hand.

    Attributes:
        goes_on: what the judging thread waits for.
        judging: set when it waits.

    """

    def __init__(self, folder: Path) -> None:
        self.goes_on, self.judging = threading.Event(), threading.Event()
        self.goes_on.set()
        self.broker = MemoryBroker()
        self.store = Store(folder, "large")
        link = self.link = self.broker.link("aggregator", max_message_bytes=PART + HEADER_BYTES)
        core = core_of(State.initial(RUN, LAYOUT, np.zeros(LAYOUT.size, np.float32)))
        judge = core.judge

        def slowly(client_id: str, offer: Offer, body: memoryview, now: float, *, digest: str | None) -> object:
            if body:
                self.judging.set()
                assert self.goes_on.wait(20)
            return judge(client_id, offer, body, now, digest=digest)

        core.judge = slowly  # type: ignore[assignment, method-assign]
        self.core = core
        self.service = AggregatorService(
            link=link,
            topics=TOPICS,
            core=core,
            publisher=Publisher(link, TOPICS, Plan(), codec_named("float32"), 0.0, folder / "parts"),
            incarnation="b" * 32,
            store=self.store,
            transfers=Transfers(Room(folder / "parts", 1 << 30)),
            reload=self.reloaded,
            clock=lambda: self.broker.time.now,
        )
        self.clients: dict[str, MemoryLink] = {}
        self.receipts: dict[str, list[Receipt]] = {}
        self.later: list[str] = []
        self.asked: list[str] = []  # for all bytes
        link.open()
        for name in ("alice", "bob"):
            self.clients[name] = self.broker.link(name)
            self.clients[name].open()
            self.clients[name].subscribe(TOPICS.reply(name))
        self.until(lambda: self.shown() == 0)

    def reloaded(self) -> AggregatorCore:
        """A core that goes on from the last commit."""
        state = self.store.load(LAYOUT, again=True)
        assert state is not None
        self.core = core_of(state)
        return self.core

    def offer(self, name: str, value: float, *, sequence: int = 0) -> Offer:
        """Offer an update whose numbers are all this one, without its bytes."""
        values = np.full(LAYOUT.size, value, np.float32)
        offer, self.body = offer_of(values, LAYOUT, client_id=name, sequence=sequence)
        self.clients[name].publish(TOPICS.update(name), encode(offer.model_copy(update={"number": 1})))
        self.pass_time(0.1)
        return offer

    def send(self, name: str, offer: Offer) -> None:
        """Send all parts of it."""
        for number, (start, end) in enumerate(cut([(0, offer.size)], PART), 2):
            part = Part(run=RUN, update=offer.update, digest=offer.digest, offset=start, number=number)
            self.clients[name].publish(TOPICS.update(name), encode(part, self.body[start:end]))
        self.pass_time(0.1)

    def pass_time(self, seconds: float) -> None:
        until = self.broker.time.now + seconds
        while self.broker.time.now < until and self.service.ended is None:
            event = self.link.poll(0.01)
            if event is not None:
                self.service.handle(event)
            if self.service.ended is None:
                self.service.tick(idle=event is None)
        for name, link in self.clients.items():
            while link.waiting:
                message = link.poll(0.0)
                if isinstance(message, Message):
                    reply = decode(message.payload, Reply)[0]
                    self.receipts.setdefault(name, []).extend(reply.receipts)
                    self.later += [name for _ in reply.later]
                    self.asked += [name for missing in reply.missing if missing.ranges[0][0] == 0]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.pass_time(0.05)
            assert time.monotonic() < deadline

    def rest(self) -> None:
        """Wait until no thread is at work, so that what is offered next is answered at once."""
        service = self.service
        self.until(lambda: service._disk.why is None and not (service._verdicts._occupied or service.writing))

    def shown(self) -> int | None:
        """The version of the head."""
        head = self.broker.retained.get(TOPICS.model)
        return decode(head, Head)[0].version if head else None


@pytest.fixture
def hall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    for module in (verdicts, publisher, writer):
        monkeypatch.setattr(module, "LARGE_BYTES", 2 * LAYOUT.size)
    monkeypatch.setattr(writer, "_AT_ONCE_BYTES", -1)
    hall = Hall(tmp_path)
    yield hall
    hall.goes_on.set()
    made = hall.service
    hall.until(lambda: not (made._verdicts.busy or made.writing or made._publisher.making))
    if made.ended is None:
        made._leave(Ending(0, "the test is over"))
    assert made._reception._transfers is not None
    made._reception._transfers.close()
    hall.store.close()


def test_while_a_large_update_is_judged_the_link_is_served_and_nothing_is_committed_or_shown(hall: Hall) -> None:
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    bob = hall.offer("bob", 3.0)
    assert hall.asked == ["alice"]  # nothing can be said of bob's yet
    hall.pass_time(5.0)
    deadline = hall.service.deadline()
    assert deadline is None or deadline > hall.service.now()  # else it would spin
    assert not any(hall.receipts.values())
    assert hall.core.state.accepted == 0
    hall.goes_on.set()
    hall.until(lambda: hall.receipts.get("alice"))
    hall.send("bob", hall.offer("bob", 3.0))
    assert bob.digest == hall.offer("bob", 3.0).digest
    hall.until(lambda: hall.shown() == 1)
    assert hall.core.state.weights.tolist() == [2.0] * LAYOUT.size
    assert {receipt.verdict for name in ("alice", "bob") for receipt in hall.receipts[name]} == {"accepted"}


def test_who_comes_or_goes_while_a_thread_judges_does_so_after_it(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []
    monkeypatch.setattr(hall.core, "presence", lambda client_id, online, now: came.append(client_id))
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    status = ClientStatus(state="online", client_id="bob", incarnation="c" * 32)
    hall.service.handle(Message(TOPICS.status("bob"), encode(status)))
    hall.pass_time(1.0)
    assert came == []
    hall.goes_on.set()
    hall.until(lambda: came == ["bob"])


def test_of_statuses_while_a_thread_judges_each_clients_newest_is_kept_and_none_that_is_huge(hall: Hall) -> None:
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    for number in range(50):
        status = ClientStatus(state="online", client_id="bob", incarnation=f"{number:032x}")
        hall.service.handle(Message(TOPICS.status("bob"), encode(status)))
    hall.service.handle(Message(TOPICS.status("mallory"), bytes(1 << 20)))
    kept = hall.service._reception._statuses
    assert list(kept) == ["bob"]
    assert kept["bob"].payload == encode(status)
    hall.goes_on.set()
    hall.until(lambda: hall.core.state.rejected["too_large"] == 1)


def bob_comes_while_alice_is_judged(hall: Hall) -> None:
    bob = hall.offer("bob", 3.0)
    bobs = hall.body
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    hall.body = bobs
    hall.send("bob", bob)


def test_an_update_that_is_whole_while_another_is_judged_has_its_turn_without_being_offered_again(hall: Hall) -> None:
    bob_comes_while_alice_is_judged(hall)
    assert not hall.receipts["bob"]
    hall.goes_on.set()
    hall.until(lambda: hall.receipts.get("bob"))
    assert hall.core.state.version == 1
    hall.until(lambda: hall.shown() == 1)


def test_a_second_update_of_a_client_comes_while_its_first_is_judged_or_waits_for_that(hall: Hall) -> None:
    bob_comes_while_alice_is_judged(hall)
    second = hall.offer("bob", 5.0, sequence=1)
    seconds = hall.body
    hall.pass_time(1.0)
    assert hall.asked == ["bob", "alice"]
    hall.goes_on.set()
    hall.until(lambda: hall.asked == ["bob", "alice", "bob"])  # while its first is judged, or waits for its commit
    hall.body = seconds
    hall.send("bob", second)
    hall.until(lambda: len(hall.receipts["bob"]) == 2)
    assert [receipt.update.sequence for receipt in hall.receipts["bob"]] == [0, 1]
    assert hall.core.state.accepted == 3
    assert hall.later == []


def in_one_message(name: str, value: float, sequence: int = 0) -> Message:
    """An update of this large model that is small, so that it comes with its offer."""
    values = np.full(LAYOUT.size, value, np.float32)
    offer, body = offer_of(values, LAYOUT, client_id=name, sequence=sequence, codec="top_k")
    return Message(TOPICS.update(name), encode(offer, body))


def test_an_update_in_one_message_is_judged_in_a_thread_too_if_it_decodes_into_a_large_model(hall: Hall) -> None:
    hall.goes_on.clear()
    hall.service.handle(in_one_message("alice", 1.0))  # else it would wait here
    assert hall.judging.wait(20)
    assert hall.core.state.accepted == 0
    hall.goes_on.set()
    hall.until(lambda: hall.receipts.get("alice"))
    assert hall.receipts["alice"][0].verdict == "accepted"
    assert hall.later == []


def test_what_needs_no_bytes_is_answered_without_a_thread(hall: Hall) -> None:
    stale = offer_of([0.0] * LAYOUT.size, LAYOUT, client_id="alice", base_version=7, codec="top_k")
    hall.goes_on.clear()
    hall.service.handle(Message(TOPICS.update("alice"), encode(*stale)))
    assert not hall.service._verdicts.busy
    hall.until(lambda: hall.receipts.get("alice"))
    assert hall.receipts["alice"][0].reason == "unknown_base"


def test_who_sends_more_than_the_thread_can_judge_does_not_keep_the_others_out(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    judge = hall.core.judge

    def noted(client_id: str, offer: Offer, body: memoryview, now: float, *, digest: str | None) -> object:
        if body:
            order.append(client_id)
        return judge(client_id, offer, body, now, digest=digest)

    monkeypatch.setattr(hall.core, "judge", noted)
    hall.goes_on.clear()
    for sequence in range(4):
        hall.service.handle(in_one_message("alice", 1.0, sequence))
    hall.service.handle(in_one_message("bob", 3.0))
    hall.goes_on.set()
    hall.until(lambda: hall.core.state.accepted == 5)
    assert order == ["alice", "alice", "bob", "alice", "alice"]
    assert hall.later == []


def test_a_model_is_shown_while_there_is_always_one_more_to_judge(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, sequence = hall.service._verdicts._turns, itertools.count(1)
    next_one = turns.next

    def and_another() -> tuple[str, Offer, memoryview]:
        if shown < 3:
            offer, body = decode(in_one_message("alice", 1.0, next(sequence)).payload, Offer)
            assert turns.wait("alice", offer, body)
        return next_one()

    shown = 0
    monkeypatch.setattr(turns, "next", and_another)
    hall.goes_on.clear()
    for client in ("alice", "bob"):
        hall.service.handle(in_one_message(client, 1.0))
    hall.goes_on.set()

    def three_are_shown() -> bool:
        nonlocal shown
        shown = hall.shown() or 0
        return shown >= 3

    hall.until(three_are_shown)
    assert hall.core.state.accepted > 6


def test_who_is_told_to_stop_waits_a_moment_for_the_verdict_and_commits_it(hall: Hall) -> None:
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    threading.Timer(0.2, hall.goes_on.set).start()
    hall.service.stop(Ending(0, "asked to"))
    assert [state.accepted for state in [hall.store.load(LAYOUT)] if state] == [1]


def test_a_disk_that_cannot_be_read_is_no_verdict(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(spool: FileSpool) -> str:
        raise StoreError("the disk is gone")

    offer = hall.offer("alice", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("fedmq.transport.spool.MemorySpool.digest", fails)
        hall.send("alice", offer)
        hall.until(lambda: hall.later == ["alice"])
    assert hall.core.state.rejected.total() == 0
    hall.offer("alice", 1.0)
    hall.until(lambda: hall.receipts.get("alice"))
    assert hall.receipts["alice"][0].verdict == "accepted"


@pytest.fixture
def out(hall: Hall, tmp_path: Path) -> Path:
    """The list of who is revoked; nobody is yet."""
    file = tmp_path / "revoked"
    file.write_text("")
    hall.service._door._revoked = Revoked(file)
    return file


def test_who_is_taken_out_while_their_update_is_judged_keeps_that_verdict(hall: Hall, out: Path) -> None:
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    out.write_text("alice\n")
    hall.offer("alice", 1.0)
    hall.pass_time(0.5)
    hall.goes_on.set()
    hall.until(lambda: hall.receipts.get("alice"))
    hall.rest()
    hall.offer("alice", 1.0)
    hall.until(lambda: len(hall.receipts["alice"]) == 2)
    assert [receipt.verdict for receipt in hall.receipts["alice"]] == ["accepted", "accepted"]
    assert (hall.core.state.accepted, hall.core.state.rejected.total()) == (1, 0)


def test_who_is_taken_out_while_their_offer_waits_is_turned_away(hall: Hall, out: Path) -> None:
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    hall.offer("bob", 1.0)
    hall.pass_time(0.5)
    out.write_text("bob\n")
    hall.goes_on.set()
    hall.until(lambda: hall.receipts.get("bob"))
    assert [receipt.reason for receipt in hall.receipts["bob"]] == ["revoked"]
    assert hall.core.state.accepted == 1


def test_what_waits_of_who_comes_into_quarantine_meanwhile_is_not_judged(hall: Hall) -> None:
    hall.core.rules = dataclasses.replace(hall.core.rules, quarantine=QuarantineRule(3))
    hall.goes_on.clear()
    hall.send("alice", hall.offer("alice", 1.0))
    assert hall.judging.wait(20)
    hall.offer("bob", 1.0)
    for _ in range(3):
        hall.clients["bob"].publish(TOPICS.update("bob"), b"\xc1")
    hall.pass_time(0.5)
    assert hall.service._verdicts.someone_waits
    hall.goes_on.set()
    hall.until(lambda: hall.receipts.get("alice"))
    hall.rest()
    assert "bob" in hall.core.state.quarantine.held
    assert not hall.service._verdicts.someone_waits
    assert "bob" not in (*hall.receipts, *hall.asked)


def test_the_bytes_of_an_update_outlive_a_commit_that_began_before_its_verdict(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, goes_on, write = threading.Semaphore(0), threading.Semaphore(0), hall.store.write

    def slowly(commit: Commit) -> None:
        writing.release()
        assert goes_on.acquire(timeout=20)
        if failing:
            raise StoreError("the disk is full")
        write(commit)

    failing = False
    monkeypatch.setattr(writer, "LARGE_BYTES", 1 << 30)  # so that another may be judged meanwhile
    monkeypatch.setattr(hall.store, "write", slowly)
    hall.send("alice", hall.offer("alice", 1.0))
    hall.until(lambda: writing.acquire(blocking=False))
    hall.send("bob", hall.offer("bob", 3.0))
    hall.until(lambda: hall.core.state.accepted == 2)
    goes_on.release()
    hall.until(lambda: hall.receipts.get("alice"))
    hall.until(lambda: writing.acquire(blocking=False))
    failing = True
    goes_on.release(100)
    hall.until(lambda: hall.core.state.accepted == 1)
    failing = False
    hall.rest()
    hall.offer("bob", 3.0)
    hall.until(lambda: hall.receipts.get("bob"))  # without any of its bytes again
    assert hall.receipts["bob"][0].verdict == "accepted"
    assert hall.core.state.accepted == 2


@pytest.mark.parametrize("more_comes", [True, False])
def test_a_verdict_waits_a_moment_for_an_update_of_which_more_comes(tmp_path: Path, more_comes: bool) -> None:
    hall = Hall(tmp_path)  # a small model: commits are made at once
    bob = hall.offer("bob", 3.0)
    bobs = hall.body
    alice = hall.offer("alice", 1.0)
    if more_comes:
        part = Part(run=RUN, update=bob.update, digest=bob.digest, offset=0, number=2)
        hall.clients["bob"].publish(TOPICS.update("bob"), encode(part, bobs[:PART]))
    for number, (start, end) in enumerate(cut([(0, alice.size)], PART), 2):
        part = Part(run=RUN, update=alice.update, digest=alice.digest, offset=start, number=number)
        hall.clients["alice"].publish(TOPICS.update("alice"), encode(part, hall.body[start:end]))
    while hall.core.state.accepted == 0:
        hall.pass_time(0.001)
    begun = hall.broker.time.now
    while not hall.receipts.get("alice"):
        hall.pass_time(0.001)
    assert (hall.broker.time.now - begun > 0.02) is more_comes
    assert hall.broker.time.now - begun < 0.1  # whoever stops in the middle keeps nobody waiting
    hall.service.stop(Ending(0, "the test is over"))
    hall.store.close()
