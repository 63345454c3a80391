"""A bad network in front of a broker: slow both ways, and cut now and then."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from types import TracebackType
from typing import Self

__all__ = ["SlowLink"]

_CHUNK = 8192


class SlowLink:
    """A proxy of TCP connections to a broker on this machine.

    Args:
        port: of the broker.
        bytes_per_second: each way, for each connection.
        cut: the chance that a connection is cut, for every 100 kB that pass through it.
        cut_up_at: cut every connection when so many bytes have gone to the broker; never if None.
        seed: of the cuts.

    Attributes:
        url: of its own end.
        carried: bytes that went to the broker.
        cuts: how often it has cut.

    """

    def __init__(
        self,
        port: int,
        *,
        bytes_per_second: float,
        cut: float = 0.0,
        cut_up_at: int | None = None,
        seed: int = 0,
    ) -> None:
        self.carried = self.cuts = 0
        self.cut_up_at = cut_up_at
        self._port = port
        self._rate = bytes_per_second
        self._cut = cut
        self._luck = random.Random(seed)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _end(self._server)
        self._threads[0].join()
        for sock in self._sockets:
            _end(sock)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            # Small buffers, as a slow modem has: else megabytes would wait in them, and count as sent.
            for sock in (near, far):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _CHUNK)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _CHUNK)
            self._sockets += [near, far]
            for ends in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._carry, args=(*ends, ends[0] is near)))
                self._threads[-1].start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                time.sleep(len(data) / self._rate)  # the link's speed is what is tested
                sink.sendall(data)
                passed += len(data)
                self.carried += len(data) if up else 0
                at_its_place = up and self.cut_up_at is not None and passed >= self.cut_up_at
                if at_its_place or self._luck.random() < self._cut * len(data) / 100_000:
                    self.cuts += 1
                    break
        _end(source)
        _end(sink)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
