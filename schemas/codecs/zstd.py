"""`…-zstd`: zstd (RFC 8878) over the bytes of another codec, those of each place in a number together."""

from __future__ import annotations

import sys

import numpy as np

from fedmq.schemas.codecs.codec import Codec, Encoding, Span
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Layout, Vector

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


def compressed(codec: Codec, data: Span) -> tuple[Codec, Span]:
    """What to send of the bytes of a codec: them, or fewer bytes of the codec with zstd."""
    smaller = _compress(data, codec.element)
    return (with_zstd(codec), smaller) if len(smaller) < _WORTH * len(data) else (codec, data)


def with_zstd(codec: Codec) -> Codec:
    """The codec whose bytes are those of `codec`, compressed."""
    name = codec.name + SUFFIX

    def encode(vector: Vector, layout: Layout, encoding: Encoding) -> Span:
        return _compress(codec.encode(vector, layout, encoding), codec.element)

    def decode(data: Span, layout: Layout) -> Vector:
        return codec.decode(_decompress(name, data, 4 * layout.size + _SLACK_BYTES, codec.element), layout)

    return Codec(name, encode, decode, codec.element, codec.feedback)


def _compress(data: Span, element: int) -> bytes:
    return zstd.compress(_shuffled(data, element), level=_LEVEL)


def _decompress(name: str, data: Span, most: int, element: int) -> bytes:
    try:
        size = zstd.get_frame_info(data).decompressed_size
        if size is None or size > most:
            raise ProtocolError("malformed", f"{name}: {size or 'an unknown number of'} bytes, at most {most} expected")
        limits = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
        decompressor = zstd.ZstdDecompressor(options=limits)
        plain = decompressor.decompress(data, max_length=size + 1)
    except zstd.ZstdError as error:
        raise ProtocolError("malformed", f"{name}: {error}") from error
    if len(plain) != size or not decompressor.eof or decompressor.unused_data:
        raise ProtocolError("malformed", f"{name}: one whole frame of {size} bytes was announced")
    return _unshuffled(plain, element)


def _shuffled(data: Span, element: int) -> Span:
    whole = len(data) // element * element
    if element == 1 or not whole:
        return data
    planes = np.frombuffer(data, np.uint8, whole).reshape(-1, element).T
    return planes.tobytes() + bytes(data[whole:])


def _unshuffled(data: bytes, element: int) -> bytes:
    whole = len(data) // element * element
    if element == 1 or not whole:
        return data
    planes = np.frombuffer(data, np.uint8, whole).reshape(element, -1).T
    return planes.tobytes() + data[whole:]
