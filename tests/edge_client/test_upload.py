"""An update in parts, from the device that sends it to the aggregator that gathers it, over links that lose."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.aggregator.room import Room
from fedmq.aggregator.transfers import Transfers
from fedmq.edge_client.upload import Upload
from fedmq.schemas.messages import Later, Missing, Offer, Part, UpdateId
from fedmq.schemas.parts import Range, cut
from tests.aggregator.small_run import RUN, layout_of, outbox

PIECE = 4096
SIZE = 30 * PIECE + 100
BODY = (bytes(range(256)) * (SIZE // 256 + 1))[:SIZE]
DIGEST = hashlib.sha256(BODY).hexdigest()
UPDATE = UpdateId(outbox_id=outbox(1), sequence=0)


def missing(*ranges: tuple[int, int], window: int = 8, heard: int | None = None) -> Missing:
    return Missing(update=UPDATE, ranges=ranges, window=window, heard=heard)


def told(upload: Upload, answer: Missing) -> list[tuple[int, int]]:
    """What it sends upon an answer, as numbers and pieces."""
    upload.told(answer, PIECE, 0.0)
    return [(piece.number, piece.start // PIECE) for piece in upload.pieces(8)]


def test_no_more_is_on_its_way_than_the_window() -> None:
    upload = Upload()
    assert upload.offered() == 1
    assert told(upload, missing((0, SIZE), window=3, heard=1)) == [(2, 0), (3, 1), (4, 2)]
    assert told(upload, missing((PIECE, SIZE), window=3, heard=2)) == [(5, 3)]
    assert told(upload, missing((2 * PIECE, SIZE), window=1, heard=3)) == []
    assert told(upload, missing((4 * PIECE, SIZE), window=2, heard=5)) == [(6, 4), (7, 5)]


def test_what_was_lost_is_sent_again_and_what_is_on_its_way_is_not() -> None:
    upload = Upload()
    upload.offered()
    told(upload, missing((0, SIZE), window=4, heard=1))  # 2 to 5: pieces 0 to 3
    # Heard up to 4, but of pieces 0 to 2 the second is missing: it was lost. Piece 3 is on its way.
    assert told(upload, missing((PIECE, 2 * PIECE), (3 * PIECE, SIZE), window=4, heard=4)) == [(6, 1), (7, 4), (8, 5)]


def test_it_is_sent_when_nothing_is_missing_that_is_not_on_its_way() -> None:
    upload = Upload()
    assert not upload.sent
    upload.offered()
    assert not upload.sent
    upload.told(missing((0, 3 * PIECE), window=8, heard=1), PIECE, 0.0)
    assert len(upload.pieces(2)) == 2
    assert not upload.sent  # its owner sends slowly
    told(upload, missing((PIECE, 3 * PIECE), window=1, heard=2))
    assert not upload.sent  # the window is full
    told(upload, missing((2 * PIECE, 3 * PIECE), window=1, heard=3))
    assert upload.sent
    told(upload, missing((0, 3 * PIECE), window=2, heard=4))
    assert not upload.sent  # all of it was lost
    told(upload, missing((2 * PIECE, 3 * PIECE), window=2, heard=6))
    assert upload.sent
    upload.cut_off()
    assert not upload.sent


def test_after_a_reconnect_nothing_is_sent_before_the_next_answer() -> None:
    upload = Upload()
    upload.offered()
    told(upload, missing((0, SIZE), heard=1))
    upload.cut_off()
    assert upload.told_at is None
    assert upload.pieces(8) == []
    number = upload.offered()
    assert told(upload, missing((PIECE, SIZE), window=2, heard=number)) == [(number + 1, 1), (number + 2, 2)]


def test_no_more_pieces_are_cut_than_may_be_sent_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[Range] = []

    def counted(ranges: Iterable[Range], part_bytes: int) -> Iterator[Range]:
        for piece in cut(ranges, part_bytes):
            pieces.append(piece)
            yield piece

    monkeypatch.setattr("fedmq.edge_client.upload.cut", counted)
    upload = Upload()
    upload.offered()
    assert len(told(upload, missing((0, 1 << 30), window=8, heard=1))) == 8
    assert len(told(upload, missing((PIECE, 1 << 30), window=8, heard=2))) == 1
    assert len(pieces) <= 2 * (8 + 8)


@dataclass
class Loss:
    """Which messages are lost, by their number in their direction, until `until` of them have passed."""

    lost: set[int]
    until: int = 60
    passed: int = 0

    def takes(self) -> bool:
        self.passed += 1
        return self.passed in self.lost and self.passed <= self.until


@dataclass
class World:
    """A device and an aggregator; both directions keep their order, and either may lose. Time goes in seconds."""

    transfers: Transfers
    up_loss: Loss
    down_loss: Loss
    upload: Upload = field(default_factory=Upload)
    up: deque[Offer | Part] = field(default_factory=deque)
    down: deque[Missing] = field(default_factory=deque)
    sent: Counter[int] = field(default_factory=Counter)
    now: float = 0.0

    def offer(self) -> Offer:
        return Offer(
            run=RUN,
            client_id="ada",
            update=UPDATE,
            base_version=0,
            layout=layout_of(1).digest,
            codec="float32",
            size=SIZE,
            digest=DIGEST,
            num_samples=1,
            number=self.upload.offered(),
        )

    def run(self) -> bytes:
        """Until it is whole; the device repeats its offer whenever nothing more comes."""
        for _ in range(200):
            self.now += 1.0
            self.up.append(self.offer())
            whole = self._settle()
            if whole is not None:
                return whole
        raise AssertionError("it never became whole")

    def _settle(self) -> bytes | None:
        while self.up or self.down:
            if self.up:
                message = self.up.popleft()
                whole = None if self.up_loss.takes() else self._arrives(message)
                if whole is not None:
                    return whole
            if self.down:
                answer = self.down.popleft()
                if not self.down_loss.takes():
                    self.upload.told(answer, PIECE, self.now)
                    self._send()
        return None

    def _send(self) -> None:
        for piece in self.upload.pieces(8):
            self.sent.update(range(piece.start, piece.end, PIECE))
            self.up.append(Part(run=RUN, update=UPDATE, digest=DIGEST, offset=piece.start, number=piece.number))

    def _arrives(self, message: Offer | Part) -> bytes | None:
        if isinstance(message, Part):
            end = min(message.offset + PIECE, SIZE)
            answer = self.transfers.take("ada", message, memoryview(BODY)[message.offset : end], self.now)
            if isinstance(answer, Offer):
                asked = self.transfers.ask("ada", answer, self.now)
                assert not isinstance(asked, Missing | Later)
                return bytes(asked.view())
        else:
            asked = self.transfers.ask("ada", message, self.now)
            assert isinstance(asked, Missing)
            answer = asked
        assert not isinstance(answer, Later)
        if answer is not None:
            self.down.append(answer)
        return None


losses = st.sets(st.integers(1, 60), max_size=40).map(Loss)


@settings(max_examples=100, deadline=None)
@given(losses, losses)
def test_whatever_is_lost_it_becomes_whole(up_loss: Loss, down_loss: Loss) -> None:
    with TemporaryDirectory() as folder, closing(Transfers(Room(Path(folder), 1 << 20))) as transfers:
        world = World(transfers, up_loss, down_loss)
        assert world.run() == BODY
        # A lost answer costs nothing that was sent; a lost part is sent once more.
        assert sum(world.sent.values()) <= 31 + len(up_loss.lost)


def test_without_loss_every_byte_is_sent_once_and_one_offer_is_enough(tmp_path: Path) -> None:
    with closing(Transfers(Room(tmp_path, 1 << 20))) as transfers:
        world = World(transfers, Loss(set()), Loss(set()))
        assert world.run() == BODY
        assert set(world.sent.values()) == {1}
        assert world.now == 1.0
