"""Latency of ingest.py: from publishing an update to its receipt, and until another client has the model with it."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from ingest_runs import PUBLISHERS, Bench, Size
from ingest_system import FEDERATION, Aggregator, Broker, Publisher, reset
from ingest_wire import connect, packets, publish_head, subscribe

from fedmq.schemas.messages import Head, Offer, Reply, UpdateId
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode

_ROUNDS = 60
_INTERVAL = 0.05  # seconds between two snapshots at least; by default it is half a second
_CLIENT = "probe"


def latencies(size: Size, folder: Path) -> dict[str, Any]:
    """Idle and under half of the load that it bears."""
    with Bench(size, folder / "full") as bench:
        full = max(bench.fedmq(10) for _ in range(3))
    broker = Broker(folder / "broker")
    aggregator = Aggregator(folder / "aggregator", broker, size.floats, publish_interval=_INTERVAL)
    try:
        probe = _Probe(aggregator, size)
        idle = probe.measure()
        publishers = [Publisher() for _ in range(PUBLISHERS)]
        progress = folder / "progress"
        reset(progress)
        for n, publisher in enumerate(publishers):
            publisher.give(
                {
                    "port": broker.port,
                    "federation": FEDERATION,
                    "run": probe.head.run,
                    "layout": probe.head.layout,
                    "base_version": 0,
                    "floats": size.floats,
                    "clients": [f"load-{n}-{k}" for k in range(5)],
                    "outbox": os.urandom(16).hex(),
                    "first": 0,
                    "count": int(full / 2 / PUBLISHERS * 6),
                    "outstanding": 1 << 30,
                    "publishers": PUBLISHERS,
                    "rate": full / 2 / PUBLISHERS,
                    "progress": str(progress),
                }
            )
        for publisher in publishers:
            publisher.await_word("ready")
        for publisher in publishers:
            publisher.go()
        time.sleep(0.5)  # until the load is there
        busy = probe.measure(until=time.monotonic() + 4.5)
        for publisher in publishers:
            publisher.await_word("done")
            publisher.stop()
    finally:
        aggregator.stop()
        broker.stop()
    return {
        "name": size.name,
        "publish_interval": _INTERVAL,
        "load_updates_per_second": full / 2,
        "idle": idle,
        "half_load": busy,
    }


class _Probe:
    """A client that sends one update after another, and the model's reader."""

    def __init__(self, aggregator: Aggregator, size: Size) -> None:
        self.head = aggregator.head
        self._topics = Topics(FEDERATION)
        self._body = np.full(size.floats, 1e-6, "<f4").tobytes()
        self._digest = hashlib.sha256(self._body).hexdigest()
        self._outbox = os.urandom(16).hex()
        self._sequence = 0
        self._sender = connect(aggregator.port, "probe-sender")
        self._reader = connect(aggregator.port, "probe-reader")
        subscribe(self._reader, self._topics.reply(_CLIENT), self._topics.model)
        self._reader.settimeout(30)
        self._packets = packets(self._reader)

    def measure(self, until: float | None = None) -> dict[str, Any]:
        """Rounds of ten updates, so that each makes a version when nothing else is sent; stops at `until`."""
        receipts: list[float] = []
        models: list[float] = []
        for _ in range(_ROUNDS):
            if until is not None and time.monotonic() > until:
                break
            for _ in range(10):
                sent = self._send()
                version = self._receipt()
                receipts.append(time.monotonic() - sent)
            while self.head.version <= version:
                self._step()
            models.append(time.monotonic() - sent)
            if until is None:
                time.sleep(_INTERVAL)  # so that the next snapshot need not wait
        return {"receipt": _summary(receipts), "model": _summary(models)}

    def _send(self) -> float:
        self._sequence += 1
        offer = Offer(
            run=self.head.run,
            client_id=_CLIENT,
            update=UpdateId(outbox_id=self._outbox, sequence=self._sequence),
            base_version=self.head.version,
            layout=self.head.layout,
            codec="float32",
            size=len(self._body),
            digest=self._digest,
            num_samples=100,
        )
        payload = encode(offer, self._body)
        packet = publish_head(self._topics.update(_CLIENT), self._sequence % 65535 + 1, len(payload)) + payload
        sent = time.monotonic()
        self._sender.sendall(packet)
        return sent

    def _receipt(self) -> int:
        """The version that the newest update was folded into, when its receipt is there."""
        while True:
            reply = self._step()
            for receipt in reply.receipts if reply else ():
                if receipt.update.sequence == self._sequence:
                    if receipt.version is None:
                        raise SystemExit(f"an update was refused: {receipt}")
                    return receipt.version

    def _step(self) -> Reply | None:
        topic, payload = next(self._packets)
        if topic == self._topics.model:
            self.head = decode(payload, Head)[0]
            return None
        return decode(payload, Reply)[0]


def _summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "max": ordered[-1],
        "count": len(ordered),
    }
