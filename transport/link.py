"""What FedMQ needs of a message transport: bytes under topics, one connection, one thread.

A link is pulled: nothing happens behind its owner's back. `poll` does the network's work in the thread that calls it
and returns what came of it, one event at a time, so a slow owner stops the reading, TCP slows the senders, and no inbox
grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["Connected", "Disconnected", "Event", "Link", "Message", "Refused", "Will"]


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has accepted the connection; subscriptions have to be made now, after every one of these.

    Attributes:
        session_present: the broker kept the session of an earlier connection.
        max_packet_bytes: the largest packet that the broker says it takes; None where it does not say.

    """

    session_present: bool = False
    max_packet_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended or could not be made; the link tries again by itself, with jittered back-off.

    Attributes:
        reason: for people: what happened and, where it helps, what to do.
        taken_over: the broker said that another connection with this client id took its place (MQTT 5 only).
        login_refused: the broker does not take this user, password or certificate.

    """

    reason: str
    taken_over: bool = False
    login_refused: bool = False


class Message(NamedTuple):
    """One message. The payload is never written to; it may be viewed for as long as anyone holds it.

    A tuple, because there is one for every update: a frozen dataclass takes three times as long to make.
    """

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker said no to one publish or subscription (MQTT 3.1.1 brokers often say nothing instead)."""

    topic: str
    reason: str


Event = Connected | Disconnected | Message | Refused


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection ends without a goodbye."""

    topic: str
    payload: bytes


class Link(Protocol):
    """One client's connection to a broker, kept up for as long as the link is open.

    Everything but `wake` belongs to the thread that polls.
    """

    @property
    def max_message_bytes(self) -> int:
        """The largest payload that `publish` takes now; a broker that takes less makes it less."""

    @property
    def in_flight(self) -> int:
        """How many publishes at QoS 1 the broker has not acknowledged."""

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes sent and received since the link was made, in packets of whatever kind; TCP and TLS add theirs."""

    def open(self) -> None:
        """Start to connect; the first `poll` calls go on with it.

        Raises:
            ConfigError: these settings, or the files that they name, cannot work.

        """

    def poll(self, timeout: float) -> Event | None:
        """The next event; None when `timeout` seconds brought none or `wake` was called. 0 only takes what is there."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Hand a message to the connection; False, and nothing is kept, while there is none.

        It goes out with the next poll or flush at the latest. True promises nothing: what matters is answered by the
        peer and offered again until it is.
        """

    def subscribe(self, *topics: str) -> None:
        """Ask for topics, at QoS 1; retained messages come at once. Nothing is remembered for the next connection."""

    def unsubscribe(self, *topics: str) -> None:
        """Stop topics. Messages that are on their way still come."""

    def flush(self, timeout: float) -> bool:
        """Work until the broker has taken every publish, at most `timeout` seconds; whether it has.

        Events that come meanwhile are kept for `poll`.
        """

    def wake(self) -> None:
        """Make `poll` return soon. From any thread or signal handler."""

    def close(self) -> None:
        """Say goodbye (no will is published) and end the link. Never raises, never takes longer than two seconds."""
