"""What a signature covers: the topic, every byte of the header as it was sent, and the body's SHA-256.

A signed message is an unsigned one with two more keys at the end of its header, `session` and `signature`. Who knows no
keys reads it like any other. The functions that sign and verify come from outside; see `fedmq.keys`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import split

__all__ = ["AGGREGATOR", "SIGNATURE_BYTES", "Keys", "Signed", "author", "opened", "sealed"]

AGGREGATOR = "aggregator"
"""The author of everything that no device sends."""

SIGNATURE_BYTES = 93
"""By which the two keys make a message longer, one or two bytes more if the map's own head grows."""

_DOMAIN = b"fedmq-signed-1\0"
_SESSION = b"\xa7session\xcf"  # and the number in 8 bytes
_SESSIONS = 1 << 63  # as many as any reader can keep: a table of SQLite takes signed integers of 8 bytes
_SIGNATURE = b"\xa9signature\xc4\x40"  # and 64 bytes
_HASHED = ("head", "offer")  # their header has the SHA-256 of the body


@dataclass(frozen=True, slots=True)
class Keys:
    """What a side can do with its keys.

    Attributes:
        sign: the Ed25519 signature of these bytes, 64 bytes.
        verify: with which public key of this author, a client's id or `AGGREGATOR`, these bytes were signed; None if
            with none that is trusted.
        trusted: the public keys of this author that are trusted now.

    """

    sign: Callable[[bytes], bytes]
    verify: Callable[[str, bytes, bytes], str | None]
    trusted: Callable[[str], Collection[str]]


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed message, not yet verified.

    Attributes:
        session: of its author: greater with every start of its process, below 2^63.
        content: what is signed.
        signature: of it.

    """

    session: int
    content: bytes
    signature: bytes


def author(topics: Topics, topic: str) -> str:
    """Who alone may write to this topic of a federation."""
    return topics.sender(topic) or AGGREGATOR


def sealed(topic: str, payload: bytes, session: int, sign: Callable[[bytes], bytes]) -> bytes:
    """The payload, signed for this topic. It is one of ours: what its header says of the body is true."""
    view = memoryview(payload)
    fields, end = split(view)
    body = view[end:]
    # A megabyte takes a millisecond to hash, and was hashed for the header.
    known = fields["digest"] if body and fields["kind"] in _HASHED else None
    digest = bytes.fromhex(known) if known is not None else hashlib.sha256(body).digest()
    start, count = (3, int.from_bytes(payload[1:3])) if payload[0] == 0xDE else (1, payload[0] & 0x0F)
    count += 2
    head = bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2)
    header = b"".join((head, view[start:end], _SESSION, session.to_bytes(8), _SIGNATURE))
    return b"".join((header, sign(_content(topic, header, digest)), body))


def opened(topic: str, payload: bytes) -> Signed | None:
    """What is signed in a message that came on this topic; None if it is not signed.

    Raises:
        ProtocolError: (`malformed`) it has no header.

    """
    view = memoryview(payload)
    fields, end = split(view)
    session, signature = fields.get("session"), fields.get("signature")
    if type(session) is not int or not 0 <= session < _SESSIONS or not isinstance(signature, bytes):
        return None
    begin = end - 64
    if view[max(0, begin - len(_SIGNATURE)) : begin] != _SIGNATURE or view[begin:end] != signature:
        raise ProtocolError("malformed", "the signature is not what the header ends with")
    return Signed(session, _content(topic, view[:begin], hashlib.sha256(view[end:]).digest()), signature)


def _content(topic: str, header: bytes | memoryview, digest: bytes) -> bytes:
    return b"".join((_DOMAIN, topic.encode(), b"\0", header, digest))
