"""Check a task file before anything runs: build, load, evaluate, one batch. With --config or --broker the broker too.

Prints what a device will need: parameters, bytes for each update and model, memory, seconds for each epoch.
A daily budget that does not suffice for one of them is a mistake in the settings: exit code 2.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from fedmq.blame import faults_of
from fedmq.cli.check_broker import check_broker
from fedmq.cli.options import FILE, add_settings, settings_of
from fedmq.edge_client.budget import OFFER_BYTES, Shortage, body_bytes, too_small
from fedmq.edge_client.config import DeviceSettings
from fedmq.edge_client.feedback import encoded
from fedmq.keys import device_keys
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.parts import HEADER_BYTES, part_bytes
from fedmq.settings import Settings
from fedmq.status_text import measured
from fedmq.tasks.contract import Task
from fedmq.tasks.loader import load_task

EXAMPLE = "fedmq check task.py --client-id dev-7 --config federation.toml"

_TIMED_SECONDS = 1.0  # after which a training is not timed again
_TIMED_RUNS = 5  # at most

_Result = TypeVar("_Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("task", type=Path, help="the task file")
    parser.add_argument("--client-id", help="whose data to load (default: device.client_id, else client-1)")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    with_broker = options.config is not None or options.broker is not None
    if options.federation is None and options.config is None:
        options.federation = "check"
    options.log_level = "error"
    settings = settings_of(options)
    client_id = settings.device_id(options.client_id or settings.device.client_id or "client-1")
    if with_broker:
        device_keys(settings.signing, client_id)  # whose bundle it is comes first, and then all that takes long
    sizes = _check_task(options.task, client_id, settings)
    _check_budget(settings.device, sizes, part_bytes(settings.broker.data_bytes + HEADER_BYTES))
    if with_broker:
        check_broker(settings, client_id, sizes.update if sizes else 0)
    else:
        file = f"; --config {FILE} names the one in this file" if FILE.is_file() else ""
        print(f"broker     not checked{file or '; --config FILE names it'}")
    return 0


class _Sizes(NamedTuple):
    """Bytes of one update and of one model, as they travel."""

    update: int
    model: int


def _check_budget(device: DeviceSettings, sizes: _Sizes | None, part: int) -> None:
    """Say what a day's bytes have room for, where what is larger than a part goes in parts; a device reckons the same.

    Raises:
        ConfigError: not even for one update, or for one model.

    """
    if sizes is None:
        if device.daily_uplink is not None or device.daily_downlink is not None:
            print("budget     not checked: the size of an update and of a model is not known here")
        return
    updates = (device.daily_uplink, Shortage("uplink", body_bytes(sizes.update, part) + OFFER_BYTES), "updates")
    models = (device.daily_downlink, Shortage("downlink", body_bytes(sizes.model, part) + OFFER_BYTES), "models")
    wrong = []
    for limit, needed, what in (updates, models):
        if said := too_small(limit, needed):
            wrong.append(said)
        elif limit is not None:
            print(f"budget     daily_{needed.direction} carries {limit // needed.needed:,} {what} a day")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _check_task(path: Path, client_id: str, settings: Settings) -> _Sizes | None:
    task = load_task(path)
    print(f"task       {task.path.name}, version {task.version}")
    if task.build_model is None:
        print("           it trains with numpy; its model comes from the aggregator")
        return None
    with faults_of(task), _shapes_fit(task):
        return _check_training(task, client_id, settings)


@contextmanager
def _shapes_fit(task: Task) -> Iterator[None]:
    """Inside, torch's warning that a loss compares two shapes is an error: it learns, and learns something else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            yield
        except UserWarning as warning:
            said = str(warning).partition(". ")[0]
            raise ConfigError(
                f"task {task.path}: the model's output and its targets differ in shape, and would be compared all with"
                f" all; make them alike ({said[:1].lower()}{said[1:]})"
            ) from warning


def _timed(job: Callable[[], _Result]) -> tuple[_Result, float, int]:
    """What a job gives, the fewest seconds that it took, and in how many runs: one, or more while they are short.

    What else the machine does makes a short run many times longer, and none shorter.
    """
    least, spent, runs = float("inf"), 0.0, 0
    while True:
        begun = time.perf_counter()
        result = job()
        seconds = time.perf_counter() - begun
        least, spent, runs = min(least, seconds), spent + seconds, runs + 1
        if spent >= _TIMED_SECONDS or runs == _TIMED_RUNS:
            return result, least, runs
        del result  # or two of them would count as memory that a device needs


def _rounded(seconds: float) -> str:
    """Two digits, but never a power of ten in place of the seconds of a long training."""
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:,.0f}"


def _check_training(task: Task, client_id: str, settings: Settings) -> _Sizes:
    from fedmq.edge_client.trainer import TorchTrainer
    from fedmq.tasks.bridge import to_vector

    plan, down = settings.plan, settings.aggregator.snapshot_codec
    trainer = TorchTrainer(task, client_id)
    layout = trainer.layout(plan)
    statistics = layout.size - layout.parameter_size
    print(f"model      {layout.parameter_size:,} parameters, {statistics:,} statistics, layout {layout.digest[:12]}")
    weights = to_vector(trainer.model, layout)
    model_size = len(codec_named(down).encode(weights, layout))
    print(f"download   {model_size:,} bytes as {down}")
    samples = trainer.num_samples
    print(f"data       {samples:,} samples to train on, as {client_id}")
    warm = plan.model_copy(update={"local_steps": 1})
    first = trainer.train(weights, layout, warm)  # whatever is slow only once is not counted below
    scores = measured(first.evaluation.metrics if first.evaluation else {})
    print(f"test data  {scores or 'none'}" + (" (untrained)" if scores else ""))
    steps = max(1, min(20, -(-samples // plan.batch_size)))
    some = plan.model_copy(update={"local_steps": steps})
    outcome, seconds, runs = _timed(lambda: trainer.train(weights, layout, some))
    epoch = seconds * -(-samples // plan.batch_size) / steps
    finite = bool(np.isfinite(outcome.update).all())
    print(
        f"training   {steps} {'step' if steps == 1 else 'steps'}: {measured(outcome.metrics)}"
        + ("" if finite else "  it diverged: lower the learning rate")
    )
    least = f" (the least of {runs} runs)" if runs > 1 else ""
    update = _rounded(epoch * plan.local_epochs)
    print(f"time       {_rounded(epoch)} s for each epoch here, {update} s for each update{least}")
    sent = encoded(outcome.update, layout, "0" * 32, plan, None, seed=0)
    size, plain = len(sent.body), 4 * layout.size
    fewer = f": {plain / size:.1f} times fewer than float32's {plain:,}" if plain > size else ""
    print(f"update     {size:,} bytes as {sent.codec.name}{fewer}")
    print(f"memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at its peak")
    return _Sizes(size, model_size)
