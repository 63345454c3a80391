"""A federation in one process, in virtual time: the real aggregator and the real clients over a broker in memory.

What takes a day in the field takes a second here, and the same seed gives the same bits.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.cohort import plan_of_a_cohort
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.service import AggregatorService
from fedmq.aggregator.state import State, VersionRecord
from fedmq.aggregator.strategies import Strategy, fedbuff
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.job import Made
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.runner import Job
from fedmq.edge_client.service import ClientService
from fedmq.edge_client.shown import last_will
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.messages import AggregatorPresence
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics, check_id
from fedmq.schemas.wire import encode
from fedmq.tasks.initial import built, built_model
from fedmq.tasks.loader import load_task
from fedmq.transport.link import Will
from fedmq.transport.memory import Faults, MemoryBroker, MemoryLink
from fedmq.transport.virtual_time import VirtualTime

if TYPE_CHECKING:
    import torch

    from fedmq.edge_client.trainer import TorchTrainer

__all__ = ["Sandbox"]


class Sandbox:
    """Alice, bob and an aggregator, without a network.

    Args:
        task: path of a task file.
        clients: their ids.
        seed: of version 0, of every client's shuffling, and of the network.
        plan: how to train; the default plan if None.
        strategy: what turns updates into versions; `fedbuff()` if None.
        job_seconds: virtual seconds that a training lasts.
        speeds: factors on that for some clients: 10 is ten times slower.
        snapshot_codec: how the weights travel to devices.
        faults: what the network does to messages.

    Raises:
        ConfigError: the task cannot be used.

    """

    def __init__(
        self,
        task: str | Path,
        clients: Iterable[str],
        *,
        seed: int = 0,
        plan: Plan | None = None,
        strategy: Strategy | None = None,
        job_seconds: float = 1.0,
        speeds: Mapping[str, float] | None = None,
        snapshot_codec: str = "float16",
        faults: Faults = Faults(),  # noqa: B008 (frozen)
    ) -> None:
        self.task = load_task(task)
        strategy = strategy or fedbuff()
        self.plan = plan or Plan()
        if strategy.cohort:
            self.plan = plan_of_a_cohort(self.plan)
        self._seed = seed
        self._snapshot_codec = codec_named(snapshot_codec)
        self._job_seconds = job_seconds
        self._speeds = dict(speeds or {})
        self._ids = count(1)
        self._time = VirtualTime()
        self._broker = MemoryBroker(seed=seed, faults=faults, time=self._time)
        self._topics = Topics("sandbox")
        self._clients: dict[str, _Device] = {}
        self.history: list[VersionRecord] = []
        layout, weights = built(self.task, self.plan, seed)
        state = State.initial(self._id(), layout, weights)
        rules = Rules(run=state.run, layout=layout, max_staleness=self.plan.max_staleness)
        self._core = AggregatorCore(state, strategy, rules, Goal())
        self._aggregator, self._aggregator_link = self._start_aggregator()
        for client_id in clients:
            self.plug(client_id)

    @property
    def version(self) -> int:
        """The newest version."""
        return self._core.state.version

    @property
    def updates(self) -> int:
        """Updates accepted so far."""
        return self._core.state.accepted

    @property
    def uplink_bytes(self) -> int:
        """Of the accepted updates, as they were encoded."""
        return self._core.state.uplink_bytes

    @property
    def mean_staleness(self) -> float:
        """Of all accepted updates, in versions."""
        return self._core.state.mean_staleness

    @property
    def seconds(self) -> float:
        """Virtual seconds that have passed."""
        return self._time.now

    @property
    def clients(self) -> list[str]:
        """The ids of those that are plugged in."""
        return [client_id for client_id, device in self._clients.items() if device.service is not None]

    def run(self, *, versions: int | None = None, seconds: float | None = None) -> int:
        """Let it go on for so many more versions, or virtual seconds, whichever is first; the newest version then.

        Raises:
            ConfigError: neither is given; or no version came in a virtual week, because nobody trains.

        """
        if versions is None and seconds is None:
            raise ConfigError("run() needs versions=… or seconds=…")
        goal = self.version + versions if versions is not None else None
        until = self._time.now + (seconds if seconds is not None else 7 * 86_400.0)
        while (goal is None or self.version < goal) and self._time.now < until:
            self._step(until)
        if goal is not None and seconds is None and self.version < goal:
            plugged = ", ".join(self.clients) or "nobody"
            raise ConfigError(f"no new version in a virtual week; plugged in: {plugged}; {self._complaints()}")
        return self.version

    def plug(self, client_id: str) -> None:
        """Switch a client on: a new one, or one that was unplugged, with what is in its outbox."""
        check_id(client_id, "client id")
        device = self._clients.setdefault(client_id, _Device(self._new_trainer(client_id), self._outbox()))
        if device.service is not None:
            raise ConfigError(f"client {client_id!r} is plugged in already")
        incarnation = self._id()
        device.link = self._broker.link(client_id, will=last_will(self._topics, client_id, incarnation))
        randomness = random.Random(f"{self._seed}/{client_id}/{incarnation}")
        device.service = ClientService(
            link=device.link,
            topics=self._topics,
            client_id=client_id,
            core=ClientCore(incarnation, randomness, device.outbox.pending()),
            incarnation=incarnation,
            outbox=device.outbox,
            training=device.trainer,
            fetch=Fetch(device.link, self._topics, client_id, None, 8),
            runner=_VirtualRunner(self._time, self._job_seconds * self._speeds.get(client_id, 1.0)),
            clock=self._clock,
        )
        device.link.open()

    def unplug(self, client_id: str) -> None:
        """Pull a client's power: what it trains is lost, what is in its outbox is not."""
        device = self._clients.get(client_id)
        if device is None or device.service is None or device.link is None:
            raise ConfigError(f"client {client_id!r} is not plugged in; plugged in: {', '.join(self.clients)}")
        device.link.die()
        device.service = device.link = None

    def model(self, client_id: str | None = None) -> torch.nn.Module:
        """A model with the newest weights; with a client's own local parameters, or else with those of version 0.

        Raises:
            ConfigError: there was never such a client.

        """
        from fedmq.tasks.bridge import load_vector

        if client_id is None:
            model = built_model(self.task, self._seed)
        elif client_id in self._clients:
            model = copy.deepcopy(self._clients[client_id].trainer.model)
        else:
            raise ConfigError(f"client {client_id!r} was never plugged in; known: {', '.join(self._clients)}")
        load_vector(model, self._core.state.layout, self._core.state.weights)
        return model

    def evaluate(self, data: Any = None) -> dict[str, float]:
        """What the newest weights score.

        Args:
            data: a dataset or (inputs, targets); the task's `load_test_data()` if None, or else all clients' test data,
                each with its own local parameters, weighted by samples.

        Raises:
            ConfigError: there is no data to test on.

        """
        from fedmq.tasks.evaluation import evaluate

        if data is None and self.task.load_test_data is not None:
            data = self.task.load_test_data()
        tests = {None: data} if data is not None else {c: d.trainer.data.test for c, d in self._clients.items()}
        results = [evaluate(self.task, self.model(c), test) for c, test in tests.items() if test is not None]
        if not results:
            raise ConfigError("no test data: give evaluate(data), load_test_data(), or Data(train, test)")
        total = sum(samples for _, samples in results)
        return {name: sum(metrics[name] * samples for metrics, samples in results) / total for name in results[0][0]}

    def _step(self, until: float) -> None:
        services = [d.service for d in self._clients.values() if d.service is not None and d.service.stopped is None]
        for device in self._clients.values():
            while device.service is not None and device.link is not None and device.link.waiting:
                event = device.link.poll(0.0)
                assert event is not None
                device.service.handle(event)
        while self._aggregator_link.waiting:
            event = self._aggregator_link.poll(0.0)
            assert event is not None
            self._aggregator.handle(event)
            self._aggregator.tick(idle=True)
        self._aggregator.tick()
        for service in services:
            service.tick()
        # The core's deadline: a progress that nobody watches would make every virtual second a step.
        due = [self._core.deadline(), *(service.deadline() for service in services)]
        self._time.step(min([at for at in due if at is not None] + [until]))

    def _start_aggregator(self) -> tuple[AggregatorService, MemoryLink]:
        incarnation = self._id()
        state = self._core.state
        gone = AggregatorPresence(state="offline", run=state.run, incarnation=incarnation, version=state.version)
        link = self._broker.link("aggregator", will=Will(self._topics.aggregator, encode(gone)), durable=True)
        service = AggregatorService(
            link=link,
            topics=self._topics,
            core=self._core,
            publisher=Publisher(link, self._topics, self.plan, self._snapshot_codec, interval=0.0),
            incarnation=incarnation,
            clock=self._clock,
        )
        service.on_version = self.history.append
        link.open()
        return service, link

    def _new_trainer(self, client_id: str) -> TorchTrainer:
        from fedmq.edge_client.trainer import TorchTrainer

        if client_id in self._clients:
            return self._clients[client_id].trainer
        return TorchTrainer(self.task, client_id, seed=self._seed)

    def _outbox(self) -> Outbox:
        return Outbox(None, new_id=self._id)

    def _id(self) -> str:
        """Ids by counting: in a world of its own they cannot meet another's, and a run stays the same bit for bit."""
        return f"{next(self._ids):032x}"

    def _clock(self) -> float:
        return self._time.now

    def _complaints(self) -> str:
        services = [(client_id, d.service) for client_id, d in self._clients.items() if d.service is not None]
        said = [f"{client_id}: {service.complaint}" for client_id, service in services if service.complaint]
        return "; ".join(said) or "nothing was reported"


class _Device:
    """What of a client outlives its process."""

    def __init__(self, trainer: TorchTrainer, outbox: Outbox) -> None:
        self.trainer = trainer
        self.outbox = outbox
        self.service: ClientService | None = None
        self.link: MemoryLink | None = None


class _VirtualRunner:
    """Trains when a job's virtual time has passed, so that one that is unplugged before that leaves no trace."""

    def __init__(self, time: VirtualTime, seconds: float) -> None:
        self._time = time
        self._seconds = seconds
        self._job: Job | None = None
        self._due = 0.0

    def start(self, job: Job) -> None:
        """Begin."""
        self._job, self._due = job, self._time.now + self._seconds
        self._time.at(self._due, lambda: None)  # so that the clock stops there

    def take(self) -> Made | Exception | None:
        """What came of it."""
        if self._job is None or self._time.now < self._due:
            return None
        job, self._job = self._job, None
        try:
            return job()
        except Exception as error:  # as in the field: the client reports it
            return error
