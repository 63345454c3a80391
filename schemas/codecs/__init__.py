"""How a vector of floats becomes bytes. One codec is one file here and one line in `CODECS`."""

from __future__ import annotations

from fedmq.schemas.codecs import float16, float32
from fedmq.schemas.codecs.codec import Codec
from fedmq.schemas.errors import ProtocolError

__all__ = ["CODECS", "Codec", "codec_named"]

CODECS: dict[str, Codec] = {codec.name: codec for codec in (float32.CODEC, float16.CODEC)}


def codec_named(name: str) -> Codec:
    """The codec of this name.

    Raises:
        ProtocolError: (`malformed`) there is none.

    """
    if name not in CODECS:
        raise ProtocolError("malformed", f"codec {name!r}: expected one of {', '.join(CODECS)}")
    return CODECS[name]
