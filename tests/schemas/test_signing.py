"""The signed envelope: what was sealed is read as it was, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import Head, Offer, ProtocolMessage, Reply
from fedmq.schemas.signing import SIGNATURE_BYTES, Signed, opened, sealed
from fedmq.schemas.wire import decode, encode
from tests.generators import MESSAGES, unhurried

TOPIC = "fedmq/f/model"
every_kind = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
sessions = st.integers(0, (1 << 63) - 1)


def sign(content: bytes) -> bytes:
    """64 bytes that follow from all of the content: for a test of what is covered, as good as a signature."""
    return hashlib.sha512(content).digest()


def is_signed(signed: Signed | None) -> bool:
    return signed is not None and signed.signature == sign(signed.content)


def message_of(kind: type[ProtocolMessage], data: st.DataObject) -> tuple[ProtocolMessage, bytes]:
    """A message and a body; where the header says the body's digest, the true one."""
    message, body = data.draw(MESSAGES[kind]), data.draw(st.binary(max_size=60))
    if isinstance(message, Head | Offer):
        message = message.model_copy(update={"digest": hashlib.sha256(body).hexdigest()})
    return message, body


@every_kind
@unhurried
@given(data=st.data(), session=sessions)
def test_what_is_sealed_is_the_same_message_and_a_little_longer(
    kind: type[ProtocolMessage], data: st.DataObject, session: int
) -> None:
    message, body = message_of(kind, data)
    plain = encode(message, body)
    payload = sealed(TOPIC, plain, session, sign)
    assert len(plain) + SIGNATURE_BYTES <= len(payload) <= len(plain) + SIGNATURE_BYTES + 2
    read, rest = decode(payload, kind)
    assert (read, bytes(rest)) == (message, body)
    signed = opened(TOPIC, payload)
    assert is_signed(signed)
    assert signed is not None
    assert signed.session == session
    assert not is_signed(opened("fedmq/f/layout", payload))
    assert opened(TOPIC, plain) is None


@every_kind
@unhurried
@given(data=st.data(), session=sessions)
def test_a_signature_is_of_nothing_that_was_altered_anywhere(
    kind: type[ProtocolMessage], data: st.DataObject, session: int
) -> None:
    payload = sealed(TOPIC, encode(*message_of(kind, data)), session, sign)
    altered = bytearray(payload)
    place = data.draw(st.integers(0, len(payload) - 1))
    match data.draw(st.sampled_from(["changed", "cut", "put in", "put behind"])):
        case "changed":
            altered[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del altered[place:]
        case "put in":
            altered[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        case _:
            altered += data.draw(st.binary(min_size=1, max_size=9))
    if altered == payload:
        return  # the same byte put in beside its like
    try:
        assert not is_signed(opened(TOPIC, bytes(altered)))
    except ProtocolError as error:
        assert error.reason == "malformed"  # noqa: PT017 (opening it is right too, another exception is not)


@unhurried
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_not_signed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="header"):
        opened(TOPIC, b"\xc1" + data)
    try:
        assert not is_signed(opened(TOPIC, data))
    except ProtocolError as error:
        assert error.reason == "malformed"  # noqa: PT017


@pytest.mark.parametrize(
    "fields",
    [
        {"session": -1, "signature": b"x" * 64},
        {"session": True, "signature": b"x" * 64},
        {"session": "1", "signature": b"x" * 64},
        {"session": 1, "signature": "x" * 64},
        {"session": 1},
        {"signature": b"x" * 64},
    ],
)
def test_an_envelope_of_other_types_is_none(fields: dict[str, Any]) -> None:
    assert opened(TOPIC, msgpack.packb({"protocol": 1, **fields})) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"session": 1, "signature": b"x" * 63},
        {"session": 1, "signature": b""},
        {"session": 1, "signature": b"x" * 65},
        {"session": 1, "signature": b"x" * 64, "more": 1},
    ],
)
def test_a_signature_that_is_not_the_last_of_the_header_is_malformed(fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="not what the header ends with"):
        opened(TOPIC, msgpack.packb({"protocol": 1, **fields}))


@given(st.integers(1 << 63, (1 << 64) - 1))
def test_a_session_that_a_reader_could_not_keep_is_none(session: int) -> None:
    plain = encode(Reply(run="a" * 32, incarnation="b" * 32))
    assert opened(TOPIC, sealed(TOPIC, plain, session, sign)) is None
