"""Processes that are killed again and again, each at a fail-point or at a random instant, and started again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fedmq.broker_config.start import RunningBroker
from tests.chaos.stage import Crash, Life

__all__ = ["BrokerVictim", "Points", "Victim"]

_INSTANT = (0.3, 2.5)  # seconds after its start, within which a process dies that is to die at no fail-point
_PATIENCE = 5.0  # seconds that a process has to come to its fail-point
_PASSINGS = 6  # of a fail-point, the last of which kills: one of the first is in the start itself
_PAUSE = 0.3  # seconds that something stays dead, at most
_AT_A_POINT = 0.75  # of the lives, as long as there are fail-points that lack hits


@dataclass(slots=True)
class Points:
    """The fail-points of one program, and how often each has killed.

    Attributes:
        names: of the fail-points.
        wanted: hits of each.
        wanted_half_full: hits of each while the committed buffer held some but not all of K updates.
        hits, half_full: hits so far.
        armed: processes that are on their way to a point.

    """

    names: tuple[str, ...]
    wanted: int
    wanted_half_full: int
    hits: Counter[str] = field(default_factory=Counter)
    half_full: Counter[str] = field(default_factory=Counter)
    armed: Counter[str] = field(default_factory=Counter)

    def lacking(self) -> list[str]:
        """The points that have to be hit more often."""
        return [
            name for name in self.names if self.hits[name] < self.wanted or self.half_full[name] < self.wanted_half_full
        ]

    def hit(self, name: str, *, half_full: bool) -> None:
        """Count a death."""
        self.hits[name] += 1
        self.half_full[name] += half_full


class Victim:
    """One aggregator or client, in all its lives.

    Args:
        start: a new life.
        points: of its program.
        kills: how often it has to be killed.
        half_full: whether the committed buffer is neither empty nor full.
        chance: seeded.

    Attributes:
        kills: how often it was killed.
        calm: from now on it is left alone.

    """

    def __init__(
        self,
        start: Callable[[Crash | None], Life],
        points: Points,
        kills: int,
        half_full: Callable[[], bool],
        chance: random.Random,
    ) -> None:
        self.kills = 0
        self.calm = False
        self._start = start
        self._points = points
        self._wanted = kills
        self._half_full = half_full
        self._chance = chance
        self._crash: Crash | None = None
        self._kill_at = float("inf")
        self._start_at = float("inf")
        self.life: Life | None = self._born()

    @property
    def enough(self) -> bool:
        """Whether it was killed often enough."""
        return self.kills >= self._wanted

    @property
    def well(self) -> bool:
        """Whether it runs, and nothing will kill it."""
        return self.calm and self.life is not None and self._crash is None

    def step(self) -> None:
        """Kill it, bury it or start it, if that is due."""
        now = time.monotonic()
        if self.life is None:
            if now >= self._start_at:
                self.life = self._born()
        elif not self.life.program.running:
            self._buried(self.life, now)
        elif now >= self._kill_at:
            self.life.program.kill()
            self._buried(self.life, now)

    def soothe(self) -> None:
        """Leave it alone; if it is on its way to a fail-point it dies once more."""
        self.calm = True
        self._kill_at = 0.0 if self._crash else float("inf")

    def _born(self) -> Life:
        now = time.monotonic()
        self._crash, self._kill_at = None, float("inf")
        lacking = [] if self.calm else [name for name in self._points.lacking() if not self._points.armed[name]]
        if lacking and self._chance.random() < _AT_A_POINT:
            self._crash = Crash(self._chance.choice(lacking), self._chance.randint(1, _PASSINGS))
            self._points.armed[self._crash.point] += 1
            self._kill_at = now + _PATIENCE
        elif not self.calm and (lacking or not self.enough):
            self._kill_at = now + self._chance.uniform(*_INSTANT)
        return self._start(self._crash)

    def _buried(self, life: Life, now: float) -> None:
        code, point = life.program.ends(0), life.died_at()
        assert code == -9, f"{life.program.name} ended by itself, with code {code}:\n{life.program.log[-3000:]}"
        if self._crash is not None:
            self._points.armed[self._crash.point] -= 1
        if point is not None:
            self._points.hit(point, half_full=self._half_full())
        self.kills += 1
        self.life = None
        self._start_at = now + (0.0 if self.calm else self._chance.uniform(0.0, _PAUSE))


class BrokerVictim:
    """The broker, which comes back with what it has saved at every second time.

    Args:
        start: a new one, persistent or not.
        kills: how often it has to be killed.
        every: seconds between two kills, roughly.
        chance: seeded.

    Attributes:
        kills: how often it was killed.

    """

    def __init__(self, start: Callable[[bool], RunningBroker], kills: int, every: float, chance: random.Random) -> None:
        self.kills = 0
        self._start = start
        self._wanted = kills
        self._every = every
        self._chance = chance
        self._broker: RunningBroker | None = start(True)
        self._next_at = time.monotonic() + self._pause()

    @property
    def enough(self) -> bool:
        """Whether it was killed often enough."""
        return self.kills >= self._wanted

    def step(self) -> None:
        """Kill or start it, if that is due."""
        now = time.monotonic()
        if self._broker is None:
            if now >= self._next_at:
                self._broker = self._start(self.kills % 2 == 0)
                self._next_at = time.monotonic() + self._pause()
        else:
            assert self._broker.running, f"the broker ended by itself: {self._broker.log.read_text()[-2000:]}"
            if not self.enough and now >= self._next_at:
                self._broker.kill()
                self._broker, self.kills = None, self.kills + 1
                self._next_at = now + self._chance.uniform(0.0, _PAUSE)

    def soothe(self) -> None:
        """Leave it alone."""
        self._wanted = 0

    def end(self) -> None:
        """Kill it for good."""
        if self._broker is not None:
            self._broker.kill()

    def _pause(self) -> float:
        return self._every * self._chance.uniform(0.5, 1.5)
