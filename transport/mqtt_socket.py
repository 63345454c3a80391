"""A connected socket that never blocks, in the shape that paho reads from and writes to."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Generator
from dataclasses import dataclass
from errno import EINPROGRESS, EWOULDBLOCK
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

__all__ = ["Dial", "PacketTooLargeError", "Wire", "dial"]

# What is thrown away at a time.
_READ_BYTES = 256 * 1024
# What small writes are gathered up to.
_GATHERED_BYTES = 64 * 1024

Dial = Generator[tuple[socket.socket, int, float], None, socket.socket]
"""Yields what to wait for: a socket, selector events, and the time.monotonic() at which to throw TimeoutError in."""


def dial(host: str, port: int, context: ssl.SSLContext | None, timeout: float) -> Dial:
    """Connect to the first address of `host` that answers, each in its share of `timeout` seconds.

    Only the name is resolved at once, in the calling thread, for as long as the system's resolver takes.
    Raises OSError (ssl.SSLError is one), or UnicodeError for a name that is none.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        until = time.monotonic() + timeout / len(addresses)
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (code := sock.connect_ex(address)) in (EINPROGRESS, EWOULDBLOCK):
                yield sock, EVENT_WRITE, until
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if context is not None:
                sock = wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
                yield from _handshake(wrapped, until)
            connected, sock = sock, None
        except ssl.SSLError:
            raise  # somebody is there, and another address would only hide what is wrong
        except OSError as error:
            failure = error
        else:
            return connected
        finally:
            if sock is not None:
                sock.close()
    raise failure


def _handshake(sock: ssl.SSLSocket, until: float) -> Generator[tuple[socket.socket, int, float], None, None]:
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            wanted = EVENT_READ
        except ssl.SSLWantWriteError:
            wanted = EVENT_WRITE
        except ConnectionError as error:
            raise ssl.SSLError(error.errno, "the peer hung up") from error
        yield sock, wanted, until


class PacketTooLargeError(OSError):
    """A packet was announced that is larger than the limit; nothing of its body was read."""


@dataclass(slots=True)
class Carried:
    """Bytes that a link's connections have carried."""

    sent: int = 0
    received: int = 0


class Wire:
    """One connection in a selector, with what paho keeps to itself: why it broke, and whether anything moves.

    Attributes:
        held: nothing more is to be read. Set after a message, so that few are read before they are wanted.
        received_at: time.monotonic() of the last byte that came.
        sent_at: time.monotonic() of the last byte that the network took.
        failure: why reading or writing failed; EOFError when the peer closed.
        closed: paho is done with it.
        max_packet_bytes: a packet that is announced as larger is not read.
        lingers: on closing, only the sending half ends, and `drain` has to follow.

    """

    def __init__(
        self, sock: socket.socket, selector: BaseSelector, max_packet_bytes: int, carried: Carried | None = None
    ) -> None:
        self.held = False
        self.received_at = self.sent_at = time.monotonic()
        self.failure: Exception | None = None
        self.closed = False
        self.lingers = False
        self._gathered = bytearray()
        self._carried = carried or Carried()
        self._sock = sock
        self._selector = selector
        self.max_packet_bytes = max_packet_bytes
        self._events = EVENT_READ
        selector.register(sock, self._events)

    def want(self, events: int) -> None:
        """Have the selector wait for these events."""
        if events != self._events and not self.closed:
            self._events = events
            self._selector.modify(self._sock, events)

    def pending(self) -> bool:
        """Whether TLS holds decrypted bytes that the selector does not see."""
        return isinstance(self._sock, ssl.SSLSocket) and not self.closed and self._sock.pending() > 0

    def receive(self, room: memoryview) -> int:
        """Read once into `room`; how many bytes came.

        Raises:
            OSError: BlockingIOError if nothing is there; else the connection is lost, and `failure` says why.

        """
        try:
            count = self._sock.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except OSError as error:
            self.failure = error
            raise
        if not count:
            self.failure = EOFError()
            raise ConnectionError("the peer closed")
        self.received_at = time.monotonic()
        self._carried.received += count
        return count

    def too_large(self, size: int) -> PacketTooLargeError:
        """The error of a packet of this size, which ends the connection."""
        self.failure = PacketTooLargeError(f"a packet of {size} bytes, the limit is {self.max_packet_bytes}")
        return self.failure

    def recv(self, buffer_size: int) -> bytes:
        """Nothing: paho asks for this method, but does not read by itself."""
        raise NotImplementedError("packets are read by a PacketReader")

    @property
    def unsent(self) -> bool:
        """Whether something is gathered for `push`."""
        return bool(self._gathered)

    def send(self, buffer: bytes | bytearray) -> int:
        """Write for paho. What is small is gathered: every write of its own wakes the broker."""
        if self.lingers or len(buffer) > _GATHERED_BYTES:
            self.push()
            return self._send(buffer)
        if len(self._gathered) + len(buffer) > _GATHERED_BYTES:
            self.push()
        self._gathered += buffer
        return len(buffer)

    def push(self) -> None:
        """Write what is gathered.

        Raises:
            OSError: BlockingIOError if the network does not take it all now; else the connection is lost.

        """
        while self._gathered:
            del self._gathered[: self._send(self._gathered)]

    def _send(self, buffer: bytes | bytearray) -> int:
        try:
            sent = self._sock.send(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except OSError as error:
            self.failure = error
            raise
        self.sent_at = time.monotonic()
        self._carried.sent += sent
        return sent

    def skip(self) -> bool:
        """Throw away what has come; whether more may follow."""
        try:
            return bool(self._sock.recv(_READ_BYTES))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False

    def drain(self, timeout: float) -> None:
        """Throw away what comes until the peer has closed too, then close.

        Closing a socket with unread bytes resets the connection, and a broker that sees the reset before the goodbye
        publishes the will.
        """
        deadline = time.monotonic() + timeout
        with contextlib.suppress(OSError, ValueError):
            self._sock.settimeout(timeout)
            while self._sock.recv(_READ_BYTES) and (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)
        self._sock.close()

    def close(self) -> None:
        """End the connection."""
        if self.closed:
            return
        self.closed = True
        self._selector.unregister(self._sock)
        if self.lingers:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        else:
            self._sock.close()

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Nothing: the socket never blocks; paho asks all the same."""
