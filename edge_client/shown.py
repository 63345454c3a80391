"""What a device shows of itself: its retained status, for people to look at. Nothing is decided from it."""

from __future__ import annotations

from fedmq.edge_client.meter import Meter
from fedmq.schemas.messages import ClientStatus
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.transport.link import Link, Will

__all__ = ["Shown", "last_will"]

_INTERVAL = 0.5  # seconds between two statuses at least
_CONTRADICTIONS = 10.0  # seconds between two that only contradict an old one at least: bytes may cost money
_TRANSFERS_INTERVAL = 5.0  # the same for how far a transfer is
_DETAIL = 2000  # characters


def last_will(topics: Topics, client_id: str, incarnation: str) -> Will:
    """What the broker says of this client when its connection dies."""
    status = ClientStatus(state="offline", client_id=client_id, incarnation=incarnation)
    return Will(topics.status(client_id), encode(status))


class Shown:
    """The status of one device, and whether the broker has it.

    Args:
        link: to the broker.
        topics: of the federation.
        status: to begin with.
        meter: what was carried today.

    Attributes:
        status: what the device says of itself, now or in a moment.

    """

    def __init__(self, link: Link, topics: Topics, status: ClientStatus, meter: Meter) -> None:
        self.status = status
        self._link = link
        self._topic = topics.status(status.client_id)
        self._meter = meter
        self._sent: ClientStatus | None = None
        self._sent_at = -_INTERVAL
        self._transfers = ""  # as they were said
        self._transfers_at = -_TRANSFERS_INTERVAL
        self._contradict_at: float | None = None
        self._contradicted_at = -_CONTRADICTIONS

    def say(self, **changes: object) -> None:
        """Change some of it; a longer detail is cut."""
        detail = changes.get("detail")
        if isinstance(detail, str):
            changes["detail"] = detail[:_DETAIL]
        self.status = self.status.model_copy(update=changes)

    def carried(self, *, up: int = 0, down: int = 0) -> None:
        """Count payloads."""
        status = self.status
        self.say(uplink_bytes=status.uplink_bytes + up, downlink_bytes=status.downlink_bytes + down)

    def transfers(self, said: str, now: float) -> None:
        """What is being sent or received, empty if nothing is; not in place of anything worse, nor all the time."""
        detail, old = self.status.detail, self._transfers
        if detail not in ("", old) or said == old == detail:
            return
        if said and now < self._transfers_at + _TRANSFERS_INTERVAL:
            return
        if said or detail:
            self._transfers, self._transfers_at = said, now
            self.say(detail=said)

    def publish(self, now: float, *, at_once: bool = False) -> bool:
        """Have the broker show it, if it is news and not too soon; whether it went out."""
        news = self.status != self._sent or (self._contradict_at is not None and now >= self._contradict_at)
        if not news or not (at_once or now >= self._sent_at + _INTERVAL):
            return False
        self.say(**self._meter.today())
        if not self._link.publish(self._topic, encode(self.status), retain=True):
            return False
        self._sent, self._sent_at = self.status, now
        if self._contradict_at is not None:
            self._contradict_at, self._contradicted_at = None, now
        return True

    def contradict(self, now: float) -> None:
        """The broker shows something old in its place: have the present one shown again."""
        if self._contradict_at is None:
            self._contradict_at = max(now, self._contradicted_at + _CONTRADICTIONS)

    def deadline(self) -> float | None:
        """When `publish` is due, if there is a connection."""
        if self.status != self._sent:
            return self._sent_at + _INTERVAL
        return None if self._contradict_at is None else max(self._contradict_at, self._sent_at + _INTERVAL)
