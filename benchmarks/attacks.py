"""What devices that poison their updates do to each strategy, and what each costs when there are none.

    python benchmarks/attacks.py --json                        # about half an hour on two cores
    python benchmarks/attacks.py --only fastest --seeds 1      # a few minutes
    python benchmarks/attacks.py --alpha 1 --lognormal --local-epochs 1 --seconds 120   # an easier federation

Digits over 20 devices (Dirichlet, `--alpha`) that differ 1 to 10 x in speed, or as a lognormal distribution does
(sigma 1), in the sandbox: virtual time, so accuracies do not depend on the machine. K = 10 (`--buffer-size`),
`hostile` = 0.3, updates and models as float32.
Hostile devices train like the others and send -5 times their delta: nobody, four drawn at random, or the four fastest.
Accuracy is the mean of the last quarter; `held` is the share of updates in versions that were theirs. A larger K makes
fewer versions in the same time: give it more `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import fedmq
from fedmq.edge_client.trainer import TorchTrainer
from fedmq.edge_client.training import Outcome

HERE = Path(__file__).parent.parent
DEVICES, HOSTILE, FACTOR = 20, 4, -5.0
LEAST = 5  # updates in a buffer, which multi-Krum needs
ATTACKS = ["none", "random", "fastest"]

STRATEGIES: dict[str, Callable[..., fedmq.Strategy]] = {
    "fedbuff": fedmq.fedbuff,
    "fedbuff + clipping": lambda **settings: fedmq.fedbuff(clip_medians=1.0, **settings),
    "median + clipping": lambda **settings: fedmq.median(clip_medians=1.0, **settings),
    "trimmed mean + clipping": lambda **settings: fedmq.trimmed_mean(hostile=0.3, clip_medians=1.0, **settings),
    "multi-Krum": lambda **settings: fedmq.multi_krum(hostile=0.3, **settings),
}


@dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    seconds: float
    buffer_size: int
    alpha: float
    lognormal: bool
    local_epochs: int


@dataclass(frozen=True)
class Job:
    """One run."""

    attack: str
    strategy: str
    one_per_client: bool
    seed: int
    setting: Setting


class Found(NamedTuple):
    """What a run came to."""

    accuracy: float
    held: float
    versions: int


def poisoned(trainer: TorchTrainer) -> None:
    """Have it send FACTOR times what it learned."""
    train = trainer.train

    def hostile(*arguments: Any, **named: Any) -> Outcome:
        outcome = train(*arguments, **named)
        return replace(outcome, update=outcome.update * np.float32(FACTOR))

    trainer.train = hostile  # type: ignore[method-assign]


def run(job: Job) -> Found:
    """One run."""
    torch.set_num_threads(1)
    common = job.setting
    ids = [f"dev-{n + 1}" for n in range(DEVICES)]
    draw = random.Random(job.seed)
    order = draw.sample(ids, DEVICES)  # which device's data is fast differs from seed to seed
    drawn = draw.sample(ids, HOSTILE)
    factors = [10 ** (n / (DEVICES - 1)) for n in range(DEVICES)]
    if common.lognormal:
        factors = sorted(draw.lognormvariate(0.0, 1.0) for _ in range(DEVICES))
    speeds = dict(zip(order, factors, strict=True))
    hostile = {"none": [], "random": drawn, "fastest": order[:HOSTILE]}[job.attack]
    plan = fedmq.Plan(local_epochs=common.local_epochs, learning_rate=0.1, batch_size=16, codec="float32")
    strategy = STRATEGIES[job.strategy](buffer_size=common.buffer_size, one_per_client=job.one_per_client)
    task = HERE / "examples/digits/task.py"
    world = fedmq.Sandbox(
        task, [], seed=job.seed, plan=plan, strategy=strategy, speeds=speeds, snapshot_codec="float32"
    )
    vars(sys.modules[world.task.load_data.__module__])["ALPHA"] = common.alpha  # before a device has its data
    for client in ids:
        world.plug(client)
    for client in hostile:
        poisoned(world._clients[client].trainer)
    late = []
    world.run(seconds=0.75 * common.seconds)
    while world.seconds < common.seconds:
        world.run(seconds=common.seconds / 20)
        late.append(world.evaluate()["accuracy"])
    senders = [folded.client_id for record in world.history for folded in record.updates]
    held = sum(sender in hostile for sender in senders) / max(1, len(senders))
    return Found(statistics.mean(late), held, world.version)


def measured(attacks: list[str], seeds: int, setting: Setting, workers: int) -> list[dict[str, Any]]:
    choices = [(attack, name, slots) for attack in attacks for name in STRATEGIES for slots in (False, True)]
    jobs = [Job(*choice, seed, setting) for seed in range(seeds) for choice in choices]
    found: dict[Job, Found] = {}
    begun = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job): job for job in jobs}
        for done, future in enumerate(as_completed(running), 1):
            job = running[future]
            found[job] = future.result()
            left = (time.monotonic() - begun) / done * (len(jobs) - done)
            print(f"{done} of {len(jobs)} runs, about {left / 60:.0f} min left: {job} {future.result()}",
                  file=sys.stderr, flush=True)  # fmt: skip
    rows = []
    for attack, name, slots in choices:
        runs = [found[Job(attack, name, slots, seed, setting)] for seed in range(seeds)]
        rows.append(
            {
                "attack": attack,
                "strategy": name,
                "one_per_client": slots,
                "accuracy": statistics.mean(one.accuracy for one in runs),
                "min": min(one.accuracy for one in runs),
                "max": max(one.accuracy for one in runs),
                "held": statistics.mean(one.held for one in runs),
                "versions": statistics.mean(one.versions for one in runs),
                "seeds": seeds,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ATTACKS, help="one of them")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual, of each run (default: 60)")
    parser.add_argument("--buffer-size", type=int, default=10, help="K (default: 10)")
    parser.add_argument("--alpha", type=float, default=0.3, help="how evenly digits are spread (default: 0.3)")
    parser.add_argument("--lognormal", action="store_true", help="speeds of a lognormal distribution")
    parser.add_argument("--local-epochs", type=int, default=5, help="of each training (default: 5)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--json", action="store_true", help="one object as the last line")
    options = parser.parse_args()
    if not LEAST <= options.buffer_size <= DEVICES:
        parser.error(f"--buffer-size {options.buffer_size}: expected {LEAST} to {DEVICES}, one of each device at most")
    attacks = [options.only] if options.only else ATTACKS
    setting = Setting(options.seconds, options.buffer_size, options.alpha, options.lognormal, options.local_epochs)
    rows = measured(attacks, options.seeds, setting, options.workers)
    print("hostile  strategy                 slots  accuracy (min-max)     held  versions")
    for row in rows:
        print(f"{row['attack']:8} {row['strategy']:24} {'one' if row['one_per_client'] else 'any':5}"
              f"  {row['accuracy']:.3f} ({row['min']:.3f}-{row['max']:.3f})  {row['held']:5.0%}"
              f"  {row['versions']:8.0f}")  # fmt: skip
    if options.json:
        print(json.dumps(asdict(setting) | {"rows": rows}))


if __name__ == "__main__":
    main()
