"""A publisher process of ingest.py: builds valid, distinct updates first, then sends them as fast as it is let.

It reads one job as a line of JSON, says `ready` when all headers are built, sends at the next line, and says `done`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ingest_wire import Progress, connect, publish_head

from fedmq.schemas.messages import Offer, UpdateId
from fedmq.schemas.signing import sealed
from fedmq.schemas.wire import encode

TAIL = 8  # bytes at the end of a body that no other update has


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        port: of the broker.
        federation, run, layout, base_version: as they stand in an offer.
        floats: of the model.
        clients: ids of all publishers; an update's number says whose it is, in turn.
        outbox: of each.
        first: number of the first update; the other publishers have those between it and the next.
        count: updates to send.
        outstanding: updates of all publishers that may be on their way to the receiver.
        publishers: how many share that.
        rate: updates per second; 0 for as fast as the broker takes them.
        progress: file in which the receiver counts.
        key: the private key that signs, 64 hex digits; empty for none.

    """

    port: int
    federation: str
    run: str
    layout: str
    base_version: int
    floats: int
    clients: list[str]
    outbox: str
    first: int
    count: int
    outstanding: int
    publishers: int
    rate: float
    progress: str
    key: str = ""


def heads(job: Job, body: bytes) -> list[tuple[bytes, bytes]]:
    """For every update what comes before and after the part of the body that all have."""
    common = hashlib.sha256(body[:-TAIL])
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(job.key)) if job.key else None
    built = []
    for number in range(job.count):
        sequence, place = divmod(job.first + number * job.publishers, len(job.clients))
        client = job.clients[place]
        tail = struct.pack("<ff", 1e-6 * sequence, 1e-6 * place)
        digest = common.copy()
        digest.update(tail)
        offer = Offer(
            run=job.run,
            client_id=client,
            update=UpdateId(outbox_id=job.outbox, sequence=sequence),
            base_version=job.base_version,
            layout=job.layout,
            codec="float32",
            size=len(body),
            digest=digest.hexdigest(),
            num_samples=100,
            metrics={"loss": 0.5},
        )
        topic = f"fedmq/{job.federation}/update/{client}"
        header = signed_header(topic, offer, body, key) if key is not None else encode(offer)
        built.append((publish_head(topic, number % 65535 + 1, len(header) + len(body)) + header, tail))
    return built


def signed_header(topic: str, offer: Offer, body: bytes, key: Ed25519PrivateKey) -> bytes:
    """What stands before the body in the signed message; of the body its digest in the offer is signed."""
    return sealed(topic, encode(offer, body), 1, key.sign)[: -len(body)]


def send(job: Job, sock: socket.socket, built: list[tuple[bytes, bytes]], body: bytes) -> None:
    common = memoryview(body)[:-TAIL]
    progress = Progress(Path(job.progress))
    unacknowledged = max(2, min(64, (4 << 20) // len(body)))  # by the broker
    batch = max(1, min(16, (256 << 10) // len(body)))
    sent = acknowledged = 0
    begun = time.monotonic()
    while acknowledged < 4 * job.count:
        room = min(
            job.count - sent,
            unacknowledged - (sent - acknowledged // 4),
            (progress.count + job.outstanding) // job.publishers - sent,
            int((time.monotonic() - begun) * job.rate) - sent if job.rate else batch,
            batch,
        )
        if room > 0:
            parts = [part for head, tail in built[sent : sent + room] for part in (head, common, tail)]
            size = sum(map(len, parts))
            done = sock.sendmsg(parts)
            if done < size:
                sock.sendall(b"".join(parts)[done:])
            sent += room
        try:
            acknowledged += len(sock.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            if room <= 0:
                time.sleep(0.0005)


def main() -> None:
    rng = np.random.default_rng(1)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        body = rng.normal(0, 1e-3, job.floats).astype("<f4").tobytes()
        built = heads(job, body)
        with connect(job.port, f"publisher-{job.outbox[:8]}") as sock:
            print("ready", flush=True)
            sys.stdin.readline()
            send(job, sock, built, body)
        print("done", flush=True)


if __name__ == "__main__":
    main()
