"""A whole client, written from docs/protocol.md alone: no line of FedMQ is used. It pulls every parameter towards 2.

`python client.py PORT FEDERATION CLIENT_ID` works until the run is finished; each verdict is a line of standard output.
It keeps nothing on a disk: an update without a verdict is lost with the process, and an id is good for 66 starts.
"""

import hashlib
import math
import os
import random
import struct
import sys
import time
from typing import Any

import msgpack
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

federation, me = sys.argv[2:4]
outbox = os.urandom(16).hex()
entries: list[Any] = []
layout, weights = "", b""
head: dict[str, Any] = {}  # the newest heard, its weights beside it
pending: tuple[dict[str, Any], bytes] | None = None  # an offer without a verdict, and its bytes
trained, sequence, online = ("", -1), 0, False
repeat_at, delay, retrain_at = math.inf, 2.0, math.inf


def topic(name: str) -> str:
    return f"fedmq/{federation}/{name}"


def publish(name: str, message: dict[str, Any], body: bytes = b"", retain: bool = False) -> None:
    client.publish(topic(name), msgpack.packb({"protocol": 1, **message}) + body, qos=1, retain=retain)


def offer(with_body: bool) -> None:
    global repeat_at, delay
    if online and pending:
        publish(f"update/{me}", pending[0], pending[1] if with_body else b"")
        repeat_at, delay = time.monotonic() + delay * random.uniform(0.75, 1.25), min(2 * delay, 120.0)


def train() -> None:
    global pending, trained, sequence, delay, retrain_at
    client.unsubscribe(topic("model"))
    last = sum(math.prod(shape) for _, shape, _, kind in entries if kind == "statistic")
    first = sum(math.prod(shape) for _, shape, _, _ in entries) - last
    form = {"float32": f"<{first + last}f", "float16": f"<{first}e{last}f"}
    received = struct.unpack(form[head["codec"]], weights)
    codec = head["plan"]["codec"]
    delta = [(2.0 - x) * head["plan"]["learning_rate"] for x in received[:first]]
    body = struct.pack(form[codec], *delta, *[3.0] * last)  # a statistic travels as its trained value
    pending = {
        "kind": "offer", "run": head["run"], "client_id": me, "update": {"outbox_id": outbox, "sequence": sequence},
        "base_version": head["version"], "layout": layout, "codec": codec, "size": len(body),
        "digest": hashlib.sha256(body).hexdigest(), "num_samples": 1,
    }, body  # fmt: skip
    trained, sequence, delay = (head["run"], head["version"]), sequence + 1, 2.0
    retrain_at = time.monotonic() + head["plan"]["retrain_after"] * random.uniform(0.75, 1.25)
    offer(with_body=True)


def on_message(_: Any, __: Any, message: paho.MQTTMessage) -> None:
    global entries, layout, head, weights, pending, outbox, online, repeat_at, delay
    if not message.payload:
        return
    unpacker = msgpack.Unpacker(max_buffer_size=64 * 1024)
    unpacker.feed(message.payload[: 64 * 1024])
    header, body = unpacker.unpack(), bytes(message.payload[unpacker.tell() :])
    if header["kind"] == "aggregator" and header["state"] == "starting":
        return
    if header["kind"] == "aggregator":
        online, repeat_at, delay = header["state"] == "online", time.monotonic() + random.random(), 2.0
    elif header["kind"] == "layout" and hashlib.sha256(body).hexdigest() == header["digest"]:
        entries, layout = msgpack.unpackb(body), header["digest"]
    elif header["kind"] == "head" and hashlib.sha256(body).hexdigest() == header["digest"]:
        old = head and header["run"] == head["run"] and header["version"] < head["version"]
        head, weights = (head, weights) if old else (header, body)
    for receipt in header.get("receipts", []):
        if pending and receipt["update"] == pending[0]["update"]:
            print(receipt["verdict"], receipt.get("reason"), receipt.get("staleness"), flush=True)  # noqa: T201
            if receipt.get("reason") == "id_reused":
                outbox = pending[0]["update"]["outbox_id"] = os.urandom(16).hex()
                offer(with_body=True)
            else:
                if receipt.get("reason") == "expired":
                    outbox = os.urandom(16).hex()  # for what is made later; the expired update is gone
                pending = None
                client.subscribe(topic("model"), qos=1)
    for later in header.get("later", []):
        repeat_at = time.monotonic() + later["seconds"] * random.uniform(1, 1.5)
    for missing in header.get("missing", []):
        if pending and missing["update"] == pending[0]["update"]:
            offer(with_body=True)


def on_connect(*_: Any) -> None:
    client.subscribe([(topic(name), 1) for name in ("aggregator", f"reply/{me}", "layout", "model")])
    publish(f"status/{me}", status | {"state": "online"}, retain=True)


client = paho.Client(CallbackAPIVersion.VERSION2, f"{federation}-{me}")
client.on_connect, client.on_message = on_connect, on_message
status = {"kind": "status", "state": "offline", "client_id": me, "incarnation": os.urandom(16).hex()}
client.will_set(topic(f"status/{me}"), msgpack.packb({"protocol": 1, **status}), qos=1, retain=True)
client.connect("127.0.0.1", int(sys.argv[1]))
while head.get("state") != "finished":
    if client.loop(0.05):
        sys.exit("the connection is lost")
    fits = head and layout == head["layout"]
    if fits and not pending and (trained != (head["run"], head["version"]) or time.monotonic() >= retrain_at):
        train()
    if time.monotonic() >= repeat_at:
        repeat_at = math.inf
        offer(with_body=False)
publish(f"status/{me}", status | {"activity": "finished"}, retain=True)
client.loop(0.5)
client.disconnect()
