"""Whether what a device sends leads anywhere: some refuse it with a reason, and some say nothing."""

from __future__ import annotations

import logging

from fedmq.edge_client.shown import Shown
from fedmq.edge_client.turned_away import UNANSWERED, of_a_topic, of_an_id
from fedmq.schemas.topics import Topics

__all__ = ["Echo"]

log = logging.getLogger("fedmq.client")

_STATUS_SECONDS = 30.0
_UPDATE_SECONDS = 120.0  # an aggregator may be busy


class Echo:
    """Listens for the device's own status and for answers, and complains in the status and in the log.

    A broker of MQTT 3.1.1 has no way to refuse a message: it takes it and passes it on to nobody. An aggregator does
    not answer what is not signed with a key that it knows.

    Args:
        shown: the device's status.
        topics: of the federation.
        client_id: the device's.

    """

    def __init__(self, shown: Shown, topics: Topics, client_id: str) -> None:
        self._shown = shown
        self._client_id = client_id
        own = topics.status(client_id)
        self._own = (own, topics.update(client_id), topics.reply(client_id))
        lost = f"what this device sends to {own} does not come back from the broker; {of_an_id(client_id)}"
        self._status = _Wait(_STATUS_SECONDS, lost)
        self._updates = _Wait(_UPDATE_SECONDS, UNANSWERED)

    def status_sent(self, now: float) -> None:
        """The status went out."""
        self._status.begin(now)

    def update_sent(self, now: float) -> None:
        """Something of an update went out, to an aggregator that is online."""
        self._updates.begin(now)

    def status_heard(self) -> None:
        """It came back."""
        self._over(self._status)

    def answered(self) -> None:
        """The aggregator has answered."""
        self._over(self._status)
        self._over(self._updates)

    def disconnected(self) -> None:
        """What was sent may be lost."""
        self._status.since = self._updates.since = None

    def aggregator_gone(self) -> None:
        """Nobody is there who would answer."""
        self._updates.since = None

    def refused(self, topic: str, reason: str) -> None:
        """The broker refused to pass on what is sent to this topic, or what comes from it."""
        said = f"{topic}: {reason}"
        if topic in self._own:
            said = of_a_topic(topic, reason, self._client_id)
            self.disconnected()  # nothing more is to be found out
        log.error("refused client=%s detail=%r", self._client_id, said)
        self._shown.say(detail=f"the broker refused {said}")

    def tick(self, now: float) -> None:
        """Complain of what has not come for long."""
        for wait in (self._status, self._updates):
            if wait.is_over(now):
                self.disconnected()  # until something is sent again; of two complaints the first is the reason
                log.error("unheard client=%s detail=%r", self._client_id, wait.complaint)
                self._shown.say(detail=wait.complaint)

    def _over(self, wait: _Wait) -> None:
        wait.since = None
        if self._shown.status.detail == wait.complaint:
            self._shown.say(detail="")


class _Wait:
    """From the first message that has no answer on, if there is any."""

    def __init__(self, seconds: float, complaint: str) -> None:
        self.complaint = complaint
        self.since: float | None = None
        self._seconds = seconds

    def begin(self, now: float) -> None:
        if self.since is None:
            self.since = now

    def is_over(self, now: float) -> bool:
        return self.since is not None and now >= self.since + self._seconds
