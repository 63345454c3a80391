"""What a codec is: a pair of pure functions with a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Layout, Vector

__all__ = ["Codec", "Encoding", "Span", "joined", "of_parameters", "require_finite", "require_size"]

Span = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Encoding:
    """What an encoder may be told; a decoder needs none of it.

    Attributes:
        unbiased: the error of each number is zero in the mean, for a greater error in all: `int8` rounds at random,
            `eden` scales to keep the length. With error feedback the smaller error is better.
        top_k_fraction: of the parameters that `top_k` sends, in (0, 1].
        seed: of whatever is random.

    """

    unbiased: bool = False
    top_k_fraction: float = 0.07
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Codec:
    """A named way to write a vector of a layout as bytes.

    Attributes:
        name: as it stands in heads and offers.
        encoder: (vector float32 [layout.size], layout, encoding) -> bytes; a view where those are the vector's own.
            Raises ProtocolError (`not_finite`) where a codec cannot carry an infinity or a NaN.
        decoder: (bytes, layout) -> the vector, float32 [layout.size], in pieces from front to back, read-only where
            they are views of the bytes. Raises ProtocolError (`malformed`), before the first piece, for bytes that are
            not this codec's for this layout.
        element: bytes of what it mostly writes: zstd finds more in the first, then the second, … byte of all.
        feedback: so much is lost that the sender should add it to what it sends next.

    """

    name: str
    encoder: Callable[[Vector, Layout, Encoding], Span]
    decoder: Callable[[Span, Layout], Iterator[Vector]]
    element: int
    feedback: bool = False

    def encode(self, vector: Vector, layout: Layout, encoding: Encoding = Encoding()) -> Span:
        """The vector as bytes, the same for the same arguments."""
        return self.encoder(vector, layout, encoding)

    def decoded(self, vector: Vector, layout: Layout, encoding: Encoding = Encoding()) -> Vector:
        """The vector as it arrives."""
        return self.decode(self.encode(vector, layout, encoding), layout)

    def decode(self, data: Span, layout: Layout) -> Vector:
        """The vector in these bytes, the same bits on every machine."""
        return joined(self.decoder(data, layout), layout.size)

    def pieces(self, data: Span, layout: Layout) -> Iterator[tuple[int, Vector]]:
        """The same, for who has no room for all of it at once: pieces, and where each begins."""
        start = 0
        for piece in self.decoder(data, layout):
            yield start, piece
            start += len(piece)


def of_parameters(
    name: str,
    encode: Callable[[Vector, Encoding], Span],
    decode: Callable[[memoryview, int], Iterator[Vector]],
    *,
    element: int,
    feedback: bool,
) -> Codec:
    """A codec for parameters, behind whose bytes statistics follow as float32: they are few, and no sum of them mends.

    Args:
        name: of the codec.
        encode: parameters, float32, as bytes.
        decode: bytes, and how many parameters -> these in pieces, each a new array or a view of the bytes.
        element: see Codec.
        feedback: see Codec.

    """

    def encoder(vector: Vector, layout: Layout, encoding: Encoding) -> Span:
        split = layout.parameter_size
        if split == layout.size:
            return encode(vector, encoding)
        return b"".join((encode(vector[:split], encoding), vector[split:].astype("<f4", copy=False).tobytes()))

    def decoder(data: Span, layout: Layout) -> Iterator[Vector]:
        statistics = layout.size - layout.parameter_size
        split = len(data) - 4 * statistics
        if split < 0:
            raise ProtocolError("malformed", f"{name}: {len(data)} bytes do not hold {statistics} statistics")
        yield from decode(memoryview(data)[:split], layout.parameter_size)
        if statistics:
            yield np.frombuffer(data, "<f4", statistics, split).astype(np.float32, copy=False)

    return Codec(name, encoder, decoder, element, feedback)


def joined(pieces: Iterable[Vector], size: int) -> Vector:
    """One vector, float32 [size], of its pieces; not copied if it is one piece."""
    vector: Vector | None = None
    start = 0
    for piece in pieces:
        if len(piece) == size:
            return piece
        vector = np.empty(size, np.float32) if vector is None else vector
        vector[start : start + len(piece)] = piece
        start += len(piece)
    return np.empty(size, np.float32) if vector is None else vector


def require_size(name: str, data: Span, expected: int) -> None:
    """Refuse bytes of another length than the layout needs."""
    if len(data) != expected:
        raise ProtocolError("malformed", f"{name}: {len(data)} bytes, expected {expected} for this layout")


def require_finite(name: str, vector: Vector) -> None:
    """Refuse to encode a NaN or an infinity. Raises ProtocolError (`not_finite`)."""
    # Either is in the sum, and float32s cannot overflow float64.
    if not np.isfinite(vector.sum(dtype=np.float64)):
        raise ProtocolError("not_finite", f"{name} cannot carry a NaN or an infinity")
