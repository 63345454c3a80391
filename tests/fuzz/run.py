"""Sets inputs on a target, life after life, and writes down what broke it.

An input is a few bytes that the target makes a hostile message of. What a world has heard before counts too: so what is
written down is a short end of its life that breaks a new world as well.
"""

from __future__ import annotations

import gc
import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.aggregator import AggregatorWorld
from tests.fuzz.broker import BrokerWorld
from tests.fuzz.choices import Choices
from tests.fuzz.device import DeviceWorld
from tests.fuzz.messages import MessagesWorld
from tests.fuzz.world import World, require

__all__ = ["TARGETS", "Figures", "Found", "fuzz", "read_case", "rerun"]

INPUT_BYTES = 56
LIFE = 20_000  # inputs
_CHECK = 1_000  # inputs between two looks at the state
_HANG_SECONDS = 0.1
_STUCK_SECONDS = 5.0  # of which the processor's may be few

TARGETS: dict[str, Callable[[int], World]] = {
    "messages": lambda number: MessagesWorld(number=number),
    "aggregator": lambda number: AggregatorWorld(signed=False, number=number),
    "aggregator-signed": lambda number: AggregatorWorld(signed=True, number=number),
    "device": lambda number: DeviceWorld(signed=False, number=number),
    "device-signed": lambda number: DeviceWorld(signed=True, number=number),
    "broker": lambda number: BrokerWorld(number=number),
}
"""What can be fuzzed, by name."""


@dataclass
class Figures:
    """What a run measured.

    Attributes:
        slowest: seconds of the processor for one input, and how long that one took on the clock.
        memory: (inputs done, resident bytes) at the end of lives.

    """

    inputs: int = 0
    worlds: int = 0
    seconds: float = 0.0
    slowest: tuple[float, float] = (0.0, 0.0)
    memory: list[tuple[int, int]] = field(default_factory=list)

    def growth(self) -> int:
        """Resident bytes at the end beyond the most that there were after a tenth."""
        early = [size for done, size in self.memory if done <= self.inputs / 10] or [self.memory[0][1]]
        return self.memory[-1][1] - max(early)


class Found(Exception):  # noqa: N818 (what was looked for)
    """An input that breaks something; `case` is what leads there."""

    def __init__(self, target: str, number: int, case: list[bytes], what: str) -> None:
        super().__init__(what)
        self.target, self.number, self.case = target, number, case

    def write(self, folder: Path) -> Path:
        """As a file that `rerun` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{self.number}-{len(self.case)}.case"
        lines = [f"{self.target} {self.number}", *(data.hex() for data in self.case)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def read_case(path: Path) -> tuple[str, int, list[bytes]]:
    """Target, number of the world, and inputs."""
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    target, number = head.split()
    return target, int(number), [bytes.fromhex(line) for line in lines]


def fuzz(target: str, inputs: int, seed: int, progress: Callable[[Figures], None] = lambda figures: None) -> Figures:
    """Set so many inputs on a target.

    Raises:
        Found: one of them broke something.

    """
    gc.collect()
    gc.freeze()  # what is imported is not looked through again and again
    try:
        return _fuzzed(target, inputs, random.Random(f"{target}/{seed}"), progress)
    finally:
        gc.unfreeze()


def _fuzzed(target: str, inputs: int, chance: random.Random, progress: Callable[[Figures], None]) -> Figures:
    figures, begun = Figures(), time.perf_counter()
    while figures.inputs < inputs:
        life = [chance.randbytes(INPUT_BYTES) for _ in range(min(LIFE, inputs - figures.inputs))]
        lived = 0
        try:
            for took in _live(target, figures.worlds, life):
                lived += 1
                figures.slowest = max(figures.slowest, took)
                if took[0] > _HANG_SECONDS or took[1] > _STUCK_SECONDS:
                    require(False, f"an input took {took[0]:.3f} s of the processor, {took[1]:.3f} s on the clock")
        except Exception:
            raise _shortened(target, figures.worlds, life[: lived + 1], _what()) from None
        figures.inputs += lived
        figures.worlds += 1
        figures.seconds = time.perf_counter() - begun
        if figures.worlds % 10 == 1 or figures.inputs >= inputs:
            gc.collect()
            figures.memory.append((figures.inputs, _resident()))
        progress(figures)
    return figures


def rerun(target: str, number: int, case: list[bytes]) -> None:
    """Set these inputs on one world. Raises what they bring about."""
    for took in _live(target, number, case):
        require(took[0] <= _HANG_SECONDS, f"an input took {took[0]:.3f} s of the processor")


def _live(target: str, number: int, life: list[bytes]) -> Iterator[tuple[float, float]]:
    """One world from its beginning to its end; what each input took, on the processor and on the clock."""
    world = TARGETS[target](number)
    try:
        for place, data in enumerate(life, 1):
            clock, processor = time.perf_counter(), time.thread_time()
            world.step(Choices(data))
            yield time.thread_time() - processor, time.perf_counter() - clock
            if world.over:
                return
            if place % _CHECK == 0:
                world.check()
        world.check()
    finally:
        world.close()


def _shortened(target: str, number: int, life: list[bytes], what: str) -> Found:
    """The shortest of a few ends of this life that break a new world too; else all of it."""
    length = 1
    while length < len(life):
        try:
            rerun(target, number, life[-length:])
        except Exception:
            return Found(target, number, life[-length:], _what())
        length *= 4
    return Found(target, number, life, what)


def _what() -> str:
    """The last traceback; a hostile value may be in its lines, and be long."""
    return "\n".join(line[:300] for line in traceback.format_exc().splitlines()[-40:])


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
