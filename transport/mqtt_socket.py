"""A connected socket that never blocks, in the shape that paho reads from and writes to."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Generator
from errno import EINPROGRESS, EWOULDBLOCK
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

__all__ = ["Dial", "PacketTooLargeError", "Wire", "dial"]

# As much as one read takes into memory, however long a packet claims to be.
_READ_BYTES = 256 * 1024

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


class Wire:
    """One connection in a selector, with what paho keeps to itself: why it broke, and whether anything moves.

    Attributes:
        held: reads say that nothing is there. Set after a message, so that none is read before it is wanted.
        received_at: time.monotonic() of the last byte that came.
        sent_at: time.monotonic() of the last byte that the network took.
        failure: why reading or writing failed; EOFError when the peer closed.
        closed: paho is done with it.
        max_packet_bytes: a packet that is announced as larger is not read.
        lingers: on closing, only the sending half ends, and `drain` has to follow.

    """

    def __init__(self, sock: socket.socket, selector: BaseSelector, max_packet_bytes: int) -> None:
        self.held = False
        self.received_at = self.sent_at = time.monotonic()
        self.failure: Exception | None = None
        self.closed = False
        self.lingers = False
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

    def recv(self, buffer_size: int) -> bytes:
        """Read for paho, which asks for a packet's header byte by byte and then for all of its body."""
        if self.held:
            raise BlockingIOError
        if buffer_size > self.max_packet_bytes:
            self.failure = PacketTooLargeError(f"a packet of {buffer_size} bytes, the limit is {self.max_packet_bytes}")
            raise self.failure
        try:
            data = self._sock.recv(min(buffer_size, _READ_BYTES))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.failure = error
            raise
        if data:
            self.received_at = time.monotonic()
        else:
            self.failure = EOFError()
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        """Write for paho."""
        try:
            sent = self._sock.send(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.failure = error
            raise
        self.sent_at = time.monotonic()
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
