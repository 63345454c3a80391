"""Whether an update may touch the model: in a fixed order, each refusal with its own reason. Nothing has effects."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.base_snapshots import nearest
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.folding import LARGEST, is_bounded
from fedmq.aggregator.quarantine import QuarantineRule
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.mapped import blocks
from fedmq.schemas.messages import Offer

__all__ = ["Rules", "admit_body", "admit_header"]

_SLACK_BYTES = 64 * 1024  # of an encoded update beyond its floats: heads, seeds and scales of any codec are far less
_AT_ONCE = 8 << 20  # floats of a model that are decoded into one vector


@dataclass(frozen=True, slots=True)
class Rules:
    """What this run takes.

    Attributes:
        run: its id.
        layout: what every update must have.
        task_versions: the task versions that are admitted; None for any.
        max_staleness: in versions; None for no bound.
        longest: the bound on the norm of an update's delta; None for none.
        allowance: how many updates of each client may count.
        quarantine: for clients that send what no honest one does; None for none.

    """

    run: str
    layout: Layout
    task_versions: frozenset[str] | None = None
    max_staleness: int | None = None
    longest: Bound | None = None
    allowance: Allowance = field(default_factory=Allowance)
    quarantine: QuarantineRule | None = None

    @property
    def most_bytes(self) -> int:
        """What an encoded update may take."""
        return 4 * self.layout.size + _SLACK_BYTES


def admit_header(offer: Offer, rules: Rules, version: int, held: Collection[int] | None) -> None:
    """Refuse what can be refused before its bytes are here.

    Args:
        offer: its header; its client and its place in the ledger are checked already.
        rules: what this run takes.
        version: the present version.
        held: for strategies that mix, the versions whose weights the aggregator has; None if it needs none.

    Raises:
        ProtocolError: it is refused; `reason` is what its sender reads.

    """
    if offer.run != rules.run:
        raise ProtocolError("wrong_run", f"run {offer.run[:8]}…, this is run {rules.run[:8]}…; take the newest model")
    if rules.task_versions is not None and offer.task_version not in rules.task_versions:
        admitted = ", ".join(sorted(rules.task_versions))
        raise ProtocolError("task_version", f"task version {offer.task_version!r}, admitted: {admitted}")
    if offer.layout != rules.layout.digest:
        raise ProtocolError(
            "layout", "the update's model has other entries than this run's; compare with the layout topic"
        )
    if offer.base_version > version:
        raise ProtocolError("unknown_base", f"base version {offer.base_version}, the newest is {version}")
    staleness = version - offer.base_version
    if rules.max_staleness is not None and staleness > rules.max_staleness:
        raise ProtocolError("too_stale", f"staleness {staleness}, the plan's bound is {rules.max_staleness}")
    if held is not None and nearest(held, offer.base_version) is None:
        raise ProtocolError(
            "unknown_base", f"base version {offer.base_version} is older than all weights that are held"
        )
    most = rules.most_bytes
    if offer.size > most:
        raise ProtocolError("too_large", f"{offer.size} bytes of update, no codec needs more than {most} here")
    codec_named(offer.codec)


def admit_body(offer: Offer, body: memoryview, rules: Rules, digest: str | None = None) -> Iterable[tuple[int, Vector]]:
    """The vector of an update whose header is admitted, float32 [layout.size], in pieces with their places.

    Delta of the parameters, trained values of the statistics. Nothing is raised once the first piece is there.

    Args:
        offer: its header.
        body: the encoded update.
        rules: what this run takes.
        digest: of the body, where it is known already.

    Raises:
        ProtocolError: it is refused; `reason` is what its sender reads.

    """
    if len(body) != offer.size or (digest or hashlib.sha256(body).hexdigest()) != offer.digest:
        raise ProtocolError("malformed", f"{len(body)} bytes of update do not have the announced size and digest")
    codec, layout = codec_named(offer.codec), rules.layout
    if layout.size <= _AT_ONCE:
        whole = codec.decode(body, layout)
        _require_bounds(whole)
        return [(0, whole)]
    known: Vector | None = None
    for _, piece in codec.pieces(body, layout):
        for _, block in blocks(piece):
            _require_bounds(block)
        if len(piece) == layout.size:
            known = piece
    # Decoded a second time, which takes seconds for a gigabyte, where all of it would be a third vector in memory.
    return codec.pieces(body, layout) if known is None else blocks(known)


def _require_bounds(vector: Vector) -> None:
    if not is_bounded(vector):
        raise ProtocolError("not_finite", f"the update has a NaN, an infinity, or a number beyond {LARGEST:g}")
