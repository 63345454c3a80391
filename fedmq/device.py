"""The edge client as a program or an object: from settings to a running service."""

from __future__ import annotations

import logging
import os
import random
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from fedmq.background import Background
from fedmq.blame import faults_of
from fedmq.broker_config.plain_text import in_plain_text
from fedmq.connect import mqtt_link
from fedmq.edge_client.actions import Stop
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.meter import Meter
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.runner import ThreadRunner
from fedmq.edge_client.service import ClientService
from fedmq.edge_client.shown import last_will
from fedmq.edge_client.training import NumpyTrainer, Training
from fedmq.failpoints import crash_points
from fedmq.keys import device_keys
from fedmq.newest import Newest
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.signing import AGGREGATOR, sealed
from fedmq.schemas.topics import Topics
from fedmq.settings import Settings, load_settings
from fedmq.signed_link import SignedLink, in_order, of_a_device
from fedmq.tasks.contract import NumpyTraining
from fedmq.tasks.loader import load_task
from fedmq.transport.link import Link, Will
from fedmq.unsigned_link import UnsignedLink

__all__ = ["EdgeClient"]

log = logging.getLogger("fedmq.client")


class EdgeClient:
    """A device; a context manager that works in a thread of its own.

    Example:
        with fedmq.EdgeClient("federation.toml", client_id="dev-7") as client:
            client.wait()

    Args:
        settings: the path of a federation's file, or settings.
        client_id: this device's name, unique in the federation; by default the settings' `device.client_id`.
        train: a function (weights, plan) -> Trained on numpy arrays; then no task file and no torch is needed.

    Raises:
        ConfigError: settings or task cannot work.
        StoreError: the device's folder cannot be used.

    """

    def __init__(
        self, settings: Settings | str | Path, client_id: str | None = None, *, train: NumpyTraining | None = None
    ) -> None:
        self.settings = settings if isinstance(settings, Settings) else load_settings(settings)
        self.client_id = client_id = self.settings.device_id(client_id)
        training = self._training(train)
        incarnation = os.urandom(16).hex()
        topics = Topics(self.settings.federation)
        device = self.settings.device
        folder = self.settings.device_folder(client_id)
        self._outbox = Outbox(folder, most_bytes=device.max_outbox_bytes)
        try:
            will = last_will(topics, client_id, incarnation)
            keys = device_keys(self.settings.signing, client_id)
            session = self._outbox.begin_session() if keys else 0
            if keys is not None:
                will = Will(will.topic, sealed(will.topic, will.payload, session, keys.sign))
            link: Link = mqtt_link(self.settings.broker, f"{self.settings.federation}-{client_id}", will=will)
            signed: SignedLink | None = None
            if keys is None:
                link = UnsignedLink(link, topics, client_id)
            else:
                heard, keep = self._outbox.aggregator_sessions(), self._outbox.keep_aggregator_session
                newest = Newest(partial(keys.trusted, AGGREGATOR), heard, keep)
                fresh = of_a_device(topics, client_id, session, in_order(topics, newest))
                link = signed = SignedLink(link, topics, keys, session, fresh, own=topics.status(client_id))
            self._runner = ThreadRunner(link.wake, device.pace)
            self._fetch = Fetch(link, topics, client_id, folder / "model.body", self.settings.broker.window)
            self._service = ClientService(
                link=link,
                topics=topics,
                client_id=client_id,
                core=ClientCore(
                    incarnation,
                    random.Random(os.urandom(16)),
                    self._outbox.pending(),
                    window=self.settings.broker.window,
                ),
                incarnation=incarnation,
                outbox=self._outbox,
                training=training,
                runner=self._runner,
                fetch=self._fetch,
                meter=Meter(lambda: link.carried, self._outbox, device.daily_uplink, device.daily_downlink),
                step=crash_points(),
            )
            if signed is not None:
                signed.on_refused, signed.on_outlived = self._service.refused, self._service.outlived
        except BaseException:
            self._outbox.close()
            raise
        self._background = Background(f"fedmq-{client_id}", self.run)

    @property
    def accepted(self) -> int:
        """Updates of this process that have an accepting receipt."""
        return self._service.accepted

    def run(self) -> Stop:
        """Work in this thread until the run is finished or `ask_to_stop` is called; how it ended."""
        if readable := in_plain_text(self.settings.broker):
            log.warning("plain text client=%s detail=%r", self.client_id, readable)
        try:
            return self._service.run()
        finally:
            self._runner.stop()
            self._fetch.close()
            self._outbox.close()

    def ask_to_stop(self, why: str = "asked to stop") -> None:
        """Have it end soon. From any thread or signal handler."""
        self._service.ask_to_stop(why)

    def wait(self, timeout: float | None = None) -> Stop | None:
        """Wait until it has ended, at most `timeout` seconds; how it ended, None if it has not."""
        self._background.join(timeout)
        self._background.raise_failure()
        return self._background.result

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

    def _training(self, train: NumpyTraining | None) -> Training:
        if train is not None:
            return NumpyTrainer(train, getattr(train, "__name__", "function"))
        if self.settings.task is None:
            raise ConfigError('a client needs a task: set task = "task.py" in the file, or give EdgeClient(train=…)')
        task = load_task(self.settings.task)
        if task.train_numpy is not None and task.build_model is None:
            return NumpyTrainer(task.train_numpy, task.version)
        try:
            import torch
        except ImportError as error:
            raise ConfigError(
                f"task {task.path} trains with PyTorch, which is not installed: pip install 'fedmq[torch]'"
            ) from error
        from fedmq.edge_client.trainer import TorchTrainer

        device = self.settings.device
        if device.threads is not None:
            torch.set_num_threads(device.threads)
        with faults_of(task):
            return TorchTrainer(task, self.client_id, max_epochs=device.max_epochs, max_steps=device.max_steps)
