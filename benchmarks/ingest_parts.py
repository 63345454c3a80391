"""A publisher process of ingest.py that plays devices whose updates go in parts.

It reads one job as a line of JSON, says `ready` when all digests are there, sends at the next line, and says `done`.
To a bare subscriber it sends the same parts, without asking how far that has come, but bounded by its count.
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ingest_wire import Progress, connect, packets_in, publish_head, subscribe

from fedmq.edge_client.upload import Upload
from fedmq.schemas.messages import Offer, Part, Reply, UpdateId
from fedmq.schemas.parts import cut
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode

PART_BYTES = 120 << 10  # as `broker.max_message_bytes` is by default
TAIL = 8  # bytes at the end of a body that no other update has
WINDOW = 8  # parts of one device on their way
ON_THEIR_WAY = 3  # updates of one device
SILENCE_SECONDS = 5.0  # until an offer is repeated


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        port: of the broker.
        federation, run, layout, base_version: as they stand in an offer.
        floats: of the model.
        clients: that this process plays.
        outbox: of each.
        first: sequence number to begin with.
        count: updates of each client.
        outstanding: parts of this process that may be on their way to a bare subscriber.
        publishers: how many processes send.
        bare: whether the subscriber says nothing.
        progress: file in which a bare subscriber counts.

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
    bare: bool
    progress: str


class Sending:
    """An update that is on its way."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.upload = Upload()
        self.heard_at = float("-inf")


class Device:
    """One client: its updates in order, each offered behind the last part of the one before."""

    def __init__(self, job: Job, client_id: str, body: bytes) -> None:
        self.client_id = client_id
        self.topic = Topics(job.federation).update(client_id)
        self.on_their_way: list[Sending] = []
        self._body = memoryview(body)
        self._place = job.clients.index(client_id)
        common = hashlib.sha256(body[:-TAIL])
        self._waiting = [
            self._offer(job, sequence, common.copy()) for sequence in range(job.first, job.first + job.count)
        ]
        self._waiting.reverse()

    @property
    def done(self) -> bool:
        return not self._waiting and not self.on_their_way

    def due(self, now: float) -> list[bytes]:
        """Offers to send now."""
        room = len(self.on_their_way) < ON_THEIR_WAY and all(sending.upload.sent for sending in self.on_their_way)
        if room and self._waiting:
            self.on_their_way.append(Sending(self._waiting.pop()))
        due = [sending for sending in self.on_their_way if now > sending.heard_at + SILENCE_SECONDS]
        for sending in due:
            sending.heard_at = now
        return [encode(each.offer.model_copy(update={"number": each.upload.offered()})) for each in due]

    def told(self, reply: Reply, now: float) -> list[tuple[bytes, memoryview, bytes]]:
        """Parts to send now."""
        parts = []
        done = [receipt.update for receipt in reply.receipts]
        self.on_their_way = [sending for sending in self.on_their_way if sending.offer.update not in done]
        for missing in reply.missing:
            for sending in self.on_their_way:
                if sending.offer.update == missing.update:
                    sending.heard_at = now
                    sending.upload.told(missing, PART_BYTES, now)
                    parts += [self.part(sending.offer, *piece) for piece in sending.upload.pieces(WINDOW)]
        return parts

    def next(self) -> Offer:
        return self._waiting.pop()

    def part(self, offer: Offer, number: int, start: int, end: int) -> tuple[bytes, memoryview, bytes]:
        """Header, bytes that all updates have, bytes that only this one has."""
        head = encode(Part(run=offer.run, update=offer.update, digest=offer.digest, offset=start, number=number))
        whole = end == len(self._body)
        return (
            head,
            self._body[start : end - TAIL if whole else end],
            self._tail(offer.update.sequence) if whole else b"",
        )

    def _tail(self, sequence: int) -> bytes:
        return struct.pack("<ff", 1e-6 * sequence, 1e-6 * self._place)

    def _offer(self, job: Job, sequence: int, digest: hashlib._Hash) -> Offer:
        digest.update(self._tail(sequence))
        return Offer(
            run=job.run,
            client_id=self.client_id,
            update=UpdateId(outbox_id=job.outbox, sequence=sequence),
            base_version=job.base_version,
            layout=job.layout,
            codec="float32",
            size=len(self._body),
            digest=digest.hexdigest(),
            num_samples=100,
            metrics={"loss": 0.5},
        )


class Sender:
    """Publishes at QoS 1 and takes what comes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._number = 0
        self._data = bytearray()

    def publish(self, topic: str, *payload: bytes | memoryview) -> None:
        self._number = self._number % 65535 + 1
        parts = [publish_head(topic, self._number, sum(map(len, payload))), *payload]
        done = self._sock.sendmsg(parts)
        if done < sum(map(len, parts)):
            self._sock.sendall(b"".join(parts)[done:])

    def replies(self, seconds: float) -> list[tuple[str, bytes]]:
        """Topics and payloads of what has come, or comes within these seconds."""
        if select.select([self._sock], [], [], seconds)[0]:
            self._data += self._sock.recv(1 << 16)
        return list(packets_in(self._data))


def converse(job: Job, sender: Sender, devices: list[Device]) -> None:
    """Offer, and send what is asked for."""
    by_topic = {Topics(job.federation).reply(device.client_id): device for device in devices}
    while any(not device.done for device in devices):
        now = time.monotonic()
        for device in devices:
            for offer in device.due(now):
                sender.publish(device.topic, offer)
        for topic, payload in sender.replies(0.01):
            device = by_topic[topic]
            for part in device.told(decode(payload, Reply)[0], now):
                sender.publish(device.topic, *part)
            for offer in device.due(now):
                sender.publish(device.topic, offer)


def pour(job: Job, sender: Sender, devices: list[Device]) -> None:
    """The same parts, no faster than they are counted."""
    progress, sent = Progress(Path(job.progress)), 0
    pieces = list(cut([(0, 4 * job.floats)], PART_BYTES))
    for _ in range(job.count):
        offers = [(device, device.next()) for device in devices]
        for start, end in pieces:
            for device, offer in offers:
                while progress.count // job.publishers + job.outstanding <= sent:
                    sender.replies(0.0005)
                sender.publish(device.topic, *device.part(offer, sent, start, end))
                sent += 1
    while progress.count < sent * job.publishers:
        sender.replies(0.01)


def main() -> None:
    rng = np.random.default_rng(1)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        body = rng.normal(0, 1e-3, job.floats).astype("<f4").tobytes()
        devices = [Device(job, client_id, body) for client_id in job.clients]
        with connect(job.port, f"publisher-{job.outbox[:8]}") as sock:
            subscribe(sock, *(Topics(job.federation).reply(client_id) for client_id in job.clients))
            print("ready", flush=True)
            sys.stdin.readline()
            (pour if job.bare else converse)(job, Sender(sock), devices)
        print("done", flush=True)


if __name__ == "__main__":
    main()
