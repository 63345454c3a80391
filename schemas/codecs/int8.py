"""`int8`: a scale for every 256 floats, then a signed byte for each. See `docs/protocol.md` for the bytes.

A scale is a bfloat16, which has float32's range: a float16 holds neither blocks of 1e-9 nor of 1e6. It is rounded up,
so that no number of its block exceeds 127 of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedmq.schemas.codecs.bfloat16 import widen
from fedmq.schemas.codecs.codec import Encoding, of_parameters, require_size
from fedmq.schemas.codecs.splitmix import uniform
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Vector

__all__ = ["CODEC", "decode_bytes", "encode_bytes"]

BLOCK = 256
_CHUNK = 256 * BLOCK  # what is worked on at a time stays in the cache
_LARGEST = np.uint16(0x7B80)  # of a scale: 2**120, so that 128 of it is finite


def encode_bytes(values: Vector, encoding: Encoding) -> bytes:
    """The bytes of these floats. Raises ProtocolError (`not_finite`)."""
    blocks = -(-len(values) // BLOCK)
    scales = np.empty(blocks, "<u2")
    codes = np.empty(len(values), np.int8)
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        block = np.zeros(-(-len(chunk) // BLOCK) * BLOCK, np.float32)
        block[: len(chunk)] = chunk
        rows = block.reshape(-1, BLOCK)
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        if not np.isfinite(largest).all():
            raise ProtocolError("not_finite", "int8 cannot carry a NaN or an infinity")
        halves = _rounded_up(largest / np.float32(127))
        scales[start // BLOCK : start // BLOCK + len(halves)] = halves
        exact = np.empty(len(halves), np.float32)
        widen(halves, exact)
        # A block of numbers so small that the inverse would be infinite is a block of zeros.
        rows *= np.divide(np.float32(1), exact, out=np.zeros_like(exact), where=exact > 1e-37)[:, None]
        np.clip(rows, -127, 127, out=rows)
        if encoding.unbiased:
            rows += uniform(encoding.seed, start, rows.size).reshape(rows.shape)
            np.floor(rows, out=rows)
            np.minimum(rows, 127, out=rows)  # 127 and almost 1 are 128 in float32
        else:
            np.rint(rows, out=rows)
        codes[start : start + len(chunk)] = block[: len(chunk)]
    return b"".join((scales.data, codes.data))


def decode_bytes(name: str, data: memoryview, count: int) -> Iterator[Vector]:
    """So many floats of these bytes, in pieces. Raises ProtocolError (`malformed`)."""
    blocks = -(-count // BLOCK)
    require_size(name, data, 2 * blocks + count)
    halves = np.frombuffer(data, "<u2", blocks)
    if blocks and halves.max() > _LARGEST:
        raise ProtocolError("malformed", f"{name}: a scale is negative, not finite, or beyond 2**120")
    scales = np.empty(blocks, np.float32)
    widen(halves, scales)
    codes = np.frombuffer(data, np.int8, count, 2 * blocks)
    for start in range(0, count, _CHUNK):
        piece = codes[start : start + _CHUNK].astype(np.float32)
        whole = len(piece) // BLOCK * BLOCK
        rows = piece[:whole].reshape(-1, BLOCK)
        rows *= scales[start // BLOCK : (start + whole) // BLOCK, None]
        if whole < len(piece):
            piece[whole:] *= scales[-1]
        yield piece


def _rounded_up(scales: Vector) -> npt.NDArray[np.uint16]:
    bits = scales.view(np.uint32) + np.uint32(0xFFFF)
    halves: npt.NDArray[np.uint16] = np.minimum(bits >> np.uint32(16), np.uint32(_LARGEST)).astype("<u2")
    return halves


def _decode(data: memoryview, count: int) -> Iterator[Vector]:
    return decode_bytes("int8", data, count)


CODEC = of_parameters("int8", encode_bytes, _decode, element=1, feedback=True)
