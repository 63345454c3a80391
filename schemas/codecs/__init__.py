"""How a vector of floats becomes bytes. One codec is one file here and one line in `CODECS`."""

from __future__ import annotations

from fedmq.schemas.codecs import bfloat16, eden, float16, float32, int8, top_k
from fedmq.schemas.codecs.codec import Codec, Encoding
from fedmq.schemas.codecs.zstd import SUFFIX, compressed, with_zstd
from fedmq.schemas.errors import ProtocolError

__all__ = ["CODECS", "Codec", "Encoding", "codec_named", "compressed"]

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        float32.CODEC,
        float16.CODEC,
        bfloat16.CODEC,
        int8.CODEC,
        *eden.CODECS,
        top_k.CODEC,
    )
}
"""By name. Each has a second one, with zstd over its bytes, whose name ends with `-zstd`."""


def codec_named(name: str) -> Codec:
    """The codec of this name.

    Raises:
        ProtocolError: (`malformed`) there is none.

    """
    codec = CODECS.get(name)
    if codec is not None:
        return codec
    codec = CODECS.get(name.removesuffix(SUFFIX))
    if codec is None:
        known = ", ".join(CODECS)
        raise ProtocolError("malformed", f"codec {name!r}: expected one of {known}, perhaps with {SUFFIX} behind it")
    return with_zstd(codec)
