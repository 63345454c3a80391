"""A device's whole way in, behind an enemy that owns the broker.

What leaves the outbox is compared with the receipts that an independent reading finds in what was sent. Where all is
signed, the enemy has no key of the aggregator: it can drop, repeat and alter what that has said, and nothing more.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import numpy as np

from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.job import Made
from fedmq.edge_client.outbox import MOST_UPDATES, Outbox
from fedmq.edge_client.runner import Job
from fedmq.edge_client.service import ClientService
from fedmq.edge_client.training import LocalState, Outcome
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import AGGREGATOR, sealed
from fedmq.signed_link import SignedLink, in_order, of_a_device
from fedmq.transport.link import Link, Message
from tests.fuzz.accounts import header
from tests.fuzz.choices import Choices
from tests.fuzz.mutation import altered_bytes, altered_fields, digest, payload
from tests.fuzz.seeds import seeds
from tests.fuzz.updates import LAYOUT, PART, TOPICS, WEIGHTS
from tests.fuzz.voice import Voice
from tests.fuzz.world import HostileBroker, require, require_bounded
from tests.security.signed_world import keys_of, newest_heard

__all__ = ["DeviceWorld"]

_NAME = "dev-1"
_ME = "d1" * 16
_SESSION = 7  # of the aggregator
_MOST_MESSAGE = PART + 7 * 1024  # so that an update of 8 KB goes in parts


class _Training:
    """Adds a little; knows the weights that it may be given, where no others may come through."""

    task_version = "1"

    def __init__(self, layout: Layout | None, allowed: frozenset[str] | None) -> None:
        self._layout = layout
        self._allowed = allowed
        self.trained = 0

    def layout(self, plan: Plan) -> Layout | None:
        return self._layout

    def restore(self, local: LocalState) -> None:
        raise NotImplementedError("nothing stays")

    def train(self, weights: Vector, layout: Layout, plan: Plan) -> Outcome:
        if self._allowed is not None and digest(weights.tobytes()) not in self._allowed:
            raise AssertionError("it trains weights that the aggregator never showed")
        self.trained += 1
        return Outcome(np.full(layout.size, 0.01, np.float32), num_samples=1, metrics={})


class _Runner:
    """A job is done when it is asked for."""

    def __init__(self) -> None:
        self._job: Job | None = None

    def start(self, job: Job) -> None:
        self._job = job

    def take(self) -> Made | Exception | None:
        job, self._job = self._job, None
        if job is None:
            return None
        try:
            return job()
        except AssertionError:
            raise
        except Exception as error:  # as in the field: the client reports it
            return error


class DeviceWorld:
    """A device and its enemies.

    Args:
        signed: everything is signed, and the enemy has no key.
        number: whether the device knows its layout, and whether models come into a file.

    """

    def __init__(self, *, signed: bool, number: int) -> None:
        self.over = False
        self._signed = signed
        self._broker = HostileBroker()
        self._folder = Path(tempfile.mkdtemp(prefix="fedmq-fuzz-"))
        self._outbox = Outbox(None)
        self._inner = self._broker.link(_NAME, max_message_bytes=_MOST_MESSAGE)
        link: Link = self._inner
        if signed:
            keys = keys_of(_NAME)
            fresh = of_a_device(TOPICS, _NAME, 3, in_order(TOPICS, newest_heard(keys, self._outbox)))
            link = SignedLink(self._inner, TOPICS, keys, 3, fresh)
        self._link = link
        shown = frozenset(body.digest for body in WEIGHTS)
        self._knows = number % 2 == 0
        self._training = _Training(LAYOUT if self._knows else None, shown if signed else None)
        self._fetch = Fetch(link, TOPICS, _NAME, self._folder / "model.body" if number % 4 > 1 else None, 8)
        self._core = ClientCore(_ME, random.Random(number), [])
        self._service = ClientService(
            link=link,
            topics=TOPICS,
            client_id=_NAME,
            core=self._core,
            incarnation=_ME,
            outbox=self._outbox,
            training=self._training,
            runner=_Runner(),
            fetch=self._fetch,
            clock=lambda: self._broker.time.now,
            step=self._stepped,
        )
        if isinstance(link, SignedLink):
            link.on_refused = self._service.refused
        self._voice = Voice(_NAME, honest=signed)
        self._stored: dict[int, set[str]] = {}  # by sequence number, the outbox ids that the update had
        self._receipts: set[tuple[str, int]] = set()
        self._finished = False
        self._old: list[tuple[str, bytes]] = []  # what the aggregator has said
        self._others = [fields for _, fields, _ in seeds(_NAME)]
        link.open()
        self._pass_time(0.5)

    def step(self, choices: Choices) -> None:
        """One input: a message, altered or not, or a moment that passes."""
        kind = choices.byte()
        if kind >= 240:
            self._pass_time(choices.pick((0.01, 1.0, 3.0, 15.0, 130.0, 4000.0)))
            return
        if kind >= 238:
            self._inner.drop()
            self._pass_time(5.0)
            return
        topic, fields, body = self._voice.message(kind, choices, self._outbox.pending(), self._core.newest)
        how = choices.byte()
        if not self._signed and 128 <= how < 208:
            fields = altered_fields(fields, choices, self._others)
        if not self._signed and 208 <= how < 216:
            body = altered_bytes(body, choices)
            if choices.below(2) and "digest" in fields:
                fields = {**fields, "digest": digest(body), "size": len(body)}
        data = self._sealed(topic, payload(fields, body), choices)
        if self._signed and 128 <= how < 176:
            topic, data = choices.pick(self._old or [(topic, data)])
        elif how >= 216 or (self._signed and how >= 128):
            data = altered_bytes(data, choices) if choices.below(8) else self._broker.repeated(choices)
        if how >= 240 and choices.below(2):
            topic = self._voice.other_topic(choices)
        self._note(topic, data)
        self._inner.receive(Message(topic, data))
        self._work(0.002)

    def check(self) -> None:
        """Nothing has left the outbox without a receipt, and nothing that is remembered grows."""
        waiting = {offer.update.sequence for offer in self._outbox.pending()}
        newest = max(self._stored, default=0)
        for sequence in set(self._stored) - waiting:
            ids = self._stored[sequence]
            told = any((outbox_id, sequence) in self._receipts for outbox_id in ids)
            require(told or sequence <= newest - MOST_UPDATES, f"update {sequence} is gone without a receipt")
        require(len(waiting) <= MOST_UPDATES, f"{len(waiting)} updates in the outbox")
        require_bounded(self._service)
        require(len(self._service.complaint) <= 2000, "a complaint without an end")
        if self._knows:
            size = sum(path.stat().st_size for path in self._folder.iterdir())
            require(size <= 4 * LAYOUT.size + 128 * 1024, f"{size} bytes of models")

    def close(self) -> None:
        """Let the folder go."""
        self._fetch.close()
        self._outbox.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sealed(self, topic: str, data: bytes, choices: Choices) -> bytes:
        """What the aggregator says, most of the time in its present session; or what a stranger signs."""
        if not self._signed:
            return data
        session = _SESSION - choices.below(3) if choices.chance(10) else _SESSION
        who = "stranger" if choices.chance(6) else AGGREGATOR
        data = sealed(topic, data, session, keys_of(who).sign)
        if who == AGGREGATOR:
            self._old.append((topic, data))
            del self._old[:-64]
        return data

    def _note(self, topic: str, data: bytes) -> None:
        """Read, without any of the code that is tested, which updates have a verdict now."""
        if self._signed and (topic, data) not in self._old:
            return
        try:
            found, _ = header(data)
            if topic == TOPICS.reply(_NAME):
                for receipt in found["receipts"]:
                    self._receipts.add((receipt["update"]["outbox_id"], receipt["update"]["sequence"]))
            elif found["state"] == "finished":
                self._finished = True
        except Exception:
            return  # whatever is wrong with it, it says nothing

    def _stepped(self, name: str) -> None:
        if name == "stored":
            update = self._outbox.pending()[-1].update
            self._stored.setdefault(update.sequence, set()).add(update.outbox_id)

    def _work(self, seconds: float) -> None:
        time, service = self._broker.time, self._service
        until = time.now + seconds
        while time.step(until):
            pass
        while self._inner.waiting and service.stopped is None:
            event = self._link.poll(0.0)
            if event is not None:
                service.handle(event)
                if service.stopped is None:
                    service.tick()
        self._read_offers()
        if service.stopped is not None:
            self._may_stop(service.stopped.code, service.stopped.why)

    def _pass_time(self, seconds: float) -> None:
        for _ in range(3):
            self._work(seconds / 3)
            if self.over:
                return
            self._service.tick()
            if self._service.stopped is not None:
                self._may_stop(self._service.stopped.code, self._service.stopped.why)

    def _read_offers(self) -> None:
        """An update that has another id now is offered under it."""
        for message in self._broker.take():
            if message.topic != TOPICS.update(_NAME):
                continue
            said, _ = header(message.payload)
            if said["kind"] == "offer":
                update = said["update"]
                self._stored.setdefault(update["sequence"], set()).add(update["outbox_id"])

    def _may_stop(self, code: int, why: str) -> None:
        if self._signed:
            require(self._finished and code == 0, f"it was stopped without a key that says so: {why}")
        require(code in (0, 1, 2) and why, f"it stopped with {code}: {why}")
        self.over = True
