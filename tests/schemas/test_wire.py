"""Messages to bytes and back; and whatever else comes in is refused, never more than that."""

from __future__ import annotations

import tracemalloc
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import ClientStatus, Head, Offer, Part, Progress, ProtocolMessage
from fedmq.schemas.plan import Plan
from fedmq.schemas.wire import HEADER_LIMIT, decode, encode
from tests.generators import MESSAGES, unhurried

every_kind = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)

OFFER: dict[str, Any] = {
    "protocol": 1,
    "kind": "offer",
    "run": "0" * 32,
    "client_id": "alice",
    "update": {"outbox_id": "1" * 32, "sequence": 0},
    "base_version": 3,
    "layout": "2" * 64,
    "codec": "float32",
    "size": 8,
    "digest": "3" * 64,
    "num_samples": 10,
}
HEAD: dict[str, Any] = {
    "protocol": 1,
    "kind": "head",
    "run": "0" * 32,
    "version": 3,
    "plan": {},
    "layout": "2" * 64,
    "codec": "float32",
    "size": 8,
    "digest": "3" * 64,
}


def refusal_of(payload: bytes, kind: type[ProtocolMessage] = Offer, reason: str = "schema") -> str:
    """The sentence with which this payload is refused; without a header it is `malformed`."""
    with pytest.raises(ProtocolError) as refusal:
        decode(payload, kind)
    assert refusal.value.reason == reason
    return str(refusal.value)


def test_every_message_type_is_drawn_here() -> None:
    assert set(MESSAGES) == set(ProtocolMessage.__subclasses__())


@every_kind
@unhurried
@given(data=st.data(), body=st.binary(max_size=300))
def test_a_message_and_its_body_come_back_as_they_were(
    kind: type[ProtocolMessage], data: st.DataObject, body: bytes
) -> None:
    message = data.draw(MESSAGES[kind])
    back, rest = decode(encode(message, body), kind)
    assert back == message
    assert bytes(rest) == body


def test_the_body_is_a_view_of_the_payload_and_not_a_copy() -> None:
    payload = msgpack.packb(OFFER) + b"12345678"
    _, body = decode(payload, Offer)
    assert isinstance(body, memoryview)
    assert body.obj is payload
    assert bytes(body) == b"12345678"


def test_a_body_of_megabytes_does_not_count_as_header() -> None:
    _, body = decode(msgpack.packb(OFFER) + bytes(4 << 20), Offer)
    assert len(body) == 4 << 20


some_header = st.builds(
    lambda size, cut: msgpack.packb(OFFER | {"unheard_of": "x" * size})[: -cut or None],
    st.one_of(st.integers(0, 1100), st.integers(HEADER_LIMIT - 600, HEADER_LIMIT)),
    st.sampled_from([0, 0, 1, 40]),
)


@unhurried
@given(st.lists(st.tuples(some_header, st.binary(max_size=40)), min_size=2, max_size=6))
def test_what_came_before_changes_nothing_of_what_is_read(payloads: list[tuple[bytes, bytes]]) -> None:
    for header, body in payloads:
        try:
            whole = len(header) <= HEADER_LIMIT and msgpack.unpackb(header) is not None
        except ValueError:
            _decoded_or_malformed(header + body, Offer)  # it is cut, and the body may complete it
            continue
        if whole:
            offer, rest = decode(header + body, Offer)
            assert offer == Offer.model_validate(OFFER)
            assert bytes(rest) == body
        else:
            refusal_of(header + body, reason="malformed")


@every_kind
@unhurried
@given(data=st.data())
def test_a_header_cut_anywhere_is_malformed(kind: type[ProtocolMessage], data: st.DataObject) -> None:
    payload = encode(data.draw(MESSAGES[kind]))
    refusal_of(payload[: data.draw(st.integers(0, len(payload) - 1))], kind, "malformed")


@every_kind
@unhurried
@given(data=st.data())
def test_a_damaged_message_is_another_message_or_malformed(kind: type[ProtocolMessage], data: st.DataObject) -> None:
    payload = bytearray(encode(data.draw(MESSAGES[kind])))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    _decoded_or_malformed(bytes(payload), kind)


