"""What clients say, taken in: who may speak, and whether it is an offer, a part, a wish or a status.

Verdicts on what they offer are reached in `verdicts`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from fedmq.aggregator.commits import Commits
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.disk_fault import DiskFault
from fedmq.aggregator.door import Door
from fedmq.aggregator.gate import Gate
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.transfers import Transfers
from fedmq.aggregator.verdicts import Verdicts
from fedmq.schemas.errors import ProtocolError, StoreError
from fedmq.schemas.messages import ClientStatus, Need, Offer, Part
from fedmq.schemas.topics import Topics, is_id
from fedmq.schemas.wire import decode
from fedmq.transport.link import Link, Message

__all__ = ["Reception"]

_MOST_STATUS_BYTES = 1 << 16  # that is kept for a moment; no header may be larger


class Reception:
    """Between the link and the verdicts.

    Args:
        link: to the broker.
        topics: of the federation.
        core: what decides.
        gate: whether updates may be taken.
        commits: told of what is to be committed.
        disk: whether it works.
        publisher: asked for parts of snapshots, and what shows who was heard.
        transfers: takes updates that come in parts; None for links on which any message fits.
        door: who is listened to.
        verdicts: told of what is offered.
        most_bytes: of a message; None for what the link takes.
        now: seconds of the run.

    """

    def __init__(
        self,
        *,
        link: Link,
        topics: Topics,
        core: AggregatorCore,
        gate: Gate,
        commits: Commits,
        disk: DiskFault,
        publisher: Publisher,
        transfers: Transfers | None,
        door: Door,
        verdicts: Verdicts,
        most_bytes: int | None,
        now: Callable[[], float],
    ) -> None:
        self._core = core
        self._link = link
        self._topics = topics
        self._updates = topics.updates.removesuffix("+")
        self._gate = gate
        self._commits = commits
        self._disk = disk
        self._publisher = publisher
        self._transfers = transfers
        self._door = door
        self._verdicts = verdicts
        self._most_bytes = most_bytes or sys.maxsize
        self._statuses: dict[str, Message] = {}  # each client's newest, while the core or its buffer is a thread's
        self._now = now

    @property
    def coming_until(self) -> float:
        """The time until which another update most likely comes to be judged."""
        if self._verdicts.someone_waits:
            return float("inf")
        return float("-inf") if self._transfers is None else self._transfers.coming_until

    def received(self, message: Message) -> bool:
        """Take in what a client said or shows; whether a client writes on this topic.

        Raises:
            ProtocolError: it cannot be read.

        """
        topic = message.topic
        if topic.startswith(self._updates):
            client_id = topic[len(self._updates) :]
            if not is_id(client_id):
                raise ProtocolError("malformed", f"{client_id[:80]!r} is no client id")
            if self._door.holds(client_id):
                # Nothing is said before the gate opens: it may stay closed, and who has heard a later start heeds no
                # earlier one.
                if self._gate.open and (later := self._door.hold_off(client_id, message.payload)) is not None:
                    self._verdicts.say(client_id, later)
            else:
                self._told(client_id, message)
            return True
        sender = self._topics.sender(topic)
        if sender is None:
            return False
        if message.payload:
            self._door.wasted(sender)
            if self._verdicts.at_work:
                if len(message.payload) > _MOST_STATUS_BYTES:
                    raise ProtocolError("too_large", f"a status of {len(message.payload)} bytes")
                self._statuses[sender] = message
            else:
                self._take_status(sender, message)
        return True

    def settle(self) -> None:
        """Have the core count and hear what came while it was a thread's, if it and its buffer are none now."""
        if self._verdicts.at_work:  # whoever is gone or shut out may be the last that a cohort waits for
            return
        for client_id in self._door.settle():
            self._verdicts.shut_out(client_id)
        statuses, self._statuses = self._statuses, {}
        for client_id, message in statuses.items():
            try:
                self._take_status(client_id, message)
            except ProtocolError as error:
                self._door.unreadable(message.topic, message.payload, error)

    def let_go(self, now: float) -> None:
        """Release from quarantine whose time is over, and whom somebody has released; to be called now and then.

        Who is revoked counts no more among those that measure, are heard and are waited for.
        """
        if self._verdicts.busy:
            return
        if not self._verdicts.at_work:
            for client_id in self._door.out() & self._core.cohort.online:
                self._core.presence(client_id, False, now)
                self._commits.judged(now)
        if self._door.let_go(now):
            self._commits.judged(now)
            if self._core.strategy.cohort and self._gate.open:
                self._link.subscribe(self._topics.statuses)  # theirs were not read: the broker shows them again
        if self._gate.online:
            for client_id, later in self._door.heard_again():
                self._verdicts.repeat(client_id, later)
        self._publisher.unheard(self._door.out())

    def committing(self) -> None:
        """All that was decided until now is in the commit that begins."""
        self._door.committing()
        if self._transfers is not None:
            self._transfers.committing()

    def committed(self) -> None:
        """The commit that had begun is on the disk."""
        self._door.committed()
        if self._transfers is not None:
            self._transfers.committed()

    def forget(self) -> None:
        """What is in no commit did not happen."""
        self._verdicts.forget()
        self._door.forget()
        if self._transfers is not None:
            self._transfers.forgotten()

    def reloaded(self, core: AggregatorCore) -> None:
        """The core that goes on from the last commit."""
        self.forget()
        self._core = self._door.core = core
        self._verdicts.reloaded(core)

    def _take_status(self, client_id: str, message: Message) -> None:
        """A client came or went. Raises ProtocolError: it cannot be read."""
        if self._door.holds(client_id):
            self._core.state.later["quarantine"] += 1
            return
        if client_id in self._door.out():
            self._core.state.rejected["revoked"] += 1
            return
        status, _ = decode(message.payload, ClientStatus)
        self._core.presence(client_id, status.state == "online", self._now())

    def _told(self, client_id: str, message: Message) -> None:
        """A client told something about an update or a snapshot. Raises ProtocolError: it cannot be read."""
        if len(message.payload) > self._most_bytes:
            raise ProtocolError("too_large", f"a message of {len(message.payload)} bytes, at most {self._most_bytes}")
        if not self._gate.open:
            self._gate.hold(message)
            return
        said, body = decode(message.payload, Offer, Part, Need)
        self._verdicts.heard(client_id)
        accepted, useful = self._core.state.accepted, False
        if client_id in self._door.out():
            if isinstance(said, Offer):
                self._verdicts.turn_away(client_id, said)
        elif isinstance(said, Offer):
            begun = 0 if body else self._begun
            self._verdicts.offered(client_id, said, body)
            useful = not body and self._begun > begun
        elif isinstance(said, Part):
            lacked = self._lacks(client_id, said, len(body))
            self._take_part(client_id, said, body)
            useful = lacked and not self._lacks(client_id, said, len(body))  # there was room for it, and a disk
        elif isinstance(said, Need):
            self._publisher.need(client_id, said, self._now())
        if not useful and self._core.state.accepted == accepted:
            self._door.wasted(client_id)

    def _lacks(self, client_id: str, part: Part, size: int) -> bool:
        return self._transfers is not None and self._transfers.lacks(client_id, part, size)

    @property
    def _begun(self) -> int:
        """How many updates in parts have begun to come."""
        return self._transfers.begun if self._transfers is not None else 0

    def _take_part(self, client_id: str, part: Part, body: memoryview) -> None:
        if self._transfers is None or self._disk.why is not None:
            return
        self._publisher.heard(client_id)
        try:
            answer = self._transfers.take(client_id, part, body, self._now())
        except StoreError as error:
            self._verdicts.no_room(client_id, part.update, error)
            return
        if isinstance(answer, Offer):
            self._verdicts.complete(client_id, answer)
        elif answer is not None:
            self._verdicts.say(client_id, answer)
