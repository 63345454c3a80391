"""Updates in parts at the aggregator: who may send, how much at a time, and what is left of it over a restart."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedmq.aggregator.room import Room, spool_bytes
from fedmq.aggregator.transfers import Transfers
from fedmq.schemas.errors import ConfigError, ProtocolError, StoreError
from fedmq.schemas.messages import Later, Missing, Offer, Part, UpdateId
from fedmq.transport.spool import FileSpool, MemorySpool
from tests.aggregator.small_run import RUN, layout_of, outbox

LAYOUT = layout_of(1)
PIECE = 4096
SIZE = 10 * PIECE
BODY = bytes(range(256)) * (SIZE // 256)
HUGE = 20 << 20  # goes to the disk from its first part on


class Sending:
    """One client's update, whose messages are counted."""

    def __init__(self, transfers: Transfers, client_id: str = "ada", sequence: int = 0, size: int = SIZE) -> None:
        self.transfers = transfers
        self.client_id = client_id
        self.update = UpdateId(outbox_id=outbox(1), sequence=sequence)
        self.size = size
        self.digest = (
            hashlib.sha256(f"{sequence}".encode()).hexdigest() if size != SIZE else hashlib.sha256(BODY).hexdigest()
        )
        self.number = 0

    def offer(self) -> Offer:
        self.number += 1
        return Offer(
            run=RUN,
            client_id=self.client_id,
            update=self.update,
            base_version=0,
            layout=LAYOUT.digest,
            codec="float32",
            size=self.size,
            digest=self.digest,
            num_samples=1,
            number=self.number,
        )

    def ask(self, now: float = 0.0) -> Missing | Later | FileSpool | MemorySpool:
        answer = self.transfers.ask(self.client_id, self.offer(), now)
        assert isinstance(answer, Missing | Later | FileSpool | MemorySpool)
        return answer

    def part(
        self, piece: int, now: float = 0.0, *, size: int = PIECE, offset: int | None = None
    ) -> Missing | Later | Offer | None:
        self.number += 1
        start = piece * PIECE if offset is None else offset
        part = Part(run=RUN, update=self.update, digest=self.digest, offset=start, number=self.number)
        data = memoryview(BODY + BODY)[start : start + size] if self.size == SIZE else memoryview(bytes(size))
        return self.transfers.take(self.client_id, part, data, now)

    def part_again(self, now: float) -> None:
        """Send what is here already."""
        self.part(0, now)

    def trickle(self, now: float) -> None:
        """Send the next part, just before two minutes are over."""
        self.part(int(now // 115), now)


Start = Callable[[int], Transfers]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process's transfers, for so many bytes."""
    with ExitStack() as stack:

        def made(most_bytes: int) -> Transfers:
            transfers = Transfers(Room(tmp_path / "parts", most_bytes))
            stack.callback(transfers.close)
            return transfers

        yield made


@pytest.fixture
def transfers(start: Start) -> Transfers:
    return start(100 * SIZE + 2 * HUGE)


def test_an_update_that_comes_whole_is_handed_over_with_its_digest(transfers: Transfers) -> None:
    ada = Sending(transfers)
    answer = ada.ask()
    assert isinstance(answer, Missing)
    assert (answer.ranges, answer.window, answer.heard) == (((0, SIZE),), 8, 1)
    said = [ada.part(piece) for piece in range(10)]
    assert [type(each) for each in said] == [type(None)] * 3 + [Missing] + [type(None)] * 3 + [
        Missing,
        type(None),
        Offer,
    ]
    answered = said[3]
    assert isinstance(answered, Missing)
    assert (answered.ranges, answered.heard) == (((4 * PIECE, SIZE),), 5)
    spool = ada.ask()
    assert isinstance(spool, MemorySpool)
    assert bytes(spool.view()) == BODY
    assert spool.digest() == ada.digest


def test_an_answer_comes_for_half_of_the_window_that_was_told_not_of_a_larger_one_of_now(transfers: Transfers) -> None:
    # Eight at work have two parts each; when seven of them are done, the eighth still sends no more than two.
    others = [Sending(transfers, f"c{number}") for number in range(7)]
    for other in others:
        other.ask()
        other.part(0)
    ada = Sending(transfers)
    ada.ask()
    ada.part(0)
    told = ada.ask()
    assert isinstance(told, Missing)
    assert told.window == 2
    for other in others:
        transfers.over(other.client_id)
    again = ada.part(1)
    assert isinstance(again, Missing)
    assert again.window == 8


@pytest.mark.parametrize(("active", "window"), [(1, 8), (2, 8), (4, 4), (8, 2), (16, 1), (40, 1)])
def test_those_at_work_share_the_windows(transfers: Transfers, active: int, window: int) -> None:
    clients = [Sending(transfers, f"c{number}") for number in range(active)]
    for client in clients:
        client.ask()
        client.part(0)
    answer = clients[0].ask()
    assert isinstance(answer, Missing)
    assert answer.window == window
    later = clients[0].ask(now=11.0)
    assert isinstance(later, Missing)
    assert later.window == 8  # nobody has sent for ten seconds


def test_a_second_update_of_a_client_waits_until_the_first_is_over_or_has_been_silent(transfers: Transfers) -> None:
    first, second = Sending(transfers, sequence=0), Sending(transfers, sequence=1)
    first.ask()
    first.part(0)
    busy = second.ask(now=119.0)
    assert isinstance(busy, Later)
    assert (busy.reason, busy.update) == ("busy", second.update)
    assert isinstance(second.ask(now=120.0), Missing)
    assert isinstance(first.ask(now=121.0), Later)


def send_whole(sending: Sending, now: float = 0.0) -> None:
    """Offer an update and send all of it."""
    assert isinstance(sending.ask(now), Missing)
    assert isinstance([sending.part(piece, now) for piece in range(10)][-1], Offer)


def commit(transfers: Transfers, *judged: Sending) -> None:
    """A commit with the verdicts on these."""
    for sending in judged:
        transfers.judged(sending.client_id, sending.offer())
    transfers.committing()
    transfers.committed()


def test_the_next_updates_come_while_the_first_are_whole_and_a_fourth_waits_for_a_commit(transfers: Transfers) -> None:
    first, second, third, fourth = (Sending(transfers, sequence=sequence) for sequence in range(4))
    for sending in (first, second, third):
        send_whole(sending)
    assert isinstance(fourth.ask(), Later)
    for sending in (first, second, third):
        assert bytes(sending.ask().view()) == BODY  # type: ignore[union-attr]
    assert transfers._room.taken == 3 * SIZE
    commit(transfers, second)
    assert transfers._room.taken == 2 * SIZE
    send_whole(fourth)
    for sending in (first, third, fourth):
        assert isinstance(sending.ask(), MemorySpool)
    commit(transfers, first, third, fourth)
    assert transfers._room.taken == 0
    assert list(transfers._all()) == []


def test_a_commit_waits_for_more_of_an_update_but_not_when_two_of_a_client_wait_for_it(transfers: Transfers) -> None:
    first, second, bob = Sending(transfers), Sending(transfers, sequence=1), Sending(transfers, "bob")
    bob.ask()
    bob.part(0, now=1.0)
    send_whole(first, now=1.0)
    transfers.judged("ada", first.offer())
    assert transfers.coming_until > 1.0
    send_whole(second, now=1.0)
    assert transfers.coming_until > 1.0  # it has no verdict yet
    transfers.judged("ada", second.offer())
    assert transfers.coming_until < 1.0
    transfers.committing()
    assert transfers.coming_until > 1.0


def test_no_byte_of_two_updates_goes_before_its_own_verdict_is_committed(transfers: Transfers, tmp_path: Path) -> None:
    first, second = Sending(transfers, size=HUGE), Sending(transfers, sequence=1, size=HUGE)
    assert isinstance(first.ask(), Missing)
    first.part(0, size=HUGE)
    second.ask()
    second.part(0, size=HUGE // 2)
    names = {"ada.body", "ada.body.parts", "ada.2.body", "ada.2.body.parts"}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names
    transfers.judged("ada", first.offer())
    transfers.committing()
    transfers.forgotten()  # the disk failed
    transfers.committed()
    assert isinstance(first.ask(), FileSpool)
    commit(transfers, first)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"ada.2.body", "ada.2.body.parts"}
    answer = second.ask()
    assert isinstance(answer, Missing)
    assert answer.ranges == ((HUGE // 2, HUGE),)


def test_a_restart_goes_on_with_both_updates_of_a_client_in_any_order(transfers: Transfers, start: Start) -> None:
    send_whole(Sending(transfers))
    second = Sending(transfers, sequence=1)
    second.ask()
    second.part(9)
    transfers.close()
    for offered_first in (0, 1):
        after = start(2 * SIZE)
        assert after._room.left.taken == 2 * SIZE
        assert isinstance(Sending(after, sequence=2).ask(now=1.0), Later)
        if offered_first:
            assert isinstance(Sending(after, sequence=1).ask(now=1.0), Missing)
            assert isinstance(Sending(after).ask(now=1.0), Later)  # until what comes is whole
        else:
            whole = Sending(after).ask(now=1.0)
            assert isinstance(whole, FileSpool)
            assert whole.digest() == Sending(after).digest
        answer = Sending(after, sequence=1).ask(now=1.0)
        assert isinstance(answer, Missing)
        assert answer.ranges == ((0, 9 * PIECE),)
        assert after._room.taken + after._room.left.taken == 2 * SIZE
        after.close()


def test_what_an_earlier_process_left_of_two_goes_with_the_first_part_of_a_third(
    transfers: Transfers, start: Start, tmp_path: Path
) -> None:
    send_whole(Sending(transfers))
    second = Sending(transfers, sequence=1)
    second.ask()
    second.part(9)
    transfers.close()
    after = start(2 * SIZE)
    third = Sending(after, sequence=2)
    assert isinstance(third.ask(now=1.0), Later)
    assert isinstance(third.ask(now=11.0), Missing)
    third.part(0, now=11.0)
    assert list((tmp_path / "parts").iterdir()) == []
    assert after._room.taken + after._room.left.taken == SIZE


def test_what_is_whole_and_silent_gives_a_place_up_and_who_is_out_gives_all(transfers: Transfers) -> None:
    for sequence in range(3):  # whose verdicts wait for a quota
        send_whole(Sending(transfers, sequence=sequence))
    fourth = Sending(transfers, sequence=3)
    assert isinstance(fourth.ask(now=119.0), Later)
    assert isinstance(fourth.ask(now=120.0), Missing)
    fourth.part(0, now=120.0)
    for sequence in (1, 2):
        assert isinstance(Sending(transfers, sequence=sequence).ask(now=120.0), MemorySpool)
    transfers.over("ada")
    assert transfers._room.taken == 0
    assert list(transfers._all()) == []


def test_the_disk_has_room_for_as_many_updates_as_it_was_given_whosever_they_are(start: Start) -> None:
    transfers = start(2 * SIZE)
    send_whole(Sending(transfers))
    send_whole(Sending(transfers, "bob"))
    assert isinstance(Sending(transfers, sequence=1).ask(now=1.0), Later)
    commit(transfers, Sending(transfers, "bob"))
    assert isinstance(Sending(transfers, sequence=1).ask(now=1.0), Missing)


def test_a_part_that_cannot_be_one_is_refused_and_one_of_nothing_known_is_ignored(transfers: Transfers) -> None:
    ada = Sending(transfers)
    assert ada.part(0) is None
    ada.ask()
    for size, offset in ((PIECE, SIZE), (PIECE, SIZE - 1), (PIECE - 1, 0), (PIECE + 1, 0), (PIECE, 1), (0, PIECE)):
        with pytest.raises(ProtocolError, match="a part of"):
            ada.part(0, size=size, offset=offset)
    assert Sending(transfers, sequence=9).part(0) is None
    answer = ada.ask()
    assert isinstance(answer, Missing)
    assert answer.ranges == ((0, SIZE),)
    bob = Sending(transfers, "bob", size=2 * PIECE + 10)
    bob.ask()
    assert not isinstance(bob.part(2, size=10), Later)  # the last may be short


def test_no_answer_names_more_than_64_ranges(transfers: Transfers) -> None:
    ada = Sending(transfers, size=200 * PIECE)
    ada.ask()
    answers = [ada.part(piece) for piece in range(0, 200, 2)]
    last = [answer for answer in answers if isinstance(answer, Missing)][-1]
    assert len(last.ranges) == 64
    assert last.ranges[0] == (PIECE, 2 * PIECE)


def test_what_takes_longer_than_two_seconds_goes_to_the_disk_and_a_restart_goes_on_with_it(
    transfers: Transfers, start: Start, tmp_path: Path
) -> None:
    ada = Sending(transfers)
    ada.ask()
    ada.part(0, now=1.0)
    ada.part(1, now=3.0)
    assert list((tmp_path / "parts").glob("*")) == []
    ada.part(2, now=3.1)
    assert (tmp_path / "parts" / "ada.body").exists()
    after = start(100 * SIZE)  # as after a kill -9
    answer = Sending(after).ask()
    assert isinstance(answer, Missing)
    assert answer.ranges == ((3 * PIECE, SIZE),)


def test_a_stop_leaves_what_is_in_memory_to_the_next_process(transfers: Transfers, start: Start) -> None:
    ada = Sending(transfers)
    ada.ask()
    ada.part(4)
    transfers.close()
    answer = Sending(start(100 * SIZE)).ask()
    assert isinstance(answer, Missing)
    assert answer.ranges == ((0, 4 * PIECE), (5 * PIECE, SIZE))


def test_of_a_move_to_a_disk_that_refuses_nothing_is_left_and_the_update_stays_in_memory(
    transfers: Transfers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(spool: FileSpool, offset: int, data: memoryview) -> None:
        raise StoreError("no space left")

    ada = Sending(transfers)
    ada.ask()
    ada.part(0)
    opened = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(FileSpool, "write", refuses)
        with pytest.raises(StoreError):
            ada.part(1, now=3.0)
    assert set(os.listdir("/proc/self/fd")) == opened
    assert list((tmp_path / "parts").iterdir()) == []
    for piece in range(1, 9):
        ada.part(piece, now=3.0)
    assert isinstance(ada.part(9, now=3.0), Offer)
    assert [file.suffix for file in (tmp_path / "parts").iterdir()]  # as soon as the disk works


def test_after_a_restart_no_other_update_takes_the_place_of_one_that_is_half_here(
    transfers: Transfers, start: Start
) -> None:
    ada = Sending(transfers, sequence=0)
    ada.ask()
    ada.part(0)
    transfers.close()
    after = start(100 * SIZE)
    newer = Sending(after, sequence=1)
    assert isinstance(newer.ask(now=50.0), Later)
    answer = Sending(after, sequence=0).ask(now=51.0)
    assert isinstance(answer, Missing)
    assert answer.ranges == ((PIECE, SIZE),)


def test_what_is_half_here_goes_if_its_client_does_not_come_back_to_it(transfers: Transfers, start: Start) -> None:
    ada = Sending(transfers, sequence=0)
    ada.ask()
    ada.part(0)
    transfers.close()
    after = start(100 * SIZE)
    newer = Sending(after, sequence=1)
    assert isinstance(newer.ask(now=50.0), Later)
    answer = newer.ask(now=60.0)
    assert isinstance(answer, Missing)
    assert answer.ranges == ((0, SIZE),)


def test_a_large_one_is_on_the_disk_from_its_first_part_until_its_verdict_is(
    transfers: Transfers, tmp_path: Path
) -> None:
    ada = Sending(transfers, size=HUGE)
    ada.ask()
    ada.part(0)
    assert (tmp_path / "parts" / "ada.body").exists()
    transfers.judged("ada", ada.offer())
    transfers.committing()
    transfers.forgotten()  # the disk failed: the verdict is void, the bytes are not
    transfers.committed()
    assert (tmp_path / "parts" / "ada.body").exists()
    transfers.judged("ada", ada.offer())
    transfers.committed()  # of a commit that had begun before the verdict
    assert (tmp_path / "parts" / "ada.body").exists()
    transfers.committing()
    transfers.committed()
    assert list((tmp_path / "parts").glob("*")) == []


def test_there_is_no_more_on_the_disk_than_the_budget_and_the_idle_make_room(start: Start) -> None:
    transfers = start(2 * SIZE)
    clients = [Sending(transfers, name) for name in ("ada", "bob", "carl")]
    for client in clients[:2]:
        client.ask()
        client.part(0)
    assert isinstance(clients[2].ask(now=1.0), Later)
    clients[1].part(1, now=100.0)
    assert isinstance(clients[2].ask(now=125.0), Missing)  # ada's has been silent for two minutes
    clients[2].part(0, now=125.0)
    assert isinstance(clients[0].ask(now=126.0), Later)


def leave_a_part_each(transfers: Transfers) -> None:
    """Two clients are in the middle of an update when the process ends."""
    for name in ("ada", "bob"):
        client = Sending(transfers, name)
        client.ask()
        client.part(9)
    transfers.close()


def test_what_an_earlier_process_left_of_others_makes_room(transfers: Transfers, start: Start, tmp_path: Path) -> None:
    leave_a_part_each(transfers)
    after = start(2 * SIZE)
    assert isinstance(Sending(after, "carl").ask(), Missing)
    assert sorted(path.suffix for path in (tmp_path / "parts").iterdir()) == [".body", ".parts"]


def test_a_disk_that_refuses_is_said_and_nothing_is_kept_of_the_part(transfers: Transfers, tmp_path: Path) -> None:
    (tmp_path / "parts").write_text("a file")
    ada = Sending(transfers, size=HUGE)
    ada.ask()
    with pytest.raises(StoreError):
        ada.part(0)
    answer = ada.ask()
    assert isinstance(answer, Missing)
    assert answer.ranges == ((0, HUGE),)


def test_offers_that_nothing_follows_do_not_pile_up_and_who_has_sent_a_part_is_kept(transfers: Transfers) -> None:
    begun = Sending(transfers, "first")
    begun.ask()
    begun.part(0)
    for number in range(3_000):
        assert isinstance(Sending(transfers, f"client-{number}", size=2 * PIECE).ask(now=1.0 + number / 1000), Missing)
    assert len(transfers._coming) == 1024
    newest = Sending(transfers, "client-2999", size=2 * PIECE)
    for sending, pieces in ((newest, range(2)), (begun, range(1, 10))):
        answers = [sending.part(piece, now=5.0) for piece in pieces]
        assert isinstance(answers[-1], Offer)


def test_who_sends_nothing_takes_no_room_however_often_they_offer(start: Start) -> None:
    transfers = start(2 * SIZE)
    silent = [Sending(transfers, f"silent{number}") for number in range(5)]
    for client in silent:
        assert isinstance(client.ask(), Missing)
    ada = Sending(transfers)
    assert isinstance(ada.ask(now=1.0), Missing)
    assert ada.part(0, now=1.0) is None
    assert silent[0].part(0, now=2.0) is None
    late = silent[1].part(0, now=3.0)  # there was room when they asked
    assert isinstance(late, Later)
    for piece in range(1, 10):
        assert isinstance(silent[0].ask(now=13.0 * piece), Missing)
        ada.part(piece, now=13.0 * piece)
    assert isinstance(silent[1].ask(now=121.0), Later)
    assert isinstance(silent[1].ask(now=122.0), Missing)  # the first has sent nothing for two minutes
    assert not isinstance(silent[1].part(0, now=122.0), Later)


def test_room_is_given_back_with_what_took_it(start: Start, transfers: Transfers) -> None:
    leave_a_part_each(transfers)
    after = start(2 * SIZE)
    for turn in range(5):
        ada = Sending(after, "ada", sequence=turn)
        assert isinstance(ada.ask(now=20.0), Missing)
        assert not isinstance(ada.part(0, now=20.0), Later)
        after.over("ada")
    assert after._room.taken + after._room.left.taken == SIZE  # what is left of bob's
    Sending(after, "bob").ask(now=20.0)
    after.over("bob")
    assert after._room.taken + after._room.left.taken == 0


@pytest.mark.parametrize(("size", "then"), [(SIZE, PIECE), (PIECE + 1, SIZE)], ids=["smaller", "larger"])
def test_an_update_that_is_said_to_have_another_size_takes_and_gives_back_the_same_room(
    start: Start, size: int, then: int
) -> None:
    transfers = start(10 * SIZE)
    for sequence in range(20):
        mallory = Sending(transfers, "mallory", sequence=sequence, size=size)
        assert isinstance(mallory.ask(), Missing)
        mallory.part(0)
        mallory.size = then
        assert isinstance(mallory.ask(), Later)  # as for any other update of a client that is sending one
        transfers.judged("mallory", mallory.offer())
        transfers.committing()
        transfers.committed()
        transfers.over("mallory")
        assert transfers._room.taken == 0
    assert isinstance(Sending(transfers, "ada").ask(), Missing)


def test_no_more_updates_are_on_the_disk_at_a_time_than_there_are_files_for(start: Start, transfers: Transfers) -> None:
    for name in ("lent", "gone"):
        Sending(transfers, name).ask()
        Sending(transfers, name).part(0)
    transfers.close()
    after = start(2 << 30)
    slow = [Sending(after, f"slow-{number}") for number in range(300)]
    for client in slow:
        client.ask()
        client.part(0)
    for client in slow:
        client.part(1, now=3.0)
    kept = [one.spool for _, one in after._all()]
    assert sum(isinstance(spool, FileSpool) for spool in kept) == 256
    assert all(spool is not None for spool in kept)  # the others stay in memory
    huge, left = Sending(after, "huge", size=HUGE), Sending(after, "lent")
    for client in (huge, left):  # both go to the disk at once
        assert isinstance(client.ask(now=122.9), Later)
    assert isinstance(Sending(after, "small").ask(now=122.9), Missing)
    assert isinstance(huge.ask(now=123.0), Missing)  # one of them has been silent for two minutes
    assert not isinstance(huge.part(0, now=123.0), Later)
    answer = left.ask(now=123.0)
    assert isinstance(answer, Missing)
    assert answer.ranges == ((PIECE, SIZE),)  # what is on the disk, and not open, was in nobody's way


def wait_for_room(waiting: Sending, now: float, until: float, *others: Callable[[float], object]) -> float | None:
    """Offer every five seconds, while the others do what they do; when there is room, if ever."""
    while now < until:
        for other in others:
            other(now)
        if isinstance(waiting.ask(now), Missing):
            return now
        now += 5.0
    return None


def test_who_repeats_what_is_here_keeps_no_room_and_no_commit(start: Start) -> None:
    transfers = start(2 * SIZE)
    mallory, bob = Sending(transfers, "mallory"), Sending(transfers, "bob")
    for client in (mallory, bob):
        client.ask()
        client.part(0)
    assert wait_for_room(Sending(transfers, "carl"), 1.0, 3600.0, mallory.part_again, bob.part_again) == 121.0
    assert transfers.coming_until == pytest.approx(0.03)


def test_who_sends_next_to_nothing_gives_its_room_up_for_who_waits_and_the_one_with_the_least_goes_first(
    start: Start,
) -> None:
    transfers = start(2 * HUGE)
    trickling = [Sending(transfers, name, size=HUGE) for name in ("mallory", "more", "carl", "dave")]
    mallory, more, carl, dave = trickling
    for client in (mallory, more):
        client.ask()
    more.part(100)
    mallory.part(0)
    trickles = [client.trickle for client in (mallory, more)]
    let_in = wait_for_room(carl, 1.0, 24 * 3600.0, *trickles)
    assert let_in is not None
    assert let_in == pytest.approx(600, abs=30)
    carl.part(0, now=let_in)
    assert isinstance(mallory.ask(now=let_in), Later)
    assert isinstance(more.ask(now=let_in), Missing)  # it had one part more
    again = wait_for_room(dave, let_in + 1.0, 24 * 3600.0, more.trickle)
    assert again is not None
    assert again - let_in == pytest.approx(120, abs=5)  # not all at once: somebody shall get through


def test_who_has_made_room_does_not_take_it_before_who_waits(start: Start) -> None:
    transfers = start(HUGE)
    mallory, ada = Sending(transfers, "mallory", size=HUGE), Sending(transfers, size=HUGE)
    mallory.ask()
    mallory.part(0)
    assert isinstance(ada.ask(now=120.0), Missing)
    for now in range(120, 180, 5):
        assert isinstance(mallory.ask(now=now), Later)
    assert not isinstance(ada.part(0, now=179.0), Later)  # over a link that was lost meanwhile
    assert isinstance(mallory.ask(now=185.0), Later)


def test_who_has_made_room_for_itself_takes_it(start: Start) -> None:
    transfers = start(2 * SIZE)
    for sequence in range(2):
        send_whole(Sending(transfers, sequence=sequence))
    third = Sending(transfers, sequence=2)
    for now in (120.0, 121.0):
        assert isinstance(third.ask(now=now), Missing)


@pytest.mark.parametrize(("size", "pace"), [(HUGE, HUGE / 3600), (70 << 20, 16 << 10)], ids=["small", "large"])
def test_who_takes_an_hour_or_sends_16_kib_a_second_keeps_its_room_to_the_end_also_over_a_link_that_breaks(
    start: Start, size: int, pace: float
) -> None:
    transfers = start(size)
    slow = Sending(transfers, "slow", size=size)
    slow.ask()
    sent, at_once = 0, 16 * PIECE

    def goes_on(now: float) -> None:
        nonlocal sent
        while now % 1000 >= 110 and sent < min(size, pace * now):  # its link is lost now and then
            slow.part(0, now, offset=sent, size=at_once)
            sent += at_once

    goes_on(111.0)
    let_in = wait_for_room(Sending(transfers, "carl", size=size), 111.0, size / pace + 5, goes_on)
    assert let_in is None
    assert sent == size


def test_none_is_given_up_for_one_that_has_no_room_after_that_either(start: Start) -> None:
    transfers = start(2 * SIZE + HUGE)
    slow, quick = Sending(transfers, "slow"), Sending(transfers, "quick", size=HUGE)
    for client in (slow, quick):
        client.ask()
        client.part(0)
    quick.part(0, now=3590.0, size=HUGE - PIECE)
    slow.part(1, now=3590.0)
    assert isinstance(Sending(transfers, "large", size=HUGE).ask(now=3600.0), Later)
    answer = slow.ask(now=3600.0)
    assert isinstance(answer, Missing)
    assert answer.ranges == ((2 * PIECE, SIZE),)


def test_too_little_disk_for_one_update_is_said_at_the_start_and_by_default_there_is_room_for_four() -> None:
    assert spool_bytes(None, 1000) == 4 << 30
    assert spool_bytes(None, 2 << 30) == 8 << 30
    assert spool_bytes(2 << 20, 2 << 20) == 2 << 20
    with pytest.raises(ConfigError, match=r"aggregator\.spool_bytes is 1048576, .* may take 1048577 bytes"):
        spool_bytes(1 << 20, (1 << 20) + 1)


def test_a_large_one_of_an_earlier_process_is_read_again_while_others_are_served(
    transfers: Transfers, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = Sending(transfers, size=HUGE)
    ada.ask()
    ada.part(1)
    transfers.close()
    after = start(100 * SIZE + 2 * HUGE)
    reading, goes_on, is_there = threading.Event(), threading.Event(), FileSpool._is_there

    def slowly(spool: FileSpool, part: Any) -> bool:
        reading.set()
        assert goes_on.wait(20)
        return is_there(spool, part)

    monkeypatch.setattr(FileSpool, "_is_there", slowly)
    assert isinstance(Sending(after, size=HUGE).ask(now=20.0), Later)
    assert reading.wait(20)
    assert isinstance(Sending(after, "bob").ask(now=20.0), Missing)
    assert isinstance(Sending(after, sequence=1).ask(now=40.0), Later)  # the file is in use
    goes_on.set()
    deadline = time.monotonic() + 20
    while isinstance(answer := Sending(after, size=HUGE).ask(now=41.0), Later):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert isinstance(answer, Missing)
    assert answer.ranges == ((0, PIECE), (2 * PIECE, HUGE))
    assert after._room.taken + after._room.left.taken == HUGE
