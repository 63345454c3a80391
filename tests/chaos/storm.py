"""One run of one strategy: a federation at work while its processes are killed, then the calm, then the findings."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedmq.failpoints import AGGREGATOR_POINTS, CLIENT_POINTS
from tests.chaos.findings import Evidence, broken_promises
from tests.chaos.observer import Observer
from tests.chaos.stage import STRATEGIES, Stage
from tests.chaos.victims import BrokerVictim, Points, Victim

__all__ = ["Outcome", "Scale", "storm"]

_CALM_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much chaos there is in a run of one strategy.

    Attributes:
        clients: how many.
        aggregator_kills, client_kills, broker_kills: at least; `client_kills` for each client.
        hits: of each fail-point, at least.
        half_full_hits: of each fail-point with a half-full buffer, at least.
        accepted: updates that the observer must have seen accepted.
        seconds: after which it ends even if something of this lacks.

    """

    clients: int
    aggregator_kills: int
    client_kills: int
    broker_kills: int
    hits: int
    half_full_hits: int
    accepted: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        strategy: a key of `STRATEGIES`.
        seconds: how long it took.
        trained: trainings that were done.
        accepted: updates that the observer saw accepted.
        counted: updates that the run says it accepted.
        receipts: that the observer heard, the same again included.
        expired: updates that it heard to be too old to know.
        kills: by process.
        hits, half_full: by fail-point.
        broken: what `broken_promises` found.

    """

    strategy: str
    seconds: float
    trained: int
    accepted: int
    counted: int
    receipts: int
    expired: int
    kills: Counter[str]
    hits: Counter[str]
    half_full: Counter[str]
    broken: list[str]

    def __str__(self) -> str:
        lines = [
            f"{self.strategy}: {self.seconds:.0f} s, {self.trained} trained, {self.accepted} seen accepted,"
            f" {self.counted} counted, {self.receipts} receipts, {self.expired} expired",
            "  killed: " + ", ".join(f"{name} {kills}" for name, kills in self.kills.items()),
            "  at fail-points (with a half-full buffer): "
            + ", ".join(f"{name} {hits} ({self.half_full[name]})" for name, hits in self.hits.items()),
            *(f"  BROKEN: {sentence}" for sentence in self.broken[:20]),
        ]
        return "\n".join(lines)


def storm(
    folder: Path,
    strategy: str,
    scale: Scale,
    seed: int,
    program: Sequence[str] = ("fedmq",),
    aims: tuple[str, ...] = AGGREGATOR_POINTS + CLIENT_POINTS,
) -> Outcome:
    """Run one federation through the chaos.

    Args:
        folder: for its files; made.
        strategy: a key of `STRATEGIES`.
        scale: how much.
        seed: of the kills; what the processes do in between is theirs.
        program: the module that the processes run, and its first arguments.
        aims: the fail-points to hit.

    Raises:
        AssertionError: a process ended by itself, or the calm did not come.

    """
    begun = time.monotonic()
    chance = random.Random(f"{seed}/{strategy}")
    stage = Stage(folder, strategy, scale.clients, program)
    one_each = bool(STRATEGIES[strategy].get("buffer_size", 1) == 1)
    half_full_hits = 0 if one_each else scale.half_full_hits
    points = [
        Points(tuple(name for name in names if name in aims), scale.hits, half_full_hits)
        for names in (AGGREGATOR_POINTS, CLIENT_POINTS)
    ]
    with ExitStack() as stack:
        every = scale.seconds / 2 / (scale.broker_kills + 1)
        broker = BrokerVictim(lambda keep: stage.broker(persistent=keep), scale.broker_kills, every, chance)
        stack.callback(broker.end)
        observer = stack.enter_context(Observer(stage.settings))
        victims = {"aggregator": Victim(stage.aggregator, points[0], scale.aggregator_kills, stage.half_full, chance)}
        for client_id in stage.client_ids:
            start = partial(stage.client, client_id)
            victims[client_id] = Victim(start, points[1], scale.client_kills, stage.half_full, chance)
            stack.callback(_end, victims[client_id])
        stack.callback(_end, victims["aggregator"])
        everyone: tuple[BrokerVictim | Victim, ...] = (broker, *victims.values())

        def enough() -> bool:
            killed = broker.enough and all(victim.enough for victim in victims.values())
            return killed and observer.accepted >= scale.accepted and not any(each.lacking() for each in points)

        def work_until(condition: Callable[[], bool], seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            while not (met := condition()) and time.monotonic() < deadline:
                for each in everyone:
                    each.step()
                time.sleep(0.02)
            return met

        work_until(enough, scale.seconds)
        stage.stop_training()
        for each in everyone:
            each.soothe()
        settled = work_until(lambda: all(each.well for each in victims.values()) and stage.settled(), _CALM_SECONDS)
        for name in (*stage.client_ids, "aggregator"):
            _stop(victims[name])
    run = stage.run()
    assert run is not None, f"nothing was ever committed; see {folder}"
    evidence = Evidence(
        run=run,
        strategy=stage.settings.aggregator.build_strategy(),
        counts_one=strategy != "fedbuff",
        client_ids=stage.client_ids,
        stored={client_id: stage.stored(client_id) for client_id in stage.client_ids},
        waiting={client_id: stage.waiting(client_id) for client_id in stage.client_ids},
        verdicts=observer.verdicts,
        digests=observer.digests,
    )
    broken = broken_promises(evidence)
    if not settled:
        broken.append(f"it had not settled after {_CALM_SECONDS:g} s")
    return Outcome(
        strategy=strategy,
        seconds=time.monotonic() - begun,
        trained=sum(map(stage.trained, stage.client_ids)),
        accepted=observer.accepted,
        counted=run.figures["accepted"],
        receipts=observer.receipts,
        expired=sum(any(each.reason == "expired" for each in heard) for heard in observer.verdicts.values()),
        kills=Counter({"broker": broker.kills} | {name: victim.kills for name, victim in victims.items()}),
        hits=points[0].hits + points[1].hits,
        half_full=points[0].half_full + points[1].half_full,
        broken=broken,
    )


def _end(victim: Victim) -> None:
    if victim.life is not None:
        victim.life.program.kill()


def _stop(victim: Victim) -> None:
    """Ask it to stop, as its owner would."""
    assert victim.life is not None
    program = victim.life.program
    program.terminate()
    code = program.ends()
    assert code == 0, f"{program.name} was asked to stop and ended with {code}:\n{program.log[-3000:]}"
