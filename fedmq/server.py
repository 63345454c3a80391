"""The aggregator as a program or an object: from settings to a running service."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.attention import Attention
from fedmq.aggregator.cohort import plan_of_a_cohort
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.evaluator import Evaluate, ThreadEvaluator
from fedmq.aggregator.export import read_run
from fedmq.aggregator.fence import Fence
from fedmq.aggregator.limits import limits, outpaced
from fedmq.aggregator.publisher import Publisher
from fedmq.aggregator.releases import Releases
from fedmq.aggregator.revoked import Revoked
from fedmq.aggregator.room import Room, spool_bytes
from fedmq.aggregator.service import AggregatorService, Ending
from fedmq.aggregator.state import State, VersionRecord
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import Strategy
from fedmq.aggregator.transfers import Transfers
from fedmq.attentive_link import AttentiveLink
from fedmq.background import Background
from fedmq.beginning import Beginning, has_torch
from fedmq.blame import faults_of
from fedmq.broker_config.plain_text import in_plain_text
from fedmq.connect import check_login, most_message_bytes, mqtt_link
from fedmq.failpoints import crash_points
from fedmq.keys import aggregator_keys, device_ids
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.messages import AggregatorPresence, Metrics
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import Keys, sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.session import AtWork, next_session
from fedmq.settings import Settings, load_settings
from fedmq.signed_link import SignedLink, signed_for_the_aggregator
from fedmq.tasks.contract import Task
from fedmq.tasks.faults import doing
from fedmq.tasks.loader import load_task
from fedmq.transport.link import Link, Will

__all__ = ["Aggregator", "Version"]

log = logging.getLogger("fedmq.aggregator")

_KEPT_VERSIONS = 1000


@dataclass(frozen=True, slots=True)
class Version:
    """A new version, as `Aggregator.versions` gives it.

    Attributes:
        version: its number.
        updates: how many updates made it.
        mean_staleness: of these, in versions.
        why: why it was made now: full, timer, cohort, offline, deadline or goal.
        seconds: of the run, when it was made.

    """

    version: int
    updates: int
    mean_staleness: float
    why: str
    seconds: float


class _Named(NamedTuple):
    """What is in the files that the settings name.

    Attributes:
        keys: None if nothing is signed.
        devices: says which have keys; None if nothing is signed.
        revoked: devices that are out.

    """

    keys: Keys | None
    devices: Callable[[], frozenset[str]] | None
    revoked: Revoked


class Aggregator:
    """An aggregator; a context manager that works in a thread of its own.

    Example:
        with fedmq.Aggregator("federation.toml") as aggregator:
            for version in aggregator.versions():
                print(version.version, version.mean_staleness)

    Args:
        settings: the path of a federation's file, or settings.
        strategy: in place of the one that the settings name, such as `fedmq.fedbuff(buffer_size=10)`.
        new_run: begin another run with version 0; a run that is in the folder is kept aside in it, and its weights are
            the ones to begin with unless `init_from` says others.
        init_from: with `new_run`, a run's folder or a safetensors file; entries of equal name and shape are taken.
        replace: begin even if the broker shows another run of this federation.

    Raises:
        ConfigError: settings or task cannot work.
        StoreError: the run's folder cannot be used.

    """

    def __init__(
        self,
        settings: Settings | str | Path,
        *,
        strategy: Strategy | None = None,
        new_run: bool = False,
        init_from: str | Path | None = None,
        replace: bool = False,
    ) -> None:
        if init_from is not None and not new_run:
            raise ConfigError("--init-from goes with --new-run: a run that goes on has its weights")
        self.settings = settings if isinstance(settings, Settings) else load_settings(settings)
        self.settings.check_aggregator()
        self.task = load_task(self.settings.task) if self.settings.task else None
        self.strategy = strategy or self.settings.aggregator.build_strategy()
        self._step = crash_points()
        plan = plan_of_a_cohort(self.settings.plan) if self.strategy.cohort else self.settings.plan
        # All that can be wrong with settings and task comes before there is a folder: nothing is left of such a start.
        named = self._named()
        begin = Beginning(self.settings, self.task, plan, init_from)
        most = spool_bytes(self.settings.aggregator.spool_bytes, self._rules("", begin.layout, plan, named).most_bytes)
        evaluate = self._evaluation(begin.layout)
        self._store = Store(self.settings.run_folder, self.settings.federation, step=self._step)
        try:
            state = begin.anew(self._store) if new_run else begin.state(self._store)
            described = self.settings.aggregator.describe_strategy() if strategy is None else strategy.name
            last = self._store.last_strategy(described)
            if not new_run and last not in (None, described):
                # The history does not show that from here on versions are made in another way.
                log.warning("the strategy is another than at the last start: %s; it was %s", described, last)
            self._transfers = Transfers(Room(self.settings.run_folder / "parts", most))
            self._service = self._build(plan, state, None if replace else frozenset(state.replaced), named, evaluate)
        except BaseException:
            self._store.close()
            raise
        self._background = Background("fedmq-aggregator", self.run, self._wake)
        self._versions: deque[Version] = deque(maxlen=_KEPT_VERSIONS)
        self._news = threading.Condition()
        self._service.on_version = self._remember

    @property
    def version(self) -> int:
        """The newest committed version."""
        return self._service.committed

    def weights(self) -> dict[str, Any]:
        """The weights as of the last commit, by `state_dict` name, float32; read from the run's folder."""
        return read_run(self.settings.run_folder).arrays()

    def run(self) -> Ending:
        """Work in this thread until the run is finished or `ask_to_stop` is called; how it ended."""
        if readable := in_plain_text(self.settings.broker):
            log.warning("plain text detail=%r", readable)
        try:
            return self._service.run()
        finally:
            self._transfers.close()
            if not self._service.writing:  # else the folder stays locked until this process ends
                self._store.close()

    def ask_to_stop(self, why: str = "asked to stop") -> None:
        """Have it end soon. From any thread or signal handler."""
        self._service.ask_to_stop(why)

    def versions(self) -> Iterator[Version]:
        """Each version when it is committed, until the run ends.

        The aggregator never waits for the loop around this: who is slow misses the oldest of more than 1,000.
        """
        while True:
            with self._news:
                self._news.wait_for(lambda: self._versions or not self._background.alive, 1.0)
                version = self._versions.popleft() if self._versions else None
            if version is not None:
                yield version
            elif not self._background.alive:
                self._background.raise_failure()
                return

    def __enter__(self) -> Self:
        self._background.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ask_to_stop()
        self._background.join()
        if error is None:
            self._background.raise_failure()

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def _remember(self, record: VersionRecord) -> None:
        staleness = [folded.staleness for folded in record.updates]
        mean = sum(staleness) / len(staleness)
        with self._news:
            self._versions.append(Version(record.version, len(staleness), mean, record.why, record.seconds))
            self._news.notify_all()

    def _named(self) -> _Named:
        check_login(self.settings.broker)
        signing, revoked = self.settings.signing, Revoked(self.settings.aggregator.revoked_file)
        return _Named(aggregator_keys(signing), device_ids(signing), revoked)

    def _rules(self, run: str, layout: Layout, plan: Plan, named: _Named) -> Rules:
        settings = self.settings.aggregator
        return Rules(
            run,
            layout,
            frozenset(settings.task_versions) if settings.task_versions is not None else None,
            plan.max_staleness,
            settings.longest(),
            settings.allowance(),
            settings.quarantine(signed=named.keys is not None),
        )

    def _build(
        self, plan: Plan, state: State, replaces: frozenset[str] | None, named: _Named, evaluate: Evaluate | None
    ) -> AggregatorService:
        settings, keys = self.settings, named.keys
        codec = codec_named(settings.aggregator.snapshot_codec)
        rules = self._rules(state.run, state.layout, plan, named)
        if (how := outpaced(rules, self.strategy)) is not None:
            log.warning("%s", how)
        topics = Topics(settings.federation)
        incarnation = os.urandom(16).hex()
        gone = AggregatorPresence(state="offline", run=state.run, incarnation=incarnation, version=state.version)
        farewell, session = encode(gone), 0
        if keys is not None:
            session = next_session(settings.run_folder / "session")
            farewell = sealed(topics.aggregator, farewell, session, keys.sign)
        will = Will(topics.aggregator, farewell)
        attention = Attention(time.monotonic)
        link: Link = mqtt_link(settings.broker, f"{settings.federation}-aggregator", will=will, durable=True)
        link = AttentiveLink(link, topics, attention, named.devices)
        signed: SignedLink | None = None
        at_work: AtWork | None = None
        if keys is not None:
            at_work = AtWork(settings.run_folder / "session-at-work")
            link = signed = signed_for_the_aggregator(link, topics, keys, session, at_work)
        # A run that worked before there were keys has no session; what it has judged says that it is not new.
        new = at_work is not None and at_work.session == 0 and state.version == 0 and state.verdicts == 0

        def let_in() -> bool:
            return at_work is None or at_work.begin(session)

        def core_of(state: State) -> AggregatorCore:
            return AggregatorCore(state, self.strategy, rules, settings.aggregator.goal)

        def reload() -> AggregatorCore:
            self._store.reopen()
            last = self._store.load(state.layout, again=True)  # so that the disk is known to take it
            if last is None:
                raise StoreError(f"run folder {settings.run_folder}: the run is gone from it")
            return core_of(last)

        service = AggregatorService(
            link=link,
            topics=topics,
            core=core_of(state),
            publisher=Publisher(
                link,
                topics,
                plan,
                codec,
                settings.aggregator.publish_interval,
                settings.run_folder / "parts",
                limits(rules, self.strategy.clip),
            ),
            incarnation=incarnation,
            fence=Fence(incarnation, replaces, self._store.predecessors(incarnation), new=new),
            store=self._store,
            transfers=self._transfers,
            revoked=named.revoked,
            let_in=let_in,
            attention=attention,
            releases=Releases(settings.run_folder),
            most_message_bytes=most_message_bytes(settings.broker),
            reload=reload,
            evaluator=ThreadEvaluator(evaluate, link.wake) if evaluate else None,
            step=self._step,
        )
        if signed is not None:
            signed.on_refused, signed.on_unverified = service.refused, service.unverified
        return service

    def _evaluation(self, layout: Layout) -> Evaluate | None:
        task = self.task
        if task is None or task.load_test_data is None or task.build_model is None or not has_torch():
            return None
        return _evaluation_of(task, layout)


def _evaluation_of(task: Task, layout: Layout) -> Evaluate:
    from fedmq.tasks.bridge import load_vector
    from fedmq.tasks.evaluation import evaluate

    assert task.build_model is not None
    assert task.load_test_data is not None
    with faults_of(task):
        with doing("building the model"):
            model = task.build_model()
        with doing("loading the test data"):
            data = task.load_test_data()

    def measure(weights: Vector) -> Metrics:
        load_vector(model, layout, weights)
        return evaluate(task, model, data)[0]

    return measure
