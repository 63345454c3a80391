"""`top_k`: the largest parameters alone, as int8, and where they stand. Aji & Heafield 2017, arXiv 1704.05021.

Where they stand is coded as Elias and Fano do, in about 2 + log2(parameters / kept) bits each. See `docs/protocol.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedmq.schemas.codecs.codec import Encoding, Span, joined, of_parameters, require_finite
from fedmq.schemas.codecs.int8 import decode_bytes, encode_bytes
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Vector

__all__ = ["CODEC"]

_COUNT_BYTES = 8
_CHUNK = 1 << 16


def _largest(parameters: Vector, count: int) -> npt.NDArray[np.int64]:
    """The places of so many of the largest, in order; of equal ones the first."""
    if count == len(parameters):
        return np.arange(count)
    sizes = np.abs(parameters)
    sizes.partition(len(sizes) - count)
    threshold = sizes[len(sizes) - count]
    above, equal = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(parameters), _CHUNK):
        size = np.abs(parameters[start : start + _CHUNK])
        above.append(np.flatnonzero(size > threshold) + start)
        equal.append(np.flatnonzero(size == threshold) + start)
    most = np.concatenate(above)
    return np.sort(np.concatenate((most, np.concatenate(equal)[: count - len(most)])))


def _low_bits(total: int, count: int) -> int:
    """Of a place that are written as they are."""
    return max(0, (total // count).bit_length() - 1) if count else 0


def _upper_bits(total: int, count: int, low: int) -> int:
    return count + (total >> low)


def _encode(parameters: Vector, encoding: Encoding) -> Span:
    require_finite("top_k", parameters)
    total = len(parameters)
    count = min(total, max(1, math.ceil(encoding.top_k_fraction * total)))
    places = _largest(parameters, count)
    low = _low_bits(total, count)
    upper = np.zeros(_upper_bits(total, count, low), np.uint8)
    upper[(places >> low) + np.arange(count)] = 1
    lower = ((places[:, None] >> np.arange(low)) & 1).astype(np.uint8)
    return b"".join(
        (
            count.to_bytes(_COUNT_BYTES, "little"),
            np.packbits(upper, bitorder="little").tobytes(),
            np.packbits(lower, bitorder="little").tobytes(),
            encode_bytes(parameters[places], encoding),
        )
    )


def _decode(data: memoryview, total: int) -> Iterator[Vector]:
    count = int.from_bytes(data[:_COUNT_BYTES], "little")
    # Each costs more than a byte, so what is read below is bounded by what came.
    if len(data) < _COUNT_BYTES or count > min(total, len(data)) or (count == 0) != (total == 0):
        raise ProtocolError("malformed", f"top_k: {len(data)} bytes announce {count} of {total} parameters")
    low = _low_bits(total, count)
    bits = _upper_bits(total, count, low)
    lower_at = _COUNT_BYTES + (bits + 7) // 8
    values_at = lower_at + (count * low + 7) // 8
    if len(data) < values_at:
        raise ProtocolError("malformed", f"top_k: {len(data)} bytes end before the places of {count} parameters do")
    set_bits = np.flatnonzero(_bits(data[_COUNT_BYTES:lower_at], bits))
    if len(set_bits) != count:
        raise ProtocolError("malformed", f"top_k: {len(set_bits)} places for {count} parameters")
    places = (set_bits - np.arange(count)) << low
    lower = _bits(data[lower_at:values_at], count * low).reshape(count, low)
    for bit in range(low):
        places |= lower[:, bit].astype(np.int64) << bit
    if count and (places[-1] >= total or (np.diff(places) <= 0).any()):
        raise ProtocolError("malformed", "top_k: places are not in order, or beyond the last parameter")
    values = joined(decode_bytes("top_k", data[values_at:], count), count)
    for start in range(0, total, _CHUNK):
        piece = np.zeros(min(_CHUNK, total - start), np.float32)
        first, last = np.searchsorted(places, (start, start + len(piece)))
        piece[places[first:last] - start] = values[first:last]
        yield piece


def _bits(data: memoryview, count: int) -> npt.NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little")


CODEC = of_parameters("top_k", _encode, _decode, element=1, feedback=True)
