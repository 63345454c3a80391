"""Error feedback: what a lossy codec leaves out of an update is added to the next, so that nothing is lost for good.

Seide et al. 2014, 1-bit SGD (Interspeech); Karimireddy et al. 2019, arXiv 1901.09847. The outbox keeps the residual in
the same step as the update that left it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedmq.schemas.codecs import Codec, codec_named, compressed
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.mapped import blocks, let_go
from fedmq.schemas.messages import Offer
from fedmq.schemas.plan import Plan

__all__ = ["Encoded", "Residual", "Returned", "encoded", "put_back", "seed_of"]


_LARGEST = 1e14  # no aggregator takes numbers beyond ten times that


@dataclass(frozen=True, slots=True)
class Returned:
    """An update that did not count: its number, its codec, and its bytes."""

    sequence: int
    codec: str
    body: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Residual:
    """What the updates of a run have left out.

    Attributes:
        run: that they belong to; another has no use for it.
        layout: digest of the updates' layout.
        statistics: floats that follow the parameters in an update.
        left: float32 [layout.parameter_size]: what codecs left out.
        returned: updates that did not count, whose content belongs to it as well.
        took: numbers of updates that had been returned to the one before, and went into the update that left this one.

    """

    run: str
    layout: str
    statistics: int
    left: Vector
    returned: tuple[Returned, ...] = ()
    took: tuple[int, ...] = ()

    @property
    def vector(self) -> Vector:
        """All of it, float32 [layout.parameter_size]."""
        if not self.returned:
            return self.left
        vector = self.left.copy()
        for start, piece in self._contents():
            vector[start : start + len(piece)] += piece
        return vector

    @property
    def is_bounded(self) -> bool:
        """Whether it can be added; one beyond all bounds would have every update from now on refused."""
        return all(piece.min() >= -_LARGEST and piece.max() <= _LARGEST for _, piece in self._pieces())

    def is_of(self, run: str, layout: str) -> bool:
        """Whether it belongs to this run and layout."""
        return (self.run, self.layout) == (run, layout)

    def add_to(self, parameters: Vector) -> None:
        """Add it, float32 [layout.parameter_size], without memory for another vector."""
        for start, piece in self._pieces():
            parameters[start : start + len(piece)] += piece

    def _pieces(self) -> Iterator[tuple[int, Vector]]:
        yield from blocks(self.left)
        yield from self._contents()

    def _contents(self) -> Iterator[tuple[int, Vector]]:
        entries = [Entry("parameters", self.left.shape)]
        if self.statistics:
            entries.append(Entry("statistics", (self.statistics,), kind="statistic"))
        for one in self.returned:
            for start, piece in codec_named(one.codec).pieces(one.body, Layout.of(entries)):
                if start < len(self.left):
                    yield start, piece
            let_go(one.body)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An update as it travels, and what it leaves out; None if its codec has no feedback."""

    codec: Codec
    body: bytes | memoryview
    residual: Residual | None


def encoded(update: Vector, layout: Layout, run: str, plan: Plan, residual: Residual | None, seed: int) -> Encoded:
    """Encode an update as the plan says, with what earlier ones left out.

    Args:
        update: float32 [layout.size]; its memory is used up.
        layout: of it.
        run: that it belongs to.
        plan: names the codec.
        residual: of earlier updates, if there is one.
        seed: of what is random in the codec; another one for each update.

    """
    codec = codec_named(plan.codec)
    feedback = codec.feedback and plan.error_feedback
    parameters = update[: layout.parameter_size]
    if feedback and residual is not None and residual.is_of(run, layout.digest) and residual.is_bounded:
        residual.add_to(parameters)
    body = codec.encode(update, layout, plan.encoding(seed))
    left = None
    if feedback:
        for start, piece in codec.pieces(body, layout):
            if start < len(parameters):
                parameters[start : start + len(piece)] -= piece
        # Those of another run too: nobody has a use for them any more.
        took = tuple(one.sequence for one in residual.returned) if residual is not None else ()
        left = Residual(run, layout.digest, layout.size - layout.parameter_size, parameters, took=took)
    if plan.zstd:
        codec, body = compressed(codec, body)
    return Encoded(codec, body, left)


def put_back(residual: Residual, offer: Offer, body: bytes | memoryview) -> Residual:
    """The residual with the content of an update that did not count; the same one if they do not belong together."""
    if not codec_named(offer.codec).feedback or not residual.is_of(offer.run, offer.layout):
        return residual
    return replace(residual, returned=(*residual.returned, Returned(offer.update.sequence, offer.codec, body)))


def seed_of(run: str, client_id: str, version: int, sequence: int) -> int:
    """The seed of an update's codec: no two of a run have the same, and a replay has it again."""
    return int.from_bytes(hashlib.sha256(f"{run}/{client_id}/{version}/{sequence}".encode()).digest()[:8], "little")
