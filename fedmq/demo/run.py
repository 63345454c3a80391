"""One federated run of the demo, from starting the processes to the test figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedmq.aggregator.export import Run, history_file, model_file, read_run
from fedmq.demo.plan import AGGREGATOR, PLAN, SECONDS, TARGET, Tuned
from fedmq.demo.watch import unseen, wearers
from fedmq.schemas.errors import ConfigError
from fedmq.tasks.initial import STATISTICS_KEY
from fedmq.testbed import Sample, Testbed
from fedmq.view import View

__all__ = ["Result", "Setup", "run_federated", "speed_factors"]

Accuracy = Callable[[Mapping[str, Any], Sequence[str]], float]


@dataclass(frozen=True, slots=True)
class Setup:
    """What all runs of one demo share.

    Attributes:
        clients: how many wearers take part.
        speeds: of the fastest and the slowest device, as factors on the nominal time of a job.
        nominal: seconds that a job lasts at factor 1, by waiting.
        seed: of version 0.
        seconds: how long a run lasts at most.
        broker: url of one that is there; None starts a private one.
        engine: which private one.

    """

    clients: int
    speeds: tuple[float, float]
    nominal: float
    seed: int
    seconds: float = SECONDS
    broker: str | None = None
    engine: Literal["auto", "mosquitto", "embedded"] = "auto"


@dataclass(frozen=True, slots=True)
class Result:
    """What a federated run has come to.

    Attributes:
        name: of the strategy, for people.
        accuracy: on the participants' test stretches, at the last version.
        accuracy_unseen: the same of those whom nobody trained on.
        seconds: from the first published weights to the last version.
        seconds_to_target: until the devices' mean validation accuracy had reached the target; None if it never did.
        interrupted: by Ctrl-C.
        stalenesses: of every accepted update, in versions.
        samples: how it went.
        failing: lines about the clients whose training failed.

    """

    name: str
    accuracy: float
    accuracy_unseen: float
    version: int
    updates: int
    mean_staleness: float
    seconds: float
    seconds_to_target: float | None
    uplink_bytes: int
    downlink_bytes: int
    interrupted: bool
    folder: Path
    stalenesses: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)


def speed_factors(clients: list[str], fastest: float, slowest: float) -> dict[str, float]:
    """How slow each client is, as a factor: evenly spread in ratio from the fastest to the slowest."""
    steps = max(1, len(clients) - 1)
    return {client: fastest * (slowest / fastest) ** (place / steps) for place, client in enumerate(clients)}


def run_federated(name: str, folder: Path, setup: Setup, tuned: Tuned, *, accuracy_of: Accuracy) -> Result | None:
    """Run one federation to its end; None if it was interrupted before there was a model.

    Args:
        name: for people.
        folder: for everything; model.safetensors and history.jsonl are written there at the end.
        setup: what all runs share.
        tuned: what the strategy has of its own.
        accuracy_of: (weights by name, client ids) -> accuracy on their test stretches.

    Raises:
        ConfigError: more clients than wearers.
        TestbedError: a process failed.

    """
    participants = wearers()
    if not 1 <= setup.clients <= len(participants):
        raise ConfigError(
            f"--clients {setup.clients}: expected 1 to {len(participants)}; a client is one person's watch, ten were"
            f" recorded, and {len(unseen())} are kept aside to test on strangers"
        )
    participants = participants[: setup.clients]
    factors = speed_factors(participants, *setup.speeds)
    settings = {
        "federation": "demo",
        "task": str(Path(__file__).with_name("watch_task.py")),
        "plan": {**PLAN, **tuned.plan},
        "aggregator": {"seed": setup.seed, "goal": {"seconds": setup.seconds}, **AGGREGATOR, **tuned.aggregator},
        "broker": {"url": setup.broker} if setup.broker else {},
    }
    paces = {client: setup.nominal * factor for client, factor in factors.items()}
    interrupted = False
    footer = f"simulated delays: a job lasts speed x {setup.nominal:g} s · Ctrl-C ends it"
    with (
        Testbed(folder, settings, paces, broker_url=setup.broker, engine=setup.engine) as bed,
        View(name, footer=footer, target=TARGET, seconds=setup.seconds, speeds=factors) as view,
    ):
        try:
            bed.start(lambda watch: view.show(watch, len(participants), 0.0))
            while bed.running:
                bed.follow()
                view.show(bed.watch, len(participants), bed.seconds)
        except KeyboardInterrupt:
            interrupted = True
        bed.stop_aggregator()
        seconds = bed.seconds
        bed.stop_clients()
        statuses = list(bed.watch.clients.values())
    if not (bed.run_folder / "run.sqlite").exists():
        return None
    run = read_run(bed.run_folder)
    _write(run, folder)
    arrays = run.arrays()
    reached = next((s.seconds for s in bed.samples if s.metrics.get("accuracy", 0.0) >= TARGET), None)
    accepted = run.figures["accepted"]
    return Result(
        name=name,
        accuracy=accuracy_of(arrays, participants),
        accuracy_unseen=accuracy_of(arrays, unseen()),
        version=run.version,
        updates=accepted,
        mean_staleness=run.figures["staleness_sum"] / accepted if accepted else 0.0,
        seconds=seconds,
        seconds_to_target=reached,
        uplink_bytes=sum(status.uplink_bytes for status in statuses),
        downlink_bytes=sum(status.downlink_bytes for status in statuses),
        interrupted=interrupted,
        folder=folder,
        stalenesses=[update["staleness"] for record in run.history for update in record["updates"]],
        samples=bed.samples,
        failing=bed.failing(accepted),
    )


def _write(run: Run, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(model_file(run, STATISTICS_KEY))
    (folder / "history.jsonl").write_bytes(history_file(run))
