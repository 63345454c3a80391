"""`eden4`, `eden2`, `eden1`: a random rotation makes any update look Gaussian, so few levels serve it best.

Vargaftik et al. 2022, EDEN, arXiv 2108.08842; one bit is their DRIVE of 2021, arXiv 2105.08339. In blocks of 4,096, and
what is left in falling powers of two. See `docs/protocol.md` for the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedmq.schemas.codecs.codec import Codec, Encoding, Span, of_parameters, require_finite, require_size
from fedmq.schemas.codecs.rotation import flip_signs, hadamard
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Vector

__all__ = ["CODECS"]

_BLOCK = 4096
_CHUNK = 16 * _BLOCK  # what is worked on at a time stays in the cache
_SEED_BYTES = 8
_LARGEST = np.float32(2.0**100)  # of a factor, so that no sum of its block overflows
_LARGEST_NUMBER = np.float32(2.0**80)  # that is coded: 4,096 of them stay below that

# Lloyd and Max's for the standard normal distribution: the upper half of the levels, and what lies between them.
_LEVELS = {
    1: (0.797884561,),
    2: (0.452780035, 1.510417608),
    4: (0.12839503, 0.388048299, 0.656759119, 0.942340456, 1.256231197, 1.618046386, 2.069017227, 2.732589571),
}


class _Blocks(NamedTuple):
    """Neighbouring blocks of one size: where they begin in the parameters, and which blocks they are."""

    start: int
    first: int
    number: int
    size: int


def _blocks(count: int) -> Iterator[_Blocks]:
    """How so many parameters are divided, in pieces of at most _CHUNK."""
    first = start = 0
    whole = count // _BLOCK * _BLOCK
    for start in range(0, whole, _CHUNK):
        number = min(_CHUNK, whole - start) // _BLOCK
        yield _Blocks(start, first, number, _BLOCK)
        first += number
    start, size = whole, _BLOCK // 2
    while start < count:
        if count - start >= size:
            yield _Blocks(start, first, 1, size)
            start, first = start + size, first + 1
        size //= 2


def _number_of_blocks(count: int) -> int:
    return count // _BLOCK + (count % _BLOCK).bit_count()


def _eden(bits: int) -> Codec:
    name = f"eden{bits}"
    upper = np.array(_LEVELS[bits], np.float32)
    levels = np.concatenate((-upper[::-1], upper))
    between = (upper[1:] + upper[:-1]) / 2
    # What a byte of codes stands for, the lowest bits first.
    table = levels[(np.arange(256)[:, None] >> np.arange(0, 8, bits)) & (2**bits - 1)]

    def quantised(normal: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        size, code = np.abs(normal), np.full(normal.shape, len(upper), np.uint8)
        for threshold in between:
            code += size > threshold
        return np.where(normal < 0, np.uint8(2 * len(upper) - 1) - code, code)

    def encode(parameters: Vector, encoding: Encoding) -> Span:
        require_finite(name, parameters)
        factors = np.zeros(_number_of_blocks(len(parameters)), "<f4")
        packed = [encoding.seed.to_bytes(_SEED_BYTES, "little"), b""]
        rest = np.empty(0, np.uint8)  # codes of small blocks, which need not fill a byte
        for start, first, number, size in _blocks(len(parameters)):
            part = np.clip(parameters[start : start + number * size], -_LARGEST_NUMBER, _LARGEST_NUMBER)
            flip_signs(part, encoding.seed, start)
            rotated = hadamard(part.reshape(number, size))
            # Of a row x its rotated one has the length |x| sqrt(size), so that its numbers have the deviation |x|.
            squares = np.einsum("ij,ij->i", rotated, rotated, dtype=np.float64) / size
            deviation = np.sqrt(squares)
            inverse = np.divide(1.0, deviation, out=np.zeros(number), where=deviation > 1e-30)
            rotated *= inverse[:, None].astype(np.float32)
            codes = quantised(rotated)
            level = levels[codes]
            along = np.einsum("ij,ij->i", rotated, level, dtype=np.float64)
            length = size if encoding.unbiased else along
            against = along if encoding.unbiased else np.einsum("ij,ij->i", level, level, dtype=np.float64)
            stretch = np.divide(length, against, out=np.zeros(number), where=inverse > 0)
            factors[first : first + number] = stretch * deviation / size
            if size == _BLOCK:
                packed.append(_packed(codes.reshape(-1), bits))
            else:
                rest = np.concatenate((rest, codes.reshape(-1)))
        packed[1] = factors.tobytes()
        return b"".join((*packed, _packed(rest, bits)))

    def decode(data: memoryview, count: int) -> Iterator[Vector]:
        blocks = _number_of_blocks(count)
        head = _SEED_BYTES + 4 * blocks
        require_size(name, data, head + (count * bits + 7) // 8)
        seed = int.from_bytes(data[:_SEED_BYTES], "little")
        factors = np.frombuffer(data, "<f4", blocks, _SEED_BYTES)
        if not (np.isfinite(factors) & (factors >= 0) & (factors <= _LARGEST)).all():
            raise ProtocolError("malformed", f"{name}: a factor is negative, not finite, or beyond 2**100")
        codes = np.frombuffer(data, np.uint8, offset=head)
        for start, first, number, size in _blocks(count):
            end = start + number * size
            bytes_before, codes_before = divmod(start * bits, 8)
            level = table[codes[bytes_before : (end * bits + 7) // 8]].reshape(-1)
            level = level[codes_before // bits : codes_before // bits + number * size].reshape(number, size)
            level *= factors[first : first + number, None]
            part = hadamard(level).reshape(-1)
            flip_signs(part, seed, start)
            yield part

    return of_parameters(name, encode, decode, element=1, feedback=True)


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> bytes:
    per_byte = 8 // bits
    whole = np.zeros(-(-len(codes) // per_byte) * per_byte, np.uint8)
    whole[: len(codes)] = codes
    columns = whole.reshape(-1, per_byte) << np.arange(0, 8, bits, dtype=np.uint8)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(columns, axis=1, dtype=np.uint8)
    return packed.tobytes()


CODECS = tuple(_eden(bits) for bits in (4, 2, 1))
