"""One run of ingest.py: the same messages from the same publishers to one receiver, timed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ingest_counting import Lines, Receipts
from ingest_parts import PART_BYTES
from ingest_system import FEDERATION, Aggregator, Broker, Publisher, reset, start_c, start_paho

PUBLISHERS = 2
_PATIENCE = 120.0


@dataclass(frozen=True)
class Size:
    """A row: model of so many floats, updates in a run (an even number), how many may be on their way, client ids.

    In parts, the parts may be on their way, and each client sends as many updates, one or more.
    """

    name: str
    floats: int
    updates: int
    outstanding: int
    clients: tuple[int, ...] = (1, 10, 1000)
    parts: bool = False

    @property
    def bytes(self) -> int:
        return 4 * self.floats


class Bench:
    """An aggregator and a bare broker, each on a Mosquitto of its own, and two publishers for both.

    The broker that is not in use has nothing to do. With `signed`, a list of clients' ids, there is another aggregator
    with another broker, where everything is signed.
    """

    def __init__(self, size: Size, folder: Path, signed: Sequence[str] = ()) -> None:
        self.size = size
        self._progress = folder / "progress"
        self._broker = Broker(folder / "broker")
        self._bare = Broker(folder / "bare")
        self._aggregator = Aggregator(folder / "aggregator", self._broker, size.floats, parts=size.parts)
        self._plain = (self._aggregator, self._broker)
        self._signed = self._plain
        if signed:
            broker = Broker(folder / "signed-broker")
            self._signed = (Aggregator(folder / "signed", broker, size.floats, devices=signed), broker)
        self._publishers = [Publisher(parts=size.parts) for _ in range(PUBLISHERS)]
        self._outboxes = [os.urandom(16).hex() for _ in range(PUBLISHERS)]
        self._next: dict[int, int] = {}  # update, by number of clients: each run goes on with the next ids
        self._costs: dict[tuple[int, bool], list[float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for publisher in self._publishers:
            publisher.stop()
        for process in (*dict.fromkeys((*self._plain, *self._signed)), self._bare):
            process.stop()

    def signed(self, clients: int) -> float:
        """The same where everything is signed."""
        self._aggregator, self._broker = self._signed
        try:
            return self.fedmq(clients)
        finally:
            self._aggregator, self._broker = self._plain

    def fedmq(self, clients: int) -> float:
        """Updates per second, by the receipts that say accepted."""
        which = (clients, bool(self._aggregator.device_key))
        watch = Receipts(self._broker.port, self._progress)
        before = self._aggregator.cpu_seconds(), self._broker.cpu_seconds()
        if which not in self._costs:
            self._aggregator.forget_peak()
        try:
            rate = self._run(self._broker.port, clients)
        finally:
            watch.stop()
        after = self._aggregator.cpu_seconds(), self._broker.cpu_seconds()
        total = self._costs.setdefault(which, [0.0, 0.0, 0.0, 0.0])
        more = (after[0] - before[0], after[1] - before[1], self.size.updates / 1000, 0.0)
        self._costs[which] = [a + b for a, b in zip(total, more, strict=True)]
        self._costs[which][3] = self._aggregator.peak_mb()
        return rate

    def paho(self, clients: int) -> float:
        """Messages per second of a stock paho subscriber."""
        reset(self._progress)
        subscriber = start_paho(self._bare.port, self._progress)
        try:
            return self._run(self._bare.port, clients, bare=True)
        finally:
            subscriber.stop()

    def c(self, clients: int) -> float:
        """Messages per second of mosquitto_sub; 0 where there is none."""
        subscriber = start_c(self._bare.port)
        if subscriber is None:
            return 0.0
        watch = Lines(self._bare.port, subscriber, self._progress)
        try:
            return self._run(self._bare.port, clients, bare=True)
        finally:
            subscriber.stop()
            watch.join()

    def costs(self, clients: int, *, signed: bool = False) -> dict[str, float]:
        """What the aggregator and its broker used."""
        cpu, broker_cpu, thousands, peak = self._costs[clients, signed]
        return {
            "cpu_seconds_per_1000": cpu / thousands,
            "broker_cpu_seconds_per_1000": broker_cpu / thousands,
            "peak_mb": peak,
        }

    def _run(self, port: int, clients: int, *, bare: bool = False) -> float:
        count = self.size.updates
        first = self._next.get(clients, 0)
        self._next[clients] = first + count
        head = self._aggregator.newest_head()
        names = [f"c{clients}-{n}" for n in range(clients)]
        jobs = self._in_parts(names, first, bare) if self.size.parts else self._whole(names, first)
        for publisher, job in zip(self._publishers, jobs, strict=True):
            publisher.give(
                {
                    "port": port,
                    "federation": FEDERATION,
                    "run": head.run,
                    "layout": head.layout,
                    "base_version": head.version,
                    "floats": self.size.floats,
                    "publishers": PUBLISHERS,
                    "progress": str(self._progress),
                    **({"key": self._aggregator.device_key} if self._aggregator.device_key and not bare else {}),
                    **job,
                }
            )
        messages = count * (-(-self.size.bytes // PART_BYTES) if bare and self.size.parts else 1)
        for publisher in self._publishers:
            publisher.await_word("ready")
        progress = reset(self._progress)
        begun = time.monotonic()
        for publisher in self._publishers:
            publisher.go()
        while progress.count < messages:
            if time.monotonic() > max(progress.at, begun) + _PATIENCE:
                raise SystemExit(f"{self.size.name}: {progress.count} of {messages} arrived; see the logs")
            time.sleep(0.005)
        for publisher in self._publishers:
            publisher.await_word("done")
        return count / (progress.at - begun)

    def _whole(self, clients: list[str], first: int) -> list[dict[str, object]]:
        common = {
            "clients": clients,
            "count": self.size.updates // PUBLISHERS,
            "outstanding": self.size.outstanding,
            "rate": 0.0,
        }
        # An outbox for each publisher, because what one outbox sends has to stay in order.
        return [common | {"outbox": self._outboxes[n], "first": first + n} for n in range(PUBLISHERS)]

    def _in_parts(self, clients: list[str], first: int, bare: bool) -> list[dict[str, object]]:
        each = self.size.updates // len(clients)
        return [
            {
                "clients": clients[n::PUBLISHERS],
                "outbox": self._outboxes[n],
                "first": first // len(clients),
                "count": each,
                "outstanding": self.size.outstanding // PUBLISHERS,
                "bare": bare,
            }
            for n in range(PUBLISHERS)
        ]
