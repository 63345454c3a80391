"""Messages to bytes and back: the single place where it happens.

A payload is one msgpack map, the header, and behind it the body, if there is one, as it is. So the header is small and
strict, and megabytes of weights are never copied or parsed.
"""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import PROTOCOL, ProtocolMessage

__all__ = ["HEADER_LIMIT", "decode", "encode", "pack", "split"]

HEADER_LIMIT = 64 * 1024
"""Bytes of header that a reader looks at; a longer one is refused."""

_ARRAY_LIMIT = 1024  # items; msgpack takes memory for what an array's head announces, before it is there
_USUAL_BYTES = 1024  # of a header; the bytes behind it are a body, which need not be copied to look for its end

_BY_KIND = {message.model_fields["kind"].default: message for message in ProtocolMessage.__subclasses__()}

# To make one takes a third of what unpacking a header takes; each is in one thread's hands until it is put back.
_idle_unpackers: list[msgpack.Unpacker] = []

M = TypeVar("M", bound=ProtocolMessage)


def encode(message: ProtocolMessage, body: bytes | memoryview = b"") -> bytes:
    """The payload of a message and its body. The limits in the messages keep every header below HEADER_LIMIT."""
    return pack(message.model_dump(exclude_none=True), body)


def pack(fields: dict[str, Any], body: bytes | memoryview = b"") -> bytes:
    """The payload of a message with these fields, in the order of its model, without those that are None."""
    header: bytes = msgpack.packb(fields)
    assert len(header) <= HEADER_LIMIT, f"{fields['kind']}: a header of {len(header)} bytes"
    return b"".join((header, body)) if body else header


def decode(payload: bytes, *expected: type[M]) -> tuple[M, memoryview]:
    """The message and a view of its body.

    Args:
        payload: what came.
        expected: the types that it may have.

    Raises:
        ProtocolError: (`malformed`) it has no header; (`schema`) it is none of these, the sentence names the field.

    """
    view = memoryview(payload)
    header, end = split(view)
    if header.get("protocol") != PROTOCOL:
        raise ProtocolError(
            "schema", f"protocol {_short(header.get('protocol'))}, expected {PROTOCOL}: update the older side"
        )
    kind = expected[0] if len(expected) == 1 else _of_kind(header.get("kind"), expected)
    try:
        # `model_validate` calls this, and takes a fifth longer.
        return kind.__pydantic_validator__.validate_python(header), view[end:]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=True)[0]
        field = ".".join(str(part) for part in first["loc"])[:100] or "message"
        said = first["msg"][:200]  # a validator of ours may quote what it found
        raise ProtocolError("schema", f"{field}: {said}, found {_short(first.get('input'))}") from error


def split(view: memoryview) -> tuple[dict[Any, Any], int]:
    """The header as it is, whatever it says, and where it ends; raises ProtocolError (`malformed`) if there is none."""
    try:
        header, end = _unpacked(view)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        found = str(error) or type(error).__name__
        raise ProtocolError(
            "malformed", f"the header is not one msgpack map of at most {HEADER_LIMIT} bytes: {found}"
        ) from error
    if not isinstance(header, dict):
        raise ProtocolError("malformed", f"the header is a {type(header).__name__}, expected a msgpack map")
    return header, end


def _unpacked(view: memoryview) -> tuple[Any, int]:
    """What the header is, and where it ends."""
    try:
        unpacker = _idle_unpackers.pop()
    except IndexError:
        unpacker = msgpack.Unpacker(
            max_buffer_size=HEADER_LIMIT,
            max_array_len=_ARRAY_LIMIT,
            use_list=False,
            strict_map_key=True,
            ext_hook=_refuse_extension,
        )
    begun, fed = unpacker.tell(), min(len(view), _USUAL_BYTES)
    unpacker.feed(view[:fed])
    try:
        header = unpacker.unpack()
    except msgpack.OutOfData:
        unpacker.feed(view[fed:HEADER_LIMIT])
        return unpacker.unpack(), unpacker.tell() - begun  # too full of what follows to be used again
    end = unpacker.tell() - begun
    unpacker.read_bytes(fed - end)
    _idle_unpackers.append(unpacker)
    return header, end


def _of_kind(kind: object, expected: tuple[type[M], ...]) -> type[M]:
    found: Any = _BY_KIND.get(kind) if isinstance(kind, str) else None
    if found in expected:
        return found  # type: ignore[no-any-return]
    kinds = ", ".join(repr(message.model_fields["kind"].default) for message in expected)
    raise ProtocolError("schema", f"kind: expected one of {kinds}, found {_short(kind)}")


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not part of the protocol")


def _short(value: object) -> str:
    text = reprlib.repr(value)  # goes a few levels deep: a plain repr fails on what is nested a thousand deep
    return text if len(text) <= 60 else text[:57] + "..."
