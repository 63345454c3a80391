"""Updates in parts whose bytes are all here, and that wait: for a slot, for their rate, for the next day of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.allowance import DAY_SECONDS, Allowance
from fedmq.aggregator.quarantine import QuarantineRule
from fedmq.schemas.messages import Later, Missing, Offer, Part, Receipt
from fedmq.schemas.wire import encode, split
from fedmq.transport.spool import FileSpool, MemorySpool
from tests.aggregator.door import LAYOUT, Door, header_of
from tests.aggregator.small_run import RUN, offer_of, plain_fedbuff
from tests.aggregator.test_transfers import SIZE, Sending, Start, start

__all__ = ["start"]

ALLOWANCES = {"slot": Allowance(), "rate": Allowance(per_minute=1.0), "quota": Allowance(per_day=1)}
PUT_OFF = pytest.mark.parametrize("why", sorted(ALLOWANCES))


class Waiting:
    """An aggregator, one client that has had its share, and the next update of that client, which is all here."""

    def __init__(self, folder: Path, why: str, value: float = 2.0) -> None:
        self.folder, self.why = folder, why
        self.door = self.started()
        update = self.door.offer(value)
        _, end = split(memoryview(update))
        self.header, self.body = header_of(update), bytes(update[end:])
        assert [type(answer) for answer in self.asked()] == [Missing]  # while nothing keeps it out
        assert self.door.ask(self.door.offer(1.0)) is None
        self.door.answers.clear()
        self.door.say(encode(self.part, self.body))
        assert [self.why_later(answer) for answer in self.door.answers] == [why]

    def started(self) -> Door:
        rules = Rules(RUN, LAYOUT, allowance=ALLOWANCES[self.why], quarantine=QuarantineRule(2))
        strategy = plain_fedbuff(2 if self.why == "slot" else 9, one_per_client=self.why == "slot")
        return Door(self.folder, rules, stored=True, strategy=strategy)

    @property
    def part(self) -> Part:
        return Part(run=RUN, update=self.header.update, digest=self.header.digest, offset=0, number=7)

    def asked(self) -> list[Receipt | Later | Missing]:
        """What is said to an offer of it without its bytes."""
        self.door.answers.clear()
        self.door.say(encode(self.header))
        return list(self.door.answers)

    def why_later(self, answer: object) -> str:
        assert isinstance(answer, Later), answer
        assert answer.update == self.header.update
        return answer.reason

    def may_come(self) -> None:
        """Its turn has come."""
        if self.why == "slot":
            offer, body = offer_of([3.0] * 4, LAYOUT, client_id="bob", base_version=self.door.state.version)
            self.door.core.judge("bob", offer, body, self.door.service.now())
        else:
            self.door.work(61.0 if self.why == "rate" else DAY_SECONDS)

    def over(self, ends: str) -> None:
        """The process is stopped, or dies, and what was in its memory only is gone."""
        transfers = self.door.service._reception._transfers
        assert self.door.store is not None
        assert transfers is not None
        if ends == "stopped":
            self.door.end()
            transfers.close()
            return
        self.door.store.close()
        for _, transfer in transfers._all():
            assert transfer.spool is not None
            transfer.spool.close()

    def is_taken_without_its_bytes(self) -> None:
        for answer in self.asked():
            assert isinstance(answer, Receipt), answer
            assert (answer.update, answer.verdict) == (self.header.update, "accepted")
        assert self.door.answers
        assert self.door.state.accepted == (3 if self.why == "slot" else 2)
        self.door.work(1.0)
        assert list(self.door.parts.glob("*")) == []


@PUT_OFF
def test_its_bytes_stay_and_its_verdict_comes_when_its_turn_does(tmp_path: Path, why: str) -> None:
    waiting = Waiting(tmp_path, why)
    for _ in range(3):
        assert [waiting.why_later(answer) for answer in waiting.asked()] == [why]
    assert waiting.door.state.accepted == 1
    waiting.may_come()
    waiting.is_taken_without_its_bytes()
    waiting.door.end()


@PUT_OFF
def test_a_part_that_comes_twice_changes_nothing_meanwhile(tmp_path: Path, why: str) -> None:
    waiting = Waiting(tmp_path, why)
    waiting.door.answers.clear()
    waiting.door.say(encode(waiting.part, waiting.body), encode(waiting.part, bytes(len(waiting.body))))
    assert waiting.door.answers == []  # nothing is missing, and what it waits for was said
    waiting.may_come()
    waiting.is_taken_without_its_bytes()
    assert waiting.door.state.rejected.total() == 0
    waiting.door.end()


@PUT_OFF
@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_its_bytes_outlive_the_aggregator(tmp_path: Path, why: str, ends: str) -> None:
    waiting = Waiting(tmp_path, why)
    waiting.over(ends)
    waiting.door = waiting.started()
    if why != "rate":  # what a client had of its rate is not on the disk: it has all of it after a start
        assert [waiting.why_later(answer) for answer in waiting.asked()] == [why]
        waiting.may_come()
    waiting.is_taken_without_its_bytes()
    waiting.door.end()


@PUT_OFF
def test_what_cannot_count_has_its_verdict_when_its_turn_comes(tmp_path: Path, why: str) -> None:
    waiting = Waiting(tmp_path, why, float("nan"))
    waiting.may_come()
    (answer,) = waiting.asked()
    assert isinstance(answer, Receipt)
    assert answer.reason == "not_finite"
    waiting.door.work(1.0)
    assert list(waiting.door.parts.glob("*")) == []
    waiting.door.end()


def test_while_it_waits_it_is_within_the_budget_and_goes_for_others_after_two_minutes(start: Start) -> None:
    transfers = start(2 * SIZE)
    waits, carl = Sending(transfers, "ada"), Sending(transfers, "carl")
    waits.ask()
    answers = [waits.part(piece) for piece in range(10)]
    assert isinstance(answers[-1], Offer)
    transfers.put_off("ada", waits.offer())
    bob = Sending(transfers, "bob")
    bob.ask()
    bob.part(0, now=100.0)
    assert isinstance(carl.ask(now=119.0), Later)
    assert isinstance(waits.ask(now=119.0), FileSpool)
    assert isinstance(carl.ask(now=120.0), Missing)  # nobody is kept out for longer, however long a slot is taken
    assert isinstance(waits.ask(now=179.0), Later)  # carl shall come first
    answer = waits.ask(now=220.0)  # and bob has been silent
    assert isinstance(answer, Missing)
    assert answer.ranges == ((0, SIZE),)


def test_what_is_half_here_or_another_one_is_not_moved_and_a_disk_that_refuses_costs_nothing(
    start: Start, tmp_path: Path
) -> None:
    transfers = start(2 * SIZE)
    ada, other = Sending(transfers), Sending(transfers, sequence=1)
    ada.ask()
    for piece in range(9):
        ada.part(piece)
    transfers.put_off("ada", ada.offer())
    assert not (tmp_path / "parts").exists()
    ada.part(9)
    transfers.put_off("ada", other.offer())
    transfers.put_off("bob", ada.offer())
    assert not (tmp_path / "parts").exists()
    (tmp_path / "parts").write_text("a file")
    transfers.put_off("ada", ada.offer())
    assert isinstance(ada.ask(), MemorySpool)


def test_however_many_wait_only_some_of_them_have_files_open(start: Start, tmp_path: Path) -> None:
    transfers = start(1 << 30)
    for number in range(200):
        client = Sending(transfers, f"client-{number}")
        client.ask()
        for piece in range(10):
            client.part(piece)
        transfers.put_off(client.client_id, client.offer())
    assert len(list((tmp_path / "parts").glob("*.body"))) == 128
    assert isinstance(Sending(transfers, "client-199").ask(), MemorySpool)
