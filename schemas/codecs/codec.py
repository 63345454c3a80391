"""What a codec is: a pair of pure functions with a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Layout, Vector

__all__ = ["Codec", "require_size"]


@dataclass(frozen=True, slots=True)
class Codec:
    """A named way to write a vector of a layout as bytes.

    Attributes:
        name: as it stands in heads and offers.
        encode: (vector float32 [layout.size], layout) -> bytes; a view of the vector where those are the same.
        decode: (bytes, layout) -> vector float32 [layout.size]; read-only where it is a view of the bytes.
            Raises ProtocolError (`malformed`) for bytes that are not this codec's for this layout.
        decoded: what the other side will hold, bit for bit: `decode(encode(vector))`.

    """

    name: str
    encode: Callable[[Vector, Layout], bytes | memoryview]
    decode: Callable[[bytes | memoryview, Layout], Vector]

    def decoded(self, vector: Vector, layout: Layout) -> Vector:
        """The vector as it arrives."""
        return self.decode(self.encode(vector, layout), layout)


def require_size(name: str, data: bytes | memoryview, expected: int) -> None:
    """Refuse bytes of another length than the layout needs."""
    if len(data) != expected:
        raise ProtocolError("malformed", f"{name}: {len(data)} bytes, expected {expected} for this layout")
