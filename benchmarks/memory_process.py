"""One process that memory.py watches: `memory_process.py FILE aggregator|client …`, with the options of `fedmq` behind.

It is the real command; beside it, this notes what memory it had before it had a model, how long its connection was left
alone, and how long an update took, and writes that to FILE as JSON when it is asked to, by its end.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fedmq.aggregator.freed_memory import keep_freed_memory
from fedmq.cli.options import add_settings, settings_of
from fedmq.device import EdgeClient
from fedmq.schemas.plan import Plan
from fedmq.server import Aggregator
from fedmq.tasks.contract import Arrays, Trained
from fedmq.transport.mqtt import MqttLink

BLOCK = 1 << 16
_random = np.random.default_rng()
_noise = np.empty(BLOCK, np.float32)


def train(weights: Arrays, plan: Plan) -> Trained:
    """Normal noise onto every weight, in place and block by block, so that codecs have honest numbers to work on."""
    for array in weights.values():
        flat = array.reshape(-1)
        for start in range(0, len(flat), BLOCK):
            part = flat[start : start + BLOCK]
            noise = _random.standard_normal(len(part), np.float32, out=_noise[: len(part)])
            noise *= np.float32(1e-3)
            part += noise
    return Trained(weights, num_samples=10)


class Stall:
    """The longest time between the end of one look at the socket and the beginning of the next."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.at = 0.0
        last: float | None = None
        work = MqttLink._work

        def measured(link: MqttLink, timeout: float) -> bool:
            nonlocal last
            begun = time.monotonic()
            if last is not None and begun - last > self.longest:
                self.longest, self.at = begun - last, begun
            moved = work(link, timeout)
            last = time.monotonic()
            # A thread that holds the interpreter keeps this one from coming back in time: that is a stall as well.
            if last - begun - timeout > self.longest:
                self.longest, self.at = last - begun - timeout, last
            return moved

        MqttLink._work = measured  # type: ignore[method-assign]


class Updates:
    """Seconds from the head that an update was trained on to the receipt that accepts it."""

    def __init__(self, client: EdgeClient) -> None:
        self.seconds: list[float] = []
        service: Any = client._service
        self._heads: dict[int, float] = {}
        waiting: deque[float] = deque()
        hear, step = service._hear, service._step

        def heard(head: Any, body: memoryview, now: float) -> None:
            self._heads.setdefault(head.version, time.monotonic())
            hear(head, body, now)

        def stepped(name: str) -> None:
            step(name)
            if name == "stored":
                waiting.append(self._heads.get(service._core.training.version, time.monotonic()))
            elif name == "deleted":
                self.seconds.append(time.monotonic() - waiting.popleft())

        service._hear, service._step = heard, stepped


def status(field: str) -> int:
    """A figure of this process's memory, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{field}:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("role", choices=["aggregator", "client"])
    parser.add_argument("--client-id", default="")
    add_settings(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stall = Stall()
    said: dict[str, Any] = {}
    service: Aggregator | EdgeClient
    updates: Updates | None = None
    if options.role == "aggregator":
        keep_freed_memory()
        service = Aggregator(settings_of(options))
    else:
        service = EdgeClient(settings_of(options), options.client_id, train=train)
        updates = Updates(service)
        train({"w": np.zeros(2 * BLOCK, np.float32)}, Plan())  # with what numpy's generators load
        gc.collect()
        said |= {"before": {field: status(field) for field in ("VmRSS", "RssAnon", "RssFile")}}
        with suppress(OSError):  # then the peak of the imports counts too
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: service.ask_to_stop(signal.Signals(number).name))
    code = service.run().code
    said |= {"stall_seconds": stall.longest, "stall_at": stall.at, "ended_at": time.monotonic()}
    if updates is not None:
        said["update_seconds"], said["accepted"] = updates.seconds, service.accepted  # type: ignore[union-attr]
    said["peak"] = status("VmHWM")
    options.file.write_text(json.dumps(said), encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
