"""The hostile device of hostile_client.py: all that a device should not send, signed with its key, at full speed.

    python benchmarks/hostile_sender.py BUNDLE CLIENT_ID KINDS SECONDS

BUNDLE is the folder that `fedmq provision` made for it. KINDS is `all`, or names of `KINDS` with commas. It learns run
and version from the model, prepares a few hundred packets of each kind, and sends them in any order until the time is
over or the broker is gone; then it says in a line of JSON how many it has sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from ingest_wire import length

from fedmq.connect import mqtt_link
from fedmq.keys import device_keys
from fedmq.schemas.messages import Head, Need, Offer, Part, UpdateId
from fedmq.schemas.signing import sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.settings import Settings, load_settings
from fedmq.transport.link import Connected, Message

OF_EACH = 300
TOGETHER = 32  # packets in one write
SESSION = 1 << 40


class Sender:
    """What it knows, and what it makes of it."""

    def __init__(self, settings: Settings, client_id: str, head: Head) -> None:
        keys = device_keys(settings.signing, client_id)
        assert keys is not None
        self._sign = keys.sign
        self.head = head
        self.client_id = client_id
        self.topics = Topics(settings.federation)
        self.topic = self.topics.update(client_id)
        self.random = random.Random(client_id)
        self.floats = head.size // 2 if head.codec == "float16" else head.size // 4

    def sealed(self, payload: bytes, topic: str | None = None) -> bytes:
        """Signed as a device does; a body is hashed as it is, whatever the header says."""
        topic = topic or self.topic
        fields, body = _parts(payload)
        true = hashlib.sha256(body).hexdigest()
        if fields.get("digest") in (None, true) or fields.get("kind") != "offer":
            return sealed(topic, payload, SESSION, self._sign)
        honest = sealed(topic, msgpack.packb(fields), SESSION, lambda content: bytes(64))[:-64]
        content = b"".join((b"fedmq-signed-1\0", topic.encode(), b"\0", honest, bytes.fromhex(true)))
        return b"".join((honest, self._sign(content), body))

    def offer(self, value: float = 1e-6, **changes: Any) -> bytes:
        body = np.full(self.floats, value, "<f4").tobytes()
        offer = Offer(
            run=self.head.run,
            client_id=self.client_id,
            update=UpdateId(outbox_id=f"{self.random.getrandbits(128):032x}", sequence=self.random.randrange(64)),
            base_version=self.head.version,
            layout=self.head.layout,
            codec="float32",
            size=len(body),
            digest=hashlib.sha256(body).hexdigest(),
            num_samples=1 << 40,
            task_version="digits",
        )
        return encode(offer.model_copy(update=changes), body)

    def header(self, **changes: Any) -> bytes:
        """An offer whose bytes do not come."""
        fields, _ = _parts(self.offer(**changes))
        return bytes(msgpack.packb(fields))

    def part(self) -> bytes:
        """Of an update that was never offered, or is somebody else's place."""
        update = UpdateId(outbox_id="0" * 31 + "1", sequence=0)
        part = Part(run=self.head.run, update=update, digest="0" * 64, offset=self.random.randrange(1 << 30), number=1)
        return encode(part, bytes(4096))


def _parts(payload: bytes) -> tuple[dict[str, Any], bytes]:
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 20)
    unpacker.feed(payload)
    fields = unpacker.unpack()
    return fields, payload[unpacker.tell() :]


def _half(sender: Sender) -> bytes:
    return sender.header(update=UpdateId(outbox_id="0" * 31 + "1", sequence=0), number=0, digest="0" * 64)


