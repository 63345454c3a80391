"""How ingest.py counts what has arrived: receipts of the aggregator, lines of mosquitto_sub."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from ingest_system import FEDERATION, Process, reset
from ingest_wire import connect, publish_head, subscribe


class Receipts:
    """Counts receipts that say accepted, and ends the benchmark if one says rejected."""

    def __init__(self, port: int, path: Path) -> None:
        self._sock = connect(port, "receipts")
        subscribe(self._sock, f"fedmq/{FEDERATION}/reply/+")
        self._sock.settimeout(0.2)
        self._progress = reset(path)
        self._stopping = False
        self._thread = threading.Thread(target=self._count)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._sock.close()

    def _count(self) -> None:
        words = b"accepted", b"rejected"
        end = b""
        while not self._stopping:
            try:
                data = end + self._sock.recv(1 << 20)
            except TimeoutError:
                continue
            accepted, rejected = (data.count(word) for word in words)
            if rejected:
                print(data, flush=True)
                os._exit(1)
            if accepted:
                self._progress.set(self._progress.count + accepted)
            # A word that is cut in two is counted with what follows; a whole one not again.
            end = data[-(len(words[0]) - 1) :]
            time.sleep(0.001)


class Lines:
    """Counts the lines that mosquitto_sub writes, one for each message."""

    def __init__(self, port: int, subscriber: Process, path: Path) -> None:
        assert subscriber.child.stdout is not None
        self._pipe = subscriber.child.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._await_subscription(port)
        os.set_blocking(self._pipe, True)
        self._progress = reset(path)
        self._thread = threading.Thread(target=self._count)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _await_subscription(self, port: int) -> None:
        with connect(port, "hello") as sock:
            while True:
                sock.sendall(publish_head(f"fedmq/{FEDERATION}/update/hello", 1, 1) + b"x")
                time.sleep(0.05)
                try:
                    os.read(self._pipe, 4096)
                    return
                except BlockingIOError:
                    continue

    def _count(self) -> None:
        while data := os.read(self._pipe, 65536):
            self._progress.set(self._progress.count + data.count(b"\n"))
            time.sleep(0.001)
