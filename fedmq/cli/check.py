"""Check a task file before anything runs: build, load, evaluate, one batch. With --config the broker too.

Prints what a device will need: parameters, bytes for each update, memory, seconds for each epoch.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np

from fedmq.blame import faults_of
from fedmq.cli.options import add_settings, settings_of
from fedmq.connect import mqtt_link
from fedmq.edge_client.feedback import encoded
from fedmq.schemas.errors import TransportError
from fedmq.schemas.parts import part_bytes
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics, check_id
from fedmq.settings import Settings
from fedmq.tasks.contract import Task
from fedmq.tasks.loader import load_task
from fedmq.transport.link import Connected, Disconnected, Link, Message, Refused

EXAMPLE = "fedmq check task.py --client-id dev-7 --config federation.toml"

_SECONDS = 10.0
_ECHO_SECONDS = 2.0
_BESIDE_BYTES = 1024  # of an offer beside the update, about


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("task", type=Path, help="the task file")
    parser.add_argument("--client-id", default="client-1", help="whose data to load (default: client-1)")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    client_id = check_id(options.client_id, "client id")
    with_broker = options.config is not None or options.broker is not None
    if options.federation is None and options.config is None:
        options.federation = "check"
    options.log_level = "error"
    settings = settings_of(options)
    size = _check_task(options.task, client_id, settings.plan)
    if with_broker:
        _check_broker(settings, client_id, size)
    if settings.device.daily_uplink is not None and size:
        print(
            f"budget     daily_uplink carries {settings.device.daily_uplink // (size + _BESIDE_BYTES):,} updates a day"
        )
    return 0


def _check_task(path: Path, client_id: str, plan: Plan) -> int:
    task = load_task(path)
    print(f"task       {task.path.name}, version {task.version}")
    if task.build_model is None:
        print("           it trains with numpy; its model comes from the aggregator")
        return 0
    with faults_of(task):
        return _check_training(task, client_id, plan)


def _check_training(task: Task, client_id: str, plan: Plan) -> int:
    from fedmq.edge_client.trainer import TorchTrainer
    from fedmq.tasks.bridge import to_vector

    trainer = TorchTrainer(task, client_id)
    layout = trainer.layout(plan)
    statistics = layout.size - layout.parameter_size
    print(f"model      {layout.parameter_size:,} parameters, {statistics:,} statistics, layout {layout.digest[:12]}")
    weights = to_vector(trainer.model, layout)
    samples = trainer.num_samples
    print(f"data       {samples:,} samples to train on, as {client_id}")
    warm = plan.model_copy(update={"local_steps": 1})
    first = trainer.train(weights, layout, warm)  # whatever is slow only once is not counted below
    scores = ", ".join(
        f"{name} {value:.4f}" for name, value in (first.evaluation.metrics if first.evaluation else {}).items()
    )
    print(f"test data  {scores or 'none'}" + (" (untrained)" if scores else ""))
    steps = max(1, min(20, -(-samples // plan.batch_size)))
    begun = time.perf_counter()
    outcome = trainer.train(weights, layout, plan.model_copy(update={"local_steps": steps}))
    seconds = time.perf_counter() - begun
    epoch = seconds * -(-samples // plan.batch_size) / steps
    finite = bool(np.isfinite(outcome.update).all())
    print(f"training   {steps} steps: {outcome.metrics}" + ("" if finite else "  it diverged: lower the learning rate"))
    print(f"time       {epoch:.3g} s for each epoch here, {epoch * plan.local_epochs:.3g} s for each update")
    sent = encoded(outcome.update, layout, "0" * 32, plan, None, seed=0)
    size, plain = len(sent.body), 4 * layout.size
    fewer = f": {plain / size:.1f} times fewer than float32's {plain:,}" if plain > size else ""
    print(f"update     {size:,} bytes as {sent.codec.name}{fewer}")
    print(f"memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at its peak")
    return size


def _check_broker(settings: Settings, client_id: str, update_size: int) -> None:
    where = settings.broker.url
    topics = Topics(settings.federation)
    own, update = topics.status(client_id), topics.update(client_id)
    link = mqtt_link(settings.broker, f"{settings.federation}-{client_id}")
    link.open()
    try:
        limit = _connect(link, where)
        print(f"broker     {where}: logged in")
        reads = (topics.model, topics.aggregator, topics.reply(client_id), own)
        link.subscribe(*reads)
        # Not a message of the protocol, so that nobody takes it for one, and not retained.
        size = part_bytes(link.max_message_bytes)
        probe = os.urandom(max(1, min(update_size, size)))
        link.publish(update, probe)
        link.publish(own, probe[:1])
        taken = link.flush(_SECONDS)
        refused: dict[str, str] = {}
        heard = False
        until = time.monotonic() + _ECHO_SECONDS
        while event := link.poll(0.0 if heard else max(0.0, until - time.monotonic())):
            if isinstance(event, Refused):
                refused[event.topic] = event.reason
            elif isinstance(event, Disconnected):
                raise TransportError(f"{where}: cut the connection at {len(probe):,} bytes: {event.reason}")
            elif isinstance(event, Message) and event.topic == own:
                heard = True
        if not heard:
            # Brokers often say yes and do nothing; this is the one topic where that shows.
            refused.setdefault(own, "what was published there did not come back")
        for topic in (*reads, update):
            said = f"refused: {refused[topic]}" if topic in refused else "works" if topic == own else "not refused"
            print(f"  {topic:<40} {said}")
        announced = "not announced" if limit is None else f"{limit:,} bytes"
        passed = "passed" if taken else "was not answered"
        print(f"messages   an update takes {max(1, -(-update_size // size)):,} of at most {size:,} bytes")
        print(f"packets    a message of {len(probe):,} bytes {passed}; the broker's limit: {announced}")
        if refused or not taken:
            raise TransportError("the broker does not let this client do its work; see its access rules and limits")
    finally:
        link.close()


def _connect(link: Link, where: str) -> int | None:
    """Wait for the connection; the largest packet that the broker announces."""
    deadline = time.monotonic() + _SECONDS
    failures = 0
    while True:
        event = link.poll(max(0.0, deadline - time.monotonic()))
        if isinstance(event, Connected):
            return event.max_packet_bytes
        if isinstance(event, Disconnected):
            failures += 1
            if failures > 1:  # the first may only be about the version of MQTT
                raise TransportError(f"{where}: {event.reason}")
        elif event is None and time.monotonic() >= deadline:
            raise TransportError(f"{where}: no answer within {_SECONDS:g} s")
