"""The aggregator's whole way in, behind an enemy that owns the broker, and, where all is signed, two devices' keys."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.fence import Fence
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.room import Room
from fedmq.aggregator.service import AggregatorService
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import Strategy, fedasync, fedavg, fedbuff, multi_krum
from fedmq.aggregator.transfers import Transfers
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.messages import AggregatorPresence
from fedmq.schemas.signing import AGGREGATOR, sealed
from fedmq.schemas.wire import encode
from fedmq.session import AtWork
from fedmq.signed_link import SignedLink, signed_for_the_aggregator
from fedmq.transport.link import Link, Message, Will
from tests.fuzz.accounts import Accounts
from tests.fuzz.choices import Choices
from tests.fuzz.devices import Devices
from tests.fuzz.mutation import altered_bytes, altered_fields, digest, payload
from tests.fuzz.seeds import DEVICE, seeds
from tests.fuzz.updates import LAYOUT, PART, PLAN, RUN, TOPICS
from tests.fuzz.world import HostileBroker, require, require_bounded
from tests.security.signed_world import DEVICES, keys_of

__all__ = ["AggregatorWorld"]

_SESSION = 7
_ME = "a9" * 16
_NAMES = (*DEVICES, *(f"device-{number}" for number in range(30)))
_MOST_MESSAGES = (64 * 1024, 64 * 1024, PART + 7 * 1024)  # the last is too little for a model in one message
_SPOOLS = 1 << 20
_STRATEGIES: tuple[Callable[[], Strategy], ...] = (
    lambda: fedbuff(buffer_size=3),
    lambda: fedbuff(buffer_size=3, one_per_client=True, clip_medians=3.0),
    fedasync,
    lambda: fedavg(clients=4),
    lambda: multi_krum(buffer_size=5),
)


class AggregatorWorld:
    """An aggregator and its enemies.

    Args:
        signed: everything is signed, and the enemy has the keys of two devices.
        number: which strategy, whether there is a folder on the disk, and whether models go in parts.

    """

    def __init__(self, *, signed: bool, number: int) -> None:
        self.over = False
        self._signed = signed
        self._broker = HostileBroker()
        self._folder = Path(tempfile.mkdtemp(prefix="fedmq-fuzz-"))
        stored = number % 4 == 1
        self._store = Store(self._folder, TOPICS.federation, sync=lambda descriptor: None) if stored else None
        self._core = AggregatorCore(
            State.initial(RUN, LAYOUT, np.zeros(LAYOUT.size, np.float32)),
            _STRATEGIES[number % len(_STRATEGIES)](),
            Rules(RUN, LAYOUT, max_staleness=20 if number % 2 else None),
            Goal(),
        )
        gone = encode(AggregatorPresence(state="offline", run=RUN, incarnation=_ME, version=0))
        keys = keys_of(AGGREGATOR)
        if signed:
            gone = sealed(TOPICS.aggregator, gone, _SESSION, keys.sign)
        most = _MOST_MESSAGES[number % len(_MOST_MESSAGES)]
        self._inner = self._broker.link(
            "aggregator", will=Will(TOPICS.aggregator, gone), durable=True, max_message_bytes=most
        )
        link: Link = self._inner
        if signed:
            at_work = AtWork(None)
            at_work.begin(1)  # it has worked before: nothing unsigned is heard
            link = signed_for_the_aggregator(self._inner, TOPICS, keys, _SESSION, at_work)
        self._link = link
        self._transfers = Transfers(Room(self._folder / "parts", _SPOOLS))
        self._service = AggregatorService(
            link=link,
            topics=TOPICS,
            core=self._core,
            publisher=Publisher(link, TOPICS, PLAN, codec_named("float32"), 0.5, self._folder / "parts"),
            incarnation=_ME,
            fence=Fence(_ME),
            store=self._store,
            transfers=self._transfers,
            clock=lambda: self._broker.time.now,
        )
        if isinstance(link, SignedLink):
            link.on_refused = self._service.refused
        self._devices = Devices(_NAMES[:3] if signed else _NAMES)
        self._accounts = Accounts(signed=signed)
        self._others = [fields for _, fields, _ in seeds(DEVICE)]
        link.open()
        self._pass_time(2.0)
        require(self._service.ended is None, "the aggregator does not begin")

    def step(self, choices: Choices) -> None:
        """One input: a message, altered or not, or a moment that passes."""
        kind = choices.byte()
        if kind >= 248:
            self._pass_time(choices.pick((0.01, 1.0, 3.0, 15.0, 130.0)))
            return
        if kind >= 246:
            self._inner.drop()
            self._work(0.201)  # it is connected again, and has not looked yet who else is there
            return
        topic, fields, body = self._devices.message(kind, choices, self._core.state.version)
        how = choices.byte()  # half of the messages are left as they are, so that the enemy gets further
        if 128 <= how < 208:
            fields = altered_fields(fields, choices, self._others)
        if 208 <= how < 216 and body:
            body = altered_bytes(body, choices)
            if choices.below(2):  # under its true digest
                fields = {**fields, "digest": digest(body), "size": len(body)}
        data = payload(fields, body) if fields else body
        data = self._sealed(topic, data, choices)
        if how >= 216:
            data = altered_bytes(data, choices) if how < 252 else self._broker.repeated(choices)
        if how >= 240 and choices.below(2):
            topic = self._devices.other_topic(choices)
        self._accounts.sent(topic, data)
        self._inner.receive(Message(topic, data))
        self._work(0.002)

    def check(self) -> None:
        """All accepted updates were in order, nothing that is remembered grows, and the weights are numbers."""
        if self.over:
            return
        self._pass_time(1.0)
        if self.over:
            return
        state, accepted = self._core.state, self._accounts.accepted
        # A reply may be lost with its connection, and comes again when the update is offered again.
        require(accepted <= state.accepted, f"{accepted} receipts say accepted, {state.accepted} updates are")
        require(np.isfinite(state.weights).all(), "the weights are not finite")
        require_bounded(self._service)
        spooled = sum(path.stat().st_size for path in self._folder.rglob("*.body"))
        require(spooled <= _SPOOLS, f"{spooled} bytes in spools, {_SPOOLS} are allowed")

    def close(self) -> None:
        """Let the folder go."""
        self._transfers.close()
        if self._store is not None:
            self._store.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sealed(self, topic: str, data: bytes, choices: Choices) -> bytes:
        """Signed, most of the time by whose topic it is, if the enemy has that key."""
        if not self._signed:
            return data
        who = choices.pick((*DEVICES, *DEVICES, "stranger")) if choices.chance(40) else TOPICS.sender(topic)
        try:
            return sealed(topic, data, choices.pick((_SESSION, _SESSION + 1, 1)), keys_of(who or "stranger").sign)
        except Exception:
            return data  # it has no header that anybody would sign, or the enemy has no such key

    def _work(self, seconds: float) -> None:
        """Let the aggregator read what has come."""
        time, service = self._broker.time, self._service
        until = time.now + seconds
        while time.step(until):
            pass
        while self._inner.waiting and service.ended is None:
            event = self._link.poll(0.0)
            if event is not None:
                service.handle(event)
        if service.ended is None:
            service.tick(idle=False)
        for message in self._broker.take():
            self._accounts.said(message.topic, message.payload)
        self._has_ended()

    def _pass_time(self, seconds: float) -> None:
        """Ticks, as when nothing is to be read."""
        for _ in range(3):
            self._work(seconds / 3)
            if self.over:
                return
            self._service.tick(idle=True)
            self._has_ended()

    def _has_ended(self) -> None:
        ended = self._service.ended
        if ended is not None:
            require(not self._signed, f"it was ended without a key that says so: {ended.why}")
            code = 2 if "the broker shows" in ended.why else 1
            require(ended.code == code and ("another" in ended.why or code == 2), ended.why)
            self.over = True