@every_kind
@unhurried
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(kind: type[ProtocolMessage], data: bytes) -> None:
    with pytest.raises(ProtocolError) as refusal:
        decode(data, kind)
    assert refusal.value.reason in ("malformed", "schema")


garbage = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=9) | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9) | st.binary(max_size=9), inner),
    max_leaves=20,
)  # fmt: skip


@every_kind
@unhurried
@given(data=st.data(), nonsense=garbage)
def test_garbage_in_any_field_is_malformed_or_ignored(
    kind: type[ProtocolMessage], data: st.DataObject, nonsense: object
) -> None:
    header = data.draw(MESSAGES[kind]).model_dump(exclude_none=True)
    field = data.draw(st.sampled_from([*header, "unheard_of"]))
    inner = header.get(field)
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        header[field] = {**inner, data.draw(st.sampled_from(list(inner))): nonsense}
    else:
        header[field] = nonsense
    _decoded_or_malformed(msgpack.packb(header), kind)


@pytest.mark.parametrize("depth", [1, 100, 500, 900, 990, 1000, 1010, 1020, 1024, 2000, 60_000])
@pytest.mark.parametrize("field", ["protocol", "kind", "metrics", "unheard_of"])
def test_nesting_of_any_depth_is_malformed_or_ignored(field: str, depth: int) -> None:
    nested = b"\x91" * depth + b"\xc0"
    header = {name: value for name, value in OFFER.items() if name != field}
    payload = bytes([0x80 + len(header) + 1]) + b"".join(
        msgpack.packb(part) for pair in header.items() for part in pair
    )
    _decoded_or_malformed(payload + msgpack.packb(field) + nested, Offer)


def test_announced_array_lengths_take_no_memory_before_their_items_are_there() -> None:
    hostile = b"\x82" + msgpack.packb("protocol") + b"\x01" + msgpack.packb("kind") + b"\xdc\xff\xff" * 1000
    tracemalloc.start()
    try:
        refusal_of(hostile, reason="malformed")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20  # 80 MB if they were believed


def test_a_header_of_exactly_the_limit_is_read_and_one_byte_more_is_refused() -> None:
    room = HEADER_LIMIT - len(msgpack.packb({**OFFER, "padding": "x" * 60_000}))
    fits = msgpack.packb({**OFFER, "padding": "x" * (60_000 + room)})
    assert len(fits) == HEADER_LIMIT
    assert decode(fits + b"body", Offer)[0].client_id == "alice"
    long = msgpack.packb({**OFFER, "padding": "x" * (60_000 + room + 1)}) + b"body"
    assert str(HEADER_LIMIT) in refusal_of(long, reason="malformed")


def test_an_extension_type_is_refused() -> None:
    extended = msgpack.packb({**OFFER, "anything": msgpack.ExtType(7, b"x")})
    assert "extension type 7" in refusal_of(extended, reason="malformed")


@pytest.mark.parametrize("value", [[1, 2], "text", 5, None, b"bytes"])
def test_a_header_that_is_no_map_is_refused_with_what_it_is(value: object) -> None:
    assert "expected a msgpack map" in refusal_of(msgpack.packb(value), reason="malformed")


@pytest.mark.parametrize("theirs", [2, 0, "1", None])
def test_another_protocol_is_refused_with_both_numbers(theirs: object) -> None:
    assert refusal_of(msgpack.packb({**OFFER, "protocol": theirs})) == (
        f"protocol {theirs!r}, expected 1: update the older side"
    )


