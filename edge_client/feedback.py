"""Error feedback: what a lossy codec leaves out of an update is added to the next, so that nothing is lost for good.

Seide et al. 2014, 1-bit SGD (Interspeech); Karimireddy et al. 2019, arXiv 1901.09847. The outbox keeps the residual in
the same step as the update that left it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedmq.schemas.codecs import Codec, codec_named, compressed
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.messages import Offer
from fedmq.schemas.plan import Plan

__all__ = ["Encoded", "Residual", "encoded", "put_back", "seed_of"]


_LARGEST = 1e14  # no aggregator takes numbers beyond ten times that


@dataclass(frozen=True, slots=True)
class Residual:
    """What the updates of a run have left out.

    Attributes:
        run: that they belong to; another has no use for it.
        layout: digest of the updates' layout.
        statistics: floats that follow the parameters in an update.
        vector: float32 [layout.parameter_size].

    """

    run: str
    layout: str
    statistics: int
    vector: Vector

    @property
    def is_bounded(self) -> bool:
        """Whether it can be added; one beyond all bounds would have every update from now on refused."""
        return not self.vector.size or bool(max(self.vector.max(), -self.vector.min()) <= _LARGEST)

    def is_of(self, run: str, layout: str) -> bool:
        """Whether it belongs to this run and layout."""
        return (self.run, self.layout) == (run, layout)


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
        parameters += residual.vector
    body = codec.encode(update, layout, plan.encoding(seed))
    left = None
    if feedback:
        parameters -= codec.decode(body, layout)[: layout.parameter_size]
        left = Residual(run, layout.digest, layout.size - layout.parameter_size, parameters)
    if plan.zstd:
        codec, body = compressed(codec, body)
    return Encoded(codec, body, left)


def put_back(residual: Residual, offer: Offer, body: bytes) -> Residual:
    """The residual with the content of an update that did not count; the same one if they do not belong together."""
    codec = codec_named(offer.codec)
    if not codec.feedback or not residual.is_of(offer.run, offer.layout):
        return residual
    entries = [Entry("parameters", residual.vector.shape)]
    if residual.statistics:
        entries.append(Entry("statistics", (residual.statistics,), kind="statistic"))
    content = codec.decode(body, Layout.of(entries))[: len(residual.vector)]
    return Residual(residual.run, residual.layout, residual.statistics, residual.vector + content)


def seed_of(run: str, client_id: str, version: int, sequence: int) -> int:
    """The seed of an update's codec: no two of a run have the same, and a replay has it again."""
    return int.from_bytes(hashlib.sha256(f"{run}/{client_id}/{version}/{sequence}".encode()).digest()[:8], "little")
