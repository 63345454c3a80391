"""`…-zstd`: zstd (RFC 8878) over the bytes of another codec, those of each place in a number together."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedmq.schemas.codecs.codec import Codec, Encoding, Span
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.mapped import let_go

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["SUFFIX", "compressed", "with_zstd"]

SUFFIX = "-zstd"
_LEVEL = 1  # higher ones find nothing more in numbers
_WORTH = 0.97  # of the bytes: what saves less is not worth the receiver's time
_SLACK_BYTES = 64 * 1024  # beyond four bytes a float, as for any update
_WINDOW_LOG = 27  # zstd's usual limit for a decoder, 128 MiB
_BLOCK = 1 << 20  # bytes that are worked on at a time, where a second copy of everything would be too much
_AT_ONCE_BYTES = 16 << 20  # that may lie in memory twice
_LET_GO_BYTES = 4 << 20  # between two times that what was read of a mapped file may go


def compressed(codec: Codec, data: Span) -> tuple[Codec, Span]:
    """What to send of the bytes of a codec: them, or fewer bytes of the codec with zstd."""
    smaller = _compress(data, codec.element, most=_WORTH * len(data))
    return (codec, data) if smaller is None else (with_zstd(codec), smaller)


def with_zstd(codec: Codec) -> Codec:
    """The codec whose bytes are those of `codec`, compressed."""
    name = codec.name + SUFFIX

    def encode(vector: Vector, layout: Layout, encoding: Encoding) -> Span:
        compressed = _compress(codec.encode(vector, layout, encoding), codec.element)
        assert compressed is not None
        return compressed

    def decode(data: Span, layout: Layout) -> Iterator[Vector]:
        return codec.decoder(_decompress(name, data, 4 * layout.size + _SLACK_BYTES, codec.element), layout)

    return Codec(name, encode, decode, codec.element, codec.feedback)


def _compress(data: Span, element: int, most: float | None = None) -> Span | None:
    """One frame; None if it is not less than `most` bytes."""
    if element == 1 or len(data) <= _AT_ONCE_BYTES:
        frame: Span = zstd.compress(b"".join(_shuffled(data, element)) if element > 1 else data, level=_LEVEL)
        return None if most is not None and len(frame) >= most else frame
    compressor, grown = zstd.ZstdCompressor(level=_LEVEL), bytearray()  # which grows in place
    compressor.set_pledged_input_size(len(data))
    for block in _shuffled(data, element):
        grown += compressor.compress(block)
        if most is not None and len(grown) >= most:
            return None
    grown += compressor.flush()
    return None if most is not None and len(grown) >= most else memoryview(grown)


def _decompress(name: str, data: Span, most: int, element: int) -> Span:
    try:
        size = zstd.get_frame_info(data).decompressed_size
        if size is None or size > most:
            raise ProtocolError("malformed", f"{name}: {size or 'an unknown number of'} bytes, at most {most} expected")
        plain, length = np.empty(size, np.uint8), 0
        for block in _blocks(data):
            if length + len(block) <= size:
                _unshuffle(block, length, plain, element)
            length += len(block)
            if length > size:
                break
    except (zstd.ZstdError, EOFError) as error:
        raise ProtocolError("malformed", f"{name}: {error}") from error
    if length != size:
        raise ProtocolError("malformed", f"{name}: one whole frame of {size} bytes was announced")
    return plain.data


def _blocks(data: Span) -> Iterator[bytes]:
    """What one frame holds, however much that is, a block at a time. Raises ZstdError, or EOFError if it is not one."""
    decompressor = zstd.ZstdDecompressor(options={int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG})
    for start in range(0, len(data), _BLOCK):
        yield decompressor.decompress(data[start : start + _BLOCK], max_length=_BLOCK)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", max_length=_BLOCK)
        if start % _LET_GO_BYTES == 0:
            let_go(data)
    if not decompressor.eof or decompressor.unused_data:
        raise EOFError("the bytes are not one whole frame")


def _shuffled(data: Span, element: int) -> Iterator[Span]:
    """The first byte of each number, then the second of each, …, then what is no whole number."""
    numbers = np.frombuffer(data, np.uint8, len(data) // element * element).reshape(-1, element)
    for place in range(element):
        for start in range(0, len(numbers), _BLOCK):
            yield numbers[start : start + _BLOCK, place].tobytes()
    yield data[numbers.size :]


def _unshuffle(block: bytes, at: int, plain: npt.NDArray[np.uint8], element: int) -> None:
    """Put bytes that came shuffled, from place `at` on, where they belong."""
    numbers = plain[: len(plain) // element * element].reshape(-1, element)
    came = np.frombuffer(block, np.uint8)
    while len(came) and at < numbers.size:
        place, start = divmod(at, len(numbers))
        column = numbers[start : start + len(came), place]
        column[:] = came[: len(column)]
        came, at = came[len(column) :], at + len(column)
    plain[at : at + len(came)] = came
