"""A thousand devices: their real cores, behind one connection that hears everything for all of them."""

from __future__ import annotations

import hashlib
import heapq
import random

import numpy as np

from fedmq.edge_client.actions import Action, Delete, SendOffer, Train
from fedmq.edge_client.core import ClientCore
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.messages import AggregatorPresence, Head, Offer, Reply, UpdateId
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.transport.link import Connected, Disconnected, Message
from fedmq.transport.memory import MemoryBroker
from tests.chaos.virtual.one_hot import CAPACITY, LAYOUT

__all__ = ["Fleet"]


class Fleet:
    """Each device trains once, on the first model that it hears, and offers that until it has its verdict.

    Device n adds 1 to count n modulo CAPACITY. A service for each would do the same and take a thousand times as long:
    the broker in memory looks at every subscription for every message.

    Attributes:
        waiting: for each device that has trained, its update without a verdict.
        trained: how many have trained.

    """

    def __init__(self, size: int, broker: MemoryBroker, topics: Topics, seed: int) -> None:
        self.waiting: dict[str, tuple[Offer, bytes]] = {}
        self.trained = 0
        self._random = random.Random(seed)
        self._topics = topics
        self._time = broker.time
        self._link = broker.link("fleet")
        self._cores = {f"device-{n}": ClientCore(f"{n:032x}", random.Random(seed + n), []) for n in range(size)}
        self._due: list[tuple[float, str]] = []
        self._jobs: list[tuple[float, str]] = []
        self._link.open()

    def work(self) -> None:
        """Do what is due now."""
        now = self._time.now
        while self._link.waiting:
            event = self._link.poll(0.0)
            match event:
                case Connected():
                    self._link.subscribe(
                        self._topics.aggregator, self._topics.model, self._topics.reply("x")[:-1] + "+"
                    )
                    for client_id, core in self._cores.items():
                        self._perform(client_id, core.connected(now))
                case Disconnected():
                    for core in self._cores.values():
                        core.disconnected()
                case Message():
                    self._received(event, now)
        while self._jobs and self._jobs[0][0] <= now:
            self._finish_training(heapq.heappop(self._jobs)[1], now)
        while self._due and self._due[0][0] <= now:
            client_id = heapq.heappop(self._due)[1]
            due = self._cores[client_id].deadline()
            if due is not None and due <= now:
                self._perform(client_id, self._cores[client_id].tick(now))

    def deadline(self) -> float | None:
        """When `work` is due even if nothing arrives, in virtual seconds."""
        return min((queue[0][0] for queue in (self._due, self._jobs) if queue), default=None)

    def _received(self, message: Message, now: float) -> None:
        topics = self._topics
        if not message.payload:
            return
        if message.topic == topics.aggregator:
            presence = decode(message.payload, AggregatorPresence)[0]
            for client_id, core in self._cores.items():
                self._perform(client_id, core.presence(presence, now))
        elif message.topic == topics.model:
            head = decode(message.payload, Head)[0]
            for client_id, core in self._cores.items():
                if core.newest is None:
                    self._perform(client_id, core.head(head, True, now))
        else:
            client_id = message.topic.rpartition("/")[2]
            self._perform(client_id, self._cores[client_id].reply(decode(message.payload, Reply)[0], now))

    def _perform(self, client_id: str, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Train() if client_id not in self.waiting:
                    heapq.heappush(self._jobs, (self._time.now + self._random.random(), client_id))
                case SendOffer(_, with_body):
                    offer, body = self.waiting[client_id]
                    self._link.publish(self._topics.update(client_id), encode(offer, body if with_body else b""))
                case Delete():
                    del self.waiting[client_id]
        due = self._cores[client_id].deadline()
        if due is not None:
            heapq.heappush(self._due, (due, client_id))

    def _finish_training(self, client_id: str, now: float) -> None:
        core = self._cores[client_id]
        head = core.training
        assert head is not None
        if self.trained >= len(self._cores) or core.base_version is not None:
            return  # once is enough: a second job never ends
        vector = np.zeros(LAYOUT.size, np.float32)
        vector[int(client_id.removeprefix("device-")) % CAPACITY] = 1.0
        body = bytes(codec_named("float32").encode(vector, LAYOUT))
        offer = Offer(
            run=head.run,
            client_id=client_id,
            update=UpdateId(outbox_id=f"{self._random.getrandbits(128):032x}", sequence=0),
            base_version=head.version,
            layout=LAYOUT.digest,
            codec="float32",
            size=len(body),
            digest=hashlib.sha256(body).hexdigest(),
            num_samples=1,
        )
        self.trained += 1
        self.waiting[client_id] = (offer, body)
        self._perform(client_id, core.trained(offer, [], now))
