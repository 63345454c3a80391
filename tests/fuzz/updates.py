"""Updates for the fuzzed federation: good ones in every codec, bad ones that say of themselves that they are good."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedmq.schemas.codecs import CODECS, codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from tests.fuzz.mutation import digest

__all__ = ["BAD", "GOOD", "LAYOUT", "PART", "PLAN", "RUN", "TOPICS", "WEIGHTS", "Body", "is_good"]

TOPICS = Topics("f")
RUN = "5a" * 16
LAYOUT = Layout.of([Entry("w", (40, 50)), Entry("b", (50,)), Entry("mean", (4,), kind="statistic")])
"""8 KB of float32: two parts of the smallest size that is taken."""

PART = 4096
"""Bytes in a part: the fewest that are taken."""

PLAN = Plan(retrain_after=5.0)


class Body(NamedTuple):
    """Bytes, and what a header says of them."""

    codec: str
    data: bytes
    digest: str

    @classmethod
    def of(cls, codec: str, data: bytes) -> Body:
        """With their own digest."""
        return cls(codec, data, digest(data))


def is_good(body: Body) -> bool:
    """Whether the bytes are a vector of the layout, of finite numbers."""
    try:
        vector = codec_named(body.codec).decode(body.data, LAYOUT)
    except ProtocolError:
        return False
    return vector.shape == (LAYOUT.size,) and bool(np.isfinite(vector).all())


def _vector(number: int, scale: float = 0.01) -> Vector:
    return (scale * np.random.default_rng(number).standard_normal(LAYOUT.size)).astype(np.float32)


def _with(value: float, place: int) -> Vector:
    vector = _vector(99)
    vector[place] = value
    return vector


def _encoded(codec: str, vector: Vector) -> Body:
    return Body.of(codec, bytes(codec_named(codec).encode(vector, LAYOUT)))


_NAMES = [name for codec in CODECS for name in (codec, f"{codec}-zstd")]
WEIGHTS = [_encoded("float32", _vector(number, 1.0)) for number in range(3)]
"""Snapshots, as an aggregator shows them."""

GOOD = [_encoded("float32", _vector(number)) for number in range(4)] * 4 + [
    _encoded(name, _vector(number)) for number, name in enumerate(_NAMES)
]
"""Updates that may count; plain float32 is half of them because it is the fastest to judge."""

BAD = [
    *(_encoded("float32", _with(value, place)) for value in (np.nan, np.inf, -np.inf, 3.4e38) for place in (0, -1)),
    *(Body.of(name, b"") for name in _NAMES),
    *(Body.of(body.codec, body.data[: len(body.data) // 2]) for body in GOOD[16:]),
    *(Body.of(body.codec, body.data + b"\0") for body in GOOD[16:]),
    Body.of("float32", bytes(4 * LAYOUT.size + 70_000)),
    Body.of("pickle", b"\x80\x04N."),
    Body.of("float32", bytes(8)),
]
"""Bytes that no update is, under their true digests; some of the large numbers may pass, as numbers that are finite."""
