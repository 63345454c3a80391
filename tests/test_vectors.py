"""The test vectors against FedMQ's own code, and against a reader written from the protocol page alone."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedmq.schemas.codecs import CODECS, codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    Head,
    LayoutNotice,
    Need,
    Offer,
    Part,
    Progress,
    ProtocolMessage,
    Reply,
    SnapshotPart,
)
from fedmq.schemas.wire import HEADER_LIMIT, decode, encode
from tests.vectors import page_codecs
from tests.vectors.make import BLOCKS, BLOCKS_INPUT, ENCODING, rendered, vectors
from tests.vectors.session import SMALL

FOLDER = Path(__file__).parent / "vectors"
KINDS: dict[str, type[ProtocolMessage]] = {
    "head": Head,
    "layout": LayoutNotice,
    "snapshot-part": SnapshotPart,
    "offer": Offer,
    "part": Part,
    "need": Need,
    "reply": Reply,
    "aggregator": AggregatorPresence,
    "status": ClientStatus,
    "progress": Progress,
}


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def rows(name: str, part: str | None = None) -> pytest.MarkDecorator:
    content = read(name)[part] if part else read(name)
    return pytest.mark.parametrize("row", content, ids=[row["name"] for row in content])


# What the page says, without a line of FedMQ.


def page_read(payload: bytes) -> tuple[Any, bytes]:
    """Header and body."""
    unpacker = msgpack.Unpacker(max_buffer_size=64 * 1024)
    unpacker.feed(payload[: 64 * 1024])
    return unpacker.unpack(), payload[unpacker.tell() :]


def page_encode(codec: str, vector: list[float], parameters: int) -> bytes:
    narrow = [min(max(x, -65504.0), 65504.0) for x in vector[:parameters]]
    if codec == "float32":
        return struct.pack(f"<{len(vector)}f", *vector)
    return struct.pack(f"<{parameters}e{len(vector) - parameters}f", *narrow, *vector[parameters:])


def test_the_files_are_what_the_script_writes() -> None:
    made = vectors()
    assert {path.name for path in FOLDER.glob("*.json")} == set(made)
    for name, content in made.items():
        found = (FOLDER / name).read_text(encoding="utf-8")
        assert found == rendered(content), f"{name}: run python -m tests.vectors.make, and look at what changes"


@rows("messages.json")
def test_fedmq_reads_and_writes_every_message_byte_for_byte(row: Any) -> None:
    payload, kind = bytes.fromhex(row["payload"]), KINDS[row["message"]["kind"]]
    message, body = decode(payload, kind)
    assert message == kind.model_validate_json(json.dumps(row["message"]))
    assert bytes(body) == bytes.fromhex(row["body"])
    assert encode(message, bytes(body)) == payload


@rows("messages.json")
def test_the_page_reads_and_writes_every_message_byte_for_byte(row: Any) -> None:
    payload = bytes.fromhex(row["payload"])
    header, body = page_read(payload)
    assert header == row["message"]
    assert body.hex() == row["body"]
    assert msgpack.packb(row["message"]) + body == payload


def test_the_messages_have_every_kind_and_every_field() -> None:
    seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for row in read("messages.json"):
        seen[row["message"]["kind"]] |= set(row["message"])
    assert {kind: set(model.model_fields) - seen[kind] for kind, model in KINDS.items()} == {
        "head": set(),
        "layout": set(),
        "offer": set(),
        "reply": set(),
        "part": set(),
        "need": set(),
        "snapshot-part": set(),
        "aggregator": set(),
        "status": {"base_version"},
        "progress": {"aggregator", "aggregator_version"},
    }


@rows("headers.json", "taken")
def test_a_header_that_fedmq_would_write_differently_is_taken(row: Any) -> None:
    decode(bytes.fromhex(row["payload"]), KINDS[row["kind"]])


@rows("headers.json", "refused")
def test_a_header_that_breaks_a_rule_is_refused(row: Any) -> None:
    with pytest.raises(ProtocolError) as refusal:
        decode(bytes.fromhex(row["payload"]), KINDS[row["kind"]])
    assert refusal.value.reason in ("malformed", "schema")


def test_a_header_may_take_64_kib_and_no_more() -> None:
    presence = page_read(bytes.fromhex(read("messages.json")[0]["payload"]))[0]
    room = HEADER_LIMIT - len(msgpack.packb(presence | {"extra": ""})) - 2  # a longer text has a longer head
    largest, larger = (msgpack.packb(presence | {"extra": "x" * (room + more)}) for more in (0, 1))
    assert len(largest) == 64 * 1024
    decode(largest + b"body", AggregatorPresence)
    with pytest.raises(ProtocolError):
        decode(larger, AggregatorPresence)


@rows("layouts.json")
def test_a_layouts_canonical_form_and_digest(row: Any) -> None:
    layout = Layout(tuple(Entry(name, tuple(shape), dtype, kind) for name, shape, dtype, kind in row["entries"]))
    assert layout.encoded.hex() == row["canonical"]
    assert (layout.digest, layout.size, layout.parameter_size) == (row["digest"], row["size"], row["parameter_size"])
    assert Layout.decode(bytes.fromhex(row["canonical"])) == layout
    # And as the page says.
    canonical = msgpack.packb(row["entries"])
    assert canonical.hex() == row["canonical"]
    assert hashlib.sha256(canonical).hexdigest() == row["digest"]
    sizes = [(math.prod(shape), kind) for _, shape, _, kind in row["entries"]]
    assert sum(size for size, _ in sizes) == row["size"]
    assert sum(size for size, kind in sizes if kind == "parameter") == row["parameter_size"]


@pytest.mark.parametrize("row", read("codecs.json"), ids=lambda row: f"{row['codec']}: {row['name']}")
def test_a_codecs_bytes_in_both_directions(row: Any) -> None:
    vector, encoded = np.array(row["vector"], np.float32), bytes.fromhex(row["encoded"])
    codec, parameters = CODECS[row["codec"]], row["parameter_size"]
    layout = SMALL if parameters == SMALL.parameter_size else BLOCKS
    assert codec.encode(vector, layout, ENCODING) == encoded
    assert codec.decode(encoded, layout).tobytes() == np.array(row["decoded"], np.float32).tobytes()
    # And as the page says.
    assert page_codecs.decode(row["codec"], encoded, parameters, len(vector) - parameters) == row["decoded"]
    if row["codec"] in ("float32", "float16"):
        assert page_encode(row["codec"], row["vector"], parameters) == encoded


def test_every_codec_has_vectors() -> None:
    assert {row["codec"] for row in read("codecs.json")} == set(CODECS)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_compressed_reads_as_the_page_says(codec: str) -> None:
    vector = np.array(BLOCKS_INPUT, np.float32)
    plain, smaller = CODECS[codec], codec_named(f"{codec}-zstd")
    encoded = smaller.encode(vector, BLOCKS, ENCODING)
    expected = plain.decoded(vector, BLOCKS, ENCODING)
    assert smaller.decode(encoded, BLOCKS).tobytes() == expected.tobytes()
    assert page_codecs.decode(f"{codec}-zstd", bytes(encoded), 300, 1) == expected.tolist()


@pytest.mark.parametrize("row", read("signatures.json")["messages"], ids=lambda row: row["topic"])
def test_signatures_are_what_the_page_says(row: dict[str, Any]) -> None:
    payload = bytes.fromhex(row["payload"])
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload)
    header, end = unpacker.unpack(), unpacker.tell()
    assert list(header)[-2:] == ["session", "signature"]
    assert header["session"] == row["session"]
    assert payload[end - 93 : end - 84] == bytes.fromhex("a773657373696f6ecf")
    assert payload[end - 76 : end - 64] == bytes.fromhex("a97369676e6174757265c440")
    topic, body = row["topic"].encode(), payload[end:]
    content = b"fedmq-signed-1\0" + topic + b"\0" + payload[: end - 64] + hashlib.sha256(body).digest()
    assert content.hex() == row["signed"]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(read("signatures.json")["public"]))
    public.verify(header["signature"], content)
    unsigned, unsigned_body = page_read(bytes.fromhex(row["unsigned"]))
    assert {**unsigned, "session": header["session"], "signature": header["signature"]} == header
    assert unsigned_body == body
