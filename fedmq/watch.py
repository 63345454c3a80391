"""Looking at a federation from outside: the retained topics, gathered."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any, Literal, Self

from fedmq.connect import mqtt_link
from fedmq.keys import watch_keys
from fedmq.printable import printable
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import AggregatorPresence, ClientStatus, Progress, Quarantined
from fedmq.schemas.signing import opened
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode
from fedmq.settings import Settings
from fedmq.signed_link import OLD, SignedLink, of_who_looks
from fedmq.status_text import client_text, clients_table, not_shown, quarantined, run_text
from fedmq.transport.link import Connected, Disconnected, Link, Message
from fedmq.unheard import Unheard

__all__ = ["Watch"]

_UNVERIFIED = {
    "all": "what is shown is signed, and not verified: without signing.aggregator_keys_file nobody can tell who said"
    " it; the operator's bundle has the keys",
    "devices": "what devices show is signed, and not verified: without signing.device_keys_file nobody can tell who"
    " said it; the operator's bundle has the keys",
}


class Watch:
    """What a federation's topics say; a context manager. It writes nothing, but for `clear`.

    Attributes:
        connected: to the broker.
        trouble: why not, for people.
        aggregator, progress: the last heard; None until then.
        clients: the last status of each client.
        failing: clients whose last training failed, and why, as their statuses said it.
        unheard: topics on which the last word shows nothing, and why.
        unverified: what is signed, and without keys nobody can tell by whom; "" if nothing is.

    """

    def __init__(self, settings: Settings, mqtt_client_id: str) -> None:
        self.connected = False
        self.trouble = ""
        self.aggregator: AggregatorPresence | None = None
        self.progress: Progress | None = None
        self.clients: dict[str, ClientStatus] = {}
        self.failing: dict[str, str] = {}
        self.unverified: Literal["", "devices", "all"] = ""
        self._topics = Topics(settings.federation)
        self.unheard = Unheard(self._topics)
        self._mqtt = mqtt_link(settings.broker, mqtt_client_id)
        self._link: Link = self._mqtt
        self._keys = watch_keys(settings.signing)
        self._knows_devices = settings.signing.device_keys_file is not None
        self._signed: SignedLink | None = None
        if self._keys is not None:
            fresh = of_who_looks(self._topics, self._keys)
            # What is refused is shown, so it needs no line in the log.
            self._link = self._signed = SignedLink(self._link, self._topics, self._keys, 0, fresh, logs=False)
            self._signed.on_refused = self._refused
        self._said_in = 0  # the session of `aggregator`
        self._asked: set[str] = set()

    def __enter__(self) -> Self:
        self._link.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._link.close()

    @property
    def known(self) -> int:
        """Topics that something has been heard on."""
        heard = len(self.clients) + (self.aggregator is not None) + (self.progress is not None)
        return heard + len(self.unheard)

    @property
    def ending(self) -> list[str]:
        """A sentence for each certificate in use that ends soon."""
        now = time.time()
        return [one.warning(now) for one in self._mqtt.certificates if one.ends_soon(now)]

    @property
    def refused(self) -> int:
        """Messages that were not signed by whose they should be; 0 without keys."""
        return self._signed.refused if self._signed is not None else 0

    def ask(self, *client_ids: str) -> None:
        """Hear these clients by their exact topics: some brokers keep nothing retained for a filter with `+`."""
        new = [client_id for client_id in client_ids if client_id not in self._asked]
        self._asked.update(new)
        if self.connected and new:
            self._link.subscribe(*(self._topics.status(client_id) for client_id in new))

    def poll(self, timeout: float) -> bool:
        """Wait for one piece of news; whether there was one."""
        event = self._link.poll(timeout)
        if isinstance(event, Connected):
            self.connected = True
            topics = self._topics
            exact = (topics.status(client_id) for client_id in self._asked)
            self._link.subscribe(topics.aggregator, topics.progress, topics.statuses, *exact)
        elif isinstance(event, Disconnected):
            self.connected, self.trouble = False, event.reason
        elif isinstance(event, Message) and event.payload:
            try:
                self.unheard.heard(event.topic)
                return self._take(event)
            except ProtocolError as error:
                self.trouble = printable(f"{event.topic}: {error}")
                self.unheard.refused(event.topic, f"it cannot be read: {error}")
        return False

    def clear(self) -> None:
        """Remove everything that this federation has left retained, as far as it was heard. For testbeds."""
        topics = self._topics
        for topic in (
            topics.aggregator,
            topics.model,
            topics.layout,
            topics.progress,
            *map(topics.status, self.clients),
        ):
            self._link.publish(topic, b"", retain=True)
        self._link.flush(2.0)

    def as_json(self, client_id: str | None = None) -> str:
        """Everything, or one client, as JSON."""
        clients = {name: status.model_dump() for name, status in sorted(self.clients.items())}
        if client_id is not None:
            known, held, unheard = clients.get(client_id), self._held(client_id), self.unheard.clients.get(client_id)
            more: dict[str, Any] = {"quarantine": held.model_dump()} if held is not None else {}
            more |= {"unheard": unheard} if unheard is not None else {}
            more |= {"unverified": self.unverified} if self.unverified and (known or more) else {}
            return json.dumps(known if not more else (known or {}) | more)
        run = {"aggregator": self.aggregator, "progress": self.progress}
        return json.dumps(
            {key: value.model_dump() if value else None for key, value in run.items()}
            | {"clients": clients, "refused": self.refused, "unheard": self.unheard.clients}
            | {"unverified": self.unverified}
        )

    def describe(self, client_id: str | None = None) -> str:
        """Everything, or one client, for people; empty if nothing is known."""
        unverified = [_UNVERIFIED[self.unverified]] if self.unverified else []
        if client_id is not None:
            known = [client_text(self.clients[client_id])] if client_id in self.clients else []
            unheard = self.unheard.clients.get(client_id)
            held = self._held(client_id)
            known += [not_shown(client_id, unheard)] if unheard is not None else []
            known += [quarantined(held)] if held else []
            return "\n".join([*unverified, *known]) if known else ""
        lines = [*unverified, *self.unheard.of_the_run]
        if self.refused:
            lines.append(
                f"{self.refused} messages are refused, because they are old or not signed by whose they should be"
            )
        table = clients_table(self.clients, self.unheard.clients)
        return "\n".join([*lines, *run_text(self.aggregator, self.progress), *table])

    def _refused(self, topic: str, why: str) -> None:
        if why != OLD or self._topics.sender(topic) not in self.clients:  # of a replay, what is known stays
            self.unheard.refused(topic, why)

    def _session(self, message: Message) -> int:
        signed = opened(message.topic, message.payload) if self._signed is not None else None
        return signed.session if signed is not None else 0

    def _held(self, client_id: str) -> Quarantined | None:
        held = self.progress.quarantine if self.progress else ()
        return next((one for one in held if one.client_id == client_id), None)

    def _take(self, message: Message) -> bool:
        if not message.payload:
            return False  # a retained message that was cleared, or an aggregator's mark
        blind = self._signed is None or (not self._knows_devices and self._topics.sender(message.topic) is not None)
        if blind and not self.unverified and opened(message.topic, message.payload) is not None:
            self.unverified = "all" if self._signed is None else "devices"
        if message.topic == self._topics.aggregator:
            presence = decode(message.payload, AggregatorPresence)[0]
            if presence.state != "starting":  # it may never come to more
                self.aggregator, self._said_in = presence, self._session(message)
        elif message.topic == self._topics.progress:
            progress, shown = decode(message.payload, Progress)[0], self.progress
            if shown is not None and shown.run == progress.run and shown.updates > progress.updates:
                return False  # repeated: what is committed never becomes less
            self.progress = progress
            if self._session(message) > self._said_in:
                self.aggregator = None  # what it said of itself is from before it was last let in
            self.ask(*self.progress.clients)
        elif client_id := self._topics.sender(message.topic):
            status = decode(message.payload, ClientStatus)[0]
            known = self.clients.get(client_id)
            if status.client_id != client_id:
                self.unheard.refused(message.topic, f"it is in the name of {status.client_id!r}")
                return False
            if status.state == "offline" and status.connection == 0 and known is not None:
                if known.incarnation != status.incarnation:
                    return False  # an older process's last will, late
                # A last will says only that it went; what it did before is still of interest.
                status = known.model_copy(update={"state": "offline"})
            self.clients[client_id] = status
            if status.activity == "error":
                self.failing[client_id] = status.detail
            elif status.activity == "waiting":  # it has trained; one that tries again, or ends, has not
                self.failing.pop(client_id, None)
        return True