def test_another_kind_of_message_is_refused() -> None:
    assert refusal_of(msgpack.packb(HEAD), Offer).startswith("kind: Input should be 'offer', found 'head'")
    with pytest.raises(ProtocolError, match=r"^kind: expected one of 'offer', 'part', found 'head'$"):
        decode(msgpack.packb(HEAD), Offer, Part)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"client_id": "al/ice"}, "client_id"),
        ({"run": "0" * 31}, "run"),
        ({"run": "A" * 32}, "run"),
        ({"layout": "2" * 65}, "layout"),
        ({"base_version": -1}, "base_version"),
        ({"base_version": 1 << 63}, "base_version"),
        ({"base_version": 3.0}, "base_version"),
        ({"base_version": "3"}, "base_version"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": True}, "num_samples"),
        ({"update": {"outbox_id": "1" * 32}}, "update.sequence"),
        ({"update": {"outbox_id": "1" * 32, "sequence": None}}, "update.sequence"),
        ({"metrics": {"loss": float("nan")}}, "metrics.loss"),
        ({"metrics": {"loss": float("inf")}}, "metrics.loss"),
        ({"metrics": {"loss": "0.1"}}, "metrics.loss"),
        ({"metrics": {str(number): 0.0 for number in range(33)}}, "metrics"),
        ({"evaluation": {"num_samples": 1, "metrics": {"accuracy": float("-inf")}}}, "evaluation.metrics.accuracy"),
        ({"task_version": "v" * 129}, "task_version"),
    ],
)
def test_a_field_out_of_bounds_is_named(changed: dict[str, Any], field: str) -> None:
    sentence = refusal_of(msgpack.packb(OFFER | changed))
    assert sentence.startswith(f"{field}: ")
    assert ", found " in sentence


def test_a_missing_field_is_named() -> None:
    del (header := dict(OFFER))["digest"]
    assert refusal_of(msgpack.packb(header)).startswith("digest: Field required")


def test_the_sentence_stays_short_whatever_was_sent() -> None:
    assert len(refusal_of(msgpack.packb(OFFER | {"codec": "x" * 50_000}))) < 300
    assert len(refusal_of(msgpack.packb(OFFER | {"protocol": "x" * 50_000}))) < 300
    assert len(refusal_of(msgpack.packb(OFFER | {"metrics": {"x" * 50_000: 1.0}}))) < 300
    assert len(refusal_of(msgpack.packb(HEAD | {"plan": {"codec": "x" * 50_000}}), Head)) < 300
    assert len(refusal_of(msgpack.packb(OFFER | {"codec": [["x" * 30] * 6] * 6 * 6}))) < 300


def test_a_field_that_is_not_known_is_ignored_so_that_old_readers_read_new_writers() -> None:
    offer, _ = decode(msgpack.packb({**OFFER, "priority": "high"}), Offer)
    assert offer.base_version == 3


def test_a_plan_with_a_key_that_is_not_known_is_refused_because_it_changes_the_others() -> None:
    assert decode(msgpack.packb(HEAD), Head)[0].plan == Plan()
    assert refusal_of(msgpack.packb(HEAD | {"plan": {"gradient_clipping": 1}}), Head).startswith(
        "plan.gradient_clipping: "
    )


def test_a_key_that_is_no_text_is_refused() -> None:
    header: dict[Any, Any] = {**OFFER, 5: "five"}
    assert "int is not allowed for map key" in refusal_of(msgpack.packb(header), reason="malformed")


@every_kind
def test_no_number_of_any_message_may_be_nan_or_infinite(kind: type[ProtocolMessage]) -> None:
    # Every model refuses them by itself, so that a field that is added later does too.
    models: list[type[BaseModel]] = [kind]
    for model in models:
        assert model.model_config.get("allow_inf_nan") is False
        models += [part for field in model.model_fields.values() for part in _models(field.annotation)]


def test_an_infinite_rate_is_refused() -> None:
    progress = {"protocol": 1, "kind": "progress", "run": "0" * 32, "version": 0, "state": "training"}
    progress |= {"strategy": "fedbuff", "updates": 0, "updates_per_second": float("inf")}
    assert refusal_of(msgpack.packb(progress), Progress).startswith("updates_per_second: ")


def test_none_takes_no_bytes() -> None:
    status = ClientStatus(state="online", client_id="alice", incarnation="0" * 32)
    assert b"base_version" not in encode(status)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models(part)]


def _decoded_or_malformed(payload: bytes, kind: type[ProtocolMessage]) -> None:
    try:
        message, _ = decode(payload, kind)
    except ProtocolError as error:
        assert error.reason in ("malformed", "schema")  # noqa: PT017 (decoding is right too, another exception is not)
    else:
        assert message.protocol == 1
