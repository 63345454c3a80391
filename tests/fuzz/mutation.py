"""What an enemy makes of a message: another value in a field, a field too many, bytes cut, doubled or changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgpack

from tests.fuzz.choices import Choices

__all__ = ["Fields", "altered_bytes", "altered_fields", "payload"]

Fields = dict[str, Any]


class _Raw(bytes):
    """A value as its msgpack bytes, which need not be any."""


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 63, 64, 65, 4096, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 53),
    *((1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf"), 3.4e38, "", "a", "a/b", "+", "#", "\0", "é", "\ud7ff", "a\n"),
    *("0" * 31, "0" * 32, "f" * 64, "F" * 64, "0" * 65, "x" * 64, "x" * 65, "x" * 2000, "x" * 2001, "x" * 60_000),
    *(b"", b"\0" * 64, b"x" * 2000, [], {}, [[]], {"": 0}, [0] * 64, [0] * 65, [0] * 1024, [0] * 1025, [[0, 1]] * 64),
    *([[1, 0]], [[0, (1 << 63) - 1]], {"loss": float("nan")}, {"a" * 65: 0.0}, {str(n): 0.5 for n in range(33)}),
    *({"outbox_id": "0" * 32, "sequence": 0}, {"outbox_id": "0" * 32, "sequence": (1 << 63) - 1}),
    *("online", "offline", "starting", "finished", "training", "offer", "part", "need", "head", "reply", "status"),
    *("accepted", "rejected", "id_reused", "expired", "internal"),
    *("float32", "eden4", "top_k", "float32-zstd", "pickle"),
    *(msgpack.ExtType(5, b"x"), msgpack.Timestamp(0, 0)),
    *(_Raw(b"\x91" * depth + b"\xc0") for depth in (900, 1000, 1020, 3000)),
    _Raw(b"\x81\xa0" * 2000 + b"\xc0"),
    *(_Raw(b"\xdd\xff\xff\xff\xff"), _Raw(b"\xdf\xff\xff\xff\xff"), _Raw(b"\xdb\xff\xff\xff\xff")),
    *(_Raw(b"\xc6\xff\xff\xff\xff"), _Raw(b"\xdc\xff\xff" * 100), _Raw(b"\xc9\xff\xff\xff\xff\x01"), _Raw(b"\xc1")),
    *(_Raw(b"\xa2\xff\xfe"), _Raw(b"\xa3\xed\xa0\x80"), _Raw(b"\x82\xa1a\x00\xa1a\x01"), _Raw(b"\x81\x00\x00")),
)
_MOST_ITEMS = 2000  # of a list: more would take longer to make than to refuse
_KEYS = ("unheard_of", "", "x" * 300, "session", "signature", "protocol", "kind", "plan", "evaluation", "metrics")


def payload(fields: Fields, body: bytes | memoryview = b"") -> bytes:
    """The message with these fields, whatever they are."""
    count = len(fields)
    parts = [bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2)]
    for name, value in fields.items():
        parts += [msgpack.packb(name), _packed(value)]
    return b"".join((*parts, body))


def altered_fields(fields: Fields, choices: Choices, others: Sequence[Fields] = ()) -> Fields:
    """The fields with one to three of them changed; `others` are messages to take values from."""
    fields = dict(fields)
    for _ in range(1 + choices.below(3)):
        name = choices.pick(list(fields)) if fields else "kind"
        match choices.below(8):
            case 0:
                fields.pop(name, None)
            case 1:
                fields[choices.pick(_KEYS)] = choices.pick(_VALUES)
            case 2 if others:
                other = choices.pick(others)
                name = choices.pick(list(other))
                fields[name] = other[name]
            case 3:
                fields[name] = choices.number(1 + choices.below(8))
            case 4 | 5:
                fields[name] = _altered_within(fields.get(name), choices)
            case 6 if isinstance(fields.get(name), str):
                fields[name] = altered_bytes(fields[name].encode(), choices).decode(errors="replace")
            case _:
                fields[name] = choices.pick(_VALUES)
    return fields


def altered_bytes(data: bytes, choices: Choices) -> bytes:
    """The bytes with one to three things changed in them, more often near their beginning than elsewhere."""
    altered = bytearray(data)
    for _ in range(1 + choices.below(3)):
        near = choices.below(2)
        place = (choices.byte() if near else choices.number(3)) % (len(altered) + 1)
        match choices.below(7):
            case 0 | 1 if place < len(altered):
                altered[place] ^= 1 << choices.below(8)
            case 2 if place < len(altered):
                altered[place] = choices.pick((0, 0xFF, 0x80, 0x7F, 0xC0, 0xDE, 0xDF))
            case 3:
                del altered[place : place + 1 + choices.below(16)]
            case 4:
                altered[place:place] = choices.bytes(1 + choices.below(8))
            case 5:
                del altered[place:]
            case _:
                altered[place : place + 8] = choices.pick((bytes(8), b"\xff" * 8, choices.bytes(8)))
    return bytes(altered)


def digest(body: bytes | memoryview) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def _altered_within(value: Any, choices: Choices) -> Any:
    """The same value with something in it changed."""
    if isinstance(value, dict) and value:
        name = choices.pick(list(value))
        changed = _altered_within(value[name], choices)
        return {**value, name: changed} if choices.below(4) else {n: v for n, v in value.items() if n != name}
    if isinstance(value, list | tuple) and value:
        place = choices.below(len(value))
        items = list(value)
        match choices.below(4):
            case 0:
                items = (items * (1 + choices.below(80)))[:_MOST_ITEMS]
            case 1:
                del items[place]
            case _:
                items[place] = _altered_within(items[place], choices)
        return items
    if type(value) is int and choices.below(2):
        return value + choices.pick((1, -1, 2, -2, 64, -64, 1 << 32))
    return choices.pick(_VALUES)


def _packed(value: Any) -> bytes:
    if isinstance(value, _Raw):
        return bytes(value)
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError):  # a raw value within another; a number beyond 64 bits
        packed = b"\xc0"
    return packed
