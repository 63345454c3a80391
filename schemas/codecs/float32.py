"""`float32`: every float as four bytes, little-endian. Exact; both ways a view of the same memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedmq.schemas.codecs.codec import Codec, Encoding, Span, require_size
from fedmq.schemas.layout import Layout, Vector

__all__ = ["CODEC"]

_ON_THE_WIRE = np.dtype("<f4")


def _encode(vector: Vector, layout: Layout, encoding: Encoding) -> Span:
    return np.ascontiguousarray(vector, _ON_THE_WIRE).view(np.uint8).data


def _decode(data: Span, layout: Layout) -> Iterator[Vector]:
    require_size("float32", data, 4 * layout.size)
    # Not a generator: to begin one and to end it takes longer than the view.
    return iter((np.frombuffer(data, _ON_THE_WIRE).astype(np.float32, copy=False),))


CODEC = Codec("float32", _encode, _decode, element=4)
