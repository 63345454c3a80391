"""Headers that a reader takes although FedMQ does not write them like this, and payloads that it refuses."""

from __future__ import annotations

import json
from typing import Any

import msgpack

from fedmq.schemas.plan import Plan
from tests.vectors.session import ONLINE, head, offer

Header = dict[Any, Any]


def _headers() -> tuple[Header, Header, Header]:
    presence = ONLINE.model_dump(mode="json")
    made = offer(0, 0, "float16", num_samples=200)[0].model_dump(mode="json", exclude_none=True)
    return presence, made, head(0, "training", Plan())[0].model_dump(mode="json", exclude_none=True)


def taken() -> list[Header]:
    """Rows of name, kind and payload."""
    presence, made, _ = _headers()
    short = _without(presence, "detail")  # its last byte is a count
    least = {key: made[key] for key in made if key not in ("metrics", "task_version")}
    return [
        _row("an unknown field is ignored", presence | {"colour": "green"}),
        _row("keys in another order", dict(reversed(presence.items()))),
        _row("fields that have a default are left out", least),
        _row("nil for an optional field", made | {"evaluation": None}),
        _row("an integer where a float stands", made | {"metrics": {"loss": 1}}),
        _row("a longer form of an integer", short, payload=msgpack.packb(short)[:-1] + b"\xcf" + bytes(8)),
    ]


def refused() -> list[Header]:
    """The same for what is `malformed`."""
    presence, made, snapshot = _headers()
    text = json.dumps(presence).encode()
    return [
        _row("no protocol number", _without(presence, "protocol")),
        _row("a newer protocol", presence | {"protocol": 2}),
        _row("another kind than the topic's", presence | {"kind": "progress"}, kind="aggregator"),
        _row("a field is missing", _without(presence, "run")),
        _row("a float where an integer stands", presence | {"version": 1.0}),
        _row("a negative count", presence | {"version": -1}),
        _row("a count above 2^63 - 1", presence | {"version": 1 << 63}),
        _row("upper case in a hex field", presence | {"run": presence["run"].upper()}),
        _row("an id with a slash", made | {"client_id": "a/b"}),
        _row("a metric that is not a number", made | {"metrics": {"loss": float("nan")}}),
        _row("no sample", made | {"num_samples": 0}),
        _row("nil for a field that is not optional", made | {"metrics": None}),
        _row("binary where text stands", presence | {"state": b"online"}),
        _row("an unknown key in the plan", snapshot | {"plan": snapshot["plan"] | {"warmup": 3}}),
        _row("an extension type", presence | {"extra": msgpack.ExtType(5, b"x")}),
        _row("nothing", presence, payload=b""),
        _row("an array", presence, payload=msgpack.packb([1])),
        _row("a map that is cut off", presence, payload=msgpack.packb(presence)[:-1]),
        _row("JSON", presence, payload=text),
    ]


def _row(name: str, header: Header, *, kind: str = "", payload: bytes | None = None) -> Header:
    packed = msgpack.packb(header) if payload is None else payload
    return {"name": name, "kind": kind or header["kind"], "payload": packed.hex()}


def _without(header: Header, *keys: str) -> Header:
    return {key: value for key, value in header.items() if key not in keys}