KINDS: dict[str, Callable[[Sender], bytes]] = {
    # What never counts as hostile.
    "valid": lambda sender: sender.sealed(sender.offer()),
    "duplicates": lambda sender: sender.sealed(sender.offer(update=UpdateId(outbox_id="d" * 32, sequence=7))),
    "without bytes": lambda sender: sender.sealed(sender.header()),
    "other runs": lambda sender: sender.sealed(sender.offer(run=f"{sender.random.getrandbits(128):032x}")),
    "future versions": lambda sender: sender.sealed(sender.offer(base_version=1 << 40)),
    "other tasks": lambda sender: sender.sealed(sender.offer(task_version="evil")),
    "half transfers": lambda sender: sender.sealed(_half(sender)),
    "parts of nothing": lambda sender: sender.sealed(sender.part()),
    "need": lambda sender: sender.sealed(encode(Need(run=sender.head.run, version=sender.head.version, parts=(0, 1)))),
    "unsigned": lambda sender: sender.offer(),
    "bad signatures": lambda sender: _flipped(sender.sealed(sender.header())),
    "rubbish": lambda sender: sender.random.randbytes(sender.random.randrange(1, 4000)),
    # What does.
    "other clients": lambda sender: sender.sealed(sender.offer(client_id="dev-1")),
    "not finite": lambda sender: sender.sealed(sender.offer(float("nan"))),
    "huge norms": lambda sender: sender.sealed(sender.offer(1e9)),
    "other shapes": lambda sender: sender.sealed(sender.offer(layout="f" * 64)),
    "wrong sizes": lambda sender: sender.sealed(sender.offer(size=12, digest=hashlib.sha256(b"").hexdigest())),
    "giant sizes": lambda sender: sender.sealed(sender.header(size=1 << 60)),
    "other schema": lambda sender: sender.sealed(msgpack.packb({"protocol": 1, "kind": "offer", "x": "y" * 2000})),
}
INNOCENT = list(KINDS)[:12]


def _flipped(payload: bytes) -> bytes:
    return payload[:-1] + bytes([payload[-1] ^ 1])


def head_of(settings: Settings, client_id: str) -> Head:
    """The newest model's, as any device reads it."""
    link, topics = mqtt_link(settings.broker, f"{settings.federation}-{client_id}"), Topics(settings.federation)
    link.open()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        event = link.poll(0.1)
        if isinstance(event, Connected):
            link.subscribe(topics.model)
        elif isinstance(event, Message) and event.payload:
            link.close()
            return decode(event.payload, Head)[0]
    raise SystemExit("no model was heard")


def connected(settings: Settings, client_id: str) -> ssl.SSLSocket:
    """A connection with the device's own certificate and password."""
    broker = settings.broker
    context = ssl.create_default_context(cafile=str(broker.ca_file))
    assert broker.cert_file is not None
    context.load_cert_chain(broker.cert_file, broker.key_file)
    sock = context.wrap_socket(socket.create_connection((broker.host, broker.port)), server_hostname=broker.host)
    texts = [f"{settings.federation}-{client_id}", broker.username or "", broker.read_password() or ""]
    strings = b"".join(struct.pack("!H", len(text.encode())) + text.encode() for text in texts)
    body = b"\0\4MQTT\4\xc2\0\0" + strings
    sock.sendall(b"\x10" + length(len(body)) + body)
    if sock.recv(4) != b"\x20\2\0\0":
        raise SystemExit("the broker does not accept the connection")
    return sock


def packet(topic: str, payload: bytes, qos: int) -> bytes:
    head = struct.pack("!H", len(topic)) + topic.encode() + (b"\0\7" if qos else b"")
    return bytes([0x30 | qos << 1]) + length(len(head) + len(payload)) + head + payload


def main() -> None:
    bundle, client_id, wanted, seconds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    os.nice(19)  # it is to take the broker's time from the others, not this machine's
    settings = load_settings(bundle / "federation.toml", environment={})
    sender = Sender(settings, client_id, head_of(settings, client_id))
    kinds = {"all": list(KINDS), "innocent": INNOCENT}.get(wanted) or wanted.split(",")
    ready = [
        (kind, packet(sender.topic, KINDS[kind](sender), number % 2)) for kind in kinds for number in range(OF_EACH)
    ]
    for kind in kinds:  # what the broker's rules stop, too
        other = sender.sealed(sender.offer(client_id="dev-1"), sender.topics.update("dev-1"))
        ready.append((f"{kind}, to others", packet(sender.topics.update("dev-1"), other, 0)))
    sent: Counter[str] = Counter()
    print("ready", flush=True)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    until, sock = time.monotonic() + seconds, connected(settings, client_id)
    sock.settimeout(5.0)
    while time.monotonic() < until and not stopped:
        some = sender.random.choices(ready, k=TOGETHER)
        try:
            sock.sendall(b"".join(payload for _, payload in some))
            sock.settimeout(0.0)
            try:
                while sock.recv(1 << 16):
                    pass
            except (ssl.SSLWantReadError, BlockingIOError):
                pass
            sock.settimeout(5.0)
        except OSError:
            sent["connections lost"] += 1
            time.sleep(0.2)
            try:
                sock = connected(settings, client_id)
                sock.settimeout(5.0)
            except OSError:
                continue
        sent.update(kind for kind, _ in some)
    print(json.dumps({"sent": sum(sent.values()), "lost": sent["connections lost"], "pid": os.getpid()}), flush=True)


if __name__ == "__main__":
    main()
