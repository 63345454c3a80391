"""One run under a hostile broker: a first run that ends, the second under attack, the quiet after it, the findings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmq.broker_config.secure import SecureBroker
from fedmq.schemas.topics import Topics
from fedmq.watch import Watch
from tests.chaos.one_hot_task import PLACES
from tests.hostile_broker.federation import DEVICES, FEDERATION, Federation
from tests.hostile_broker.malice import Malice
from tests.hostile_broker.proxy import HostileBroker
from tests.system.processes import PATIENCE, Program

__all__ = ["Outcome", "siege"]

_FIRST_VERSIONS = 8  # of the run that is replaced
_QUIET_SECONDS = 40.0  # at most
_LONGER = 30.0  # seconds that an attack goes on for, at most, for the sake of updates


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        seconds: how long it took.
        deeds: how often the broker did what to which kind of message.
        refusals: what the processes say that they refused, at least, by reason.
        signature: messages that the aggregator refused, as its run counts them.
        trained, stored, accepted: updates of the run under attack.
        broken: in one sentence each, what is not as it must be.

    """

    seconds: float
    deeds: Counter[tuple[str, str]]
    refusals: Counter[str]
    signature: int
    trained: int
    stored: int
    accepted: int
    broken: list[str]

    def __str__(self) -> str:
        deeds: Counter[str] = Counter()
        for (deed, _), count in self.deeds.items():
            deeds[deed] += count
        return "\n".join([
            f"{self.seconds:.0f} s, {self.trained} trained, {self.stored} kept, {self.accepted} accepted",
            "  the broker: " + ", ".join(f"{deed} {count}" for deed, count in deeds.most_common()),
            f"  refused, at least: {self.signature} by the aggregator in the end; "
            + ", ".join(f"{count} {why}" for why, count in self.refusals.most_common()),
            *(f"  BROKEN: {sentence}" for sentence in self.broken[:20]),
        ])  # fmt: skip


def siege(
    folder: Path, seed: int, seconds: float, *, parts: bool, least: int = 0, mutation: str | None = None
) -> Outcome:
    """Run one federation under attack.

    Args:
        folder: for its files; made.
        seed: of what the broker does; what the processes do in between is theirs.
        seconds: of the attack.
        least: updates that have to be made meanwhile; it goes on for longer for them, but not for ever.
        parts: whether models and updates travel in parts.
        mutation: the check that is left out on purpose; None for the real program.

    """
    begun = time.monotonic()
    federation = Federation(folder, parts=parts, mutation=mutation)
    malice = Malice(Topics(FEDERATION), federation.signs(), seed)
    broken: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(SecureBroker(federation.root))
        proxy = stack.enter_context(HostileBroker(federation.root, federation.port, federation.behind, malice))
        stack.callback(_end, federation)
        _first_run(federation)
        before = {name: federation.stored(name) for name in DEVICES}
        lives = _Lives(federation)
        _until(lambda: all(federation.stored(name) >= before[name] + 2 for name in DEVICES), PATIENCE, lives.step)
        malice.at_work = True
        with Watch(federation.operator, "eye") as watch:
            eye = _Eye(watch, federation)

            def step() -> None:
                lives.step()
                eye.look()

            begun_at, made = time.monotonic(), sum(map(federation.stored, DEVICES))

            def over() -> bool:
                enough = sum(map(federation.stored, DEVICES)) - made >= least
                return bool(lives.ended) or (enough and time.monotonic() >= begun_at + seconds)

            lives.restart_at = begun_at + seconds / 3
            _until(over, seconds + _LONGER, step)
            malice.at_work = False
            federation.train(on=False)
            proxy.cut_all()

            def settled() -> bool:
                return not any(federation.waiting(name) for name in DEVICES) or bool(lives.ended)

            quiet = _until(settled, _QUIET_SECONDS, step)
        broken += eye.broken + lives.ended
        if not quiet:
            left = {name: federation.waiting(name) for name in DEVICES}
            broken.append(f"after {_QUIET_SECONDS:g} s of quiet there are updates without a verdict: {left}")
        if not lives.ended:
            broken += lives.stop()
        failure = proxy.failure
    if failure is not None:
        raise failure
    run = federation.run("second")
    assert run is not None, f"nothing was ever committed; see {folder}"
    stored = {name: federation.stored(name) for name in DEVICES}
    broken += _miscounted(run.weights, before, stored)
    rejected = Counter(run.figures["rejected"])
    kept = sum(stored.values()) - sum(before.values())
    if run.figures["accepted"] != kept:
        broken.append(f"{kept} updates were made and kept, {run.figures['accepted']} accepted")
    # What the first run has left unjudged may be refused as its; and an offer that is repeated when 64 later ones have
    # been judged is too old to be known, whatever became of it.
    if others := set(+rejected) - {"signature", "wrong_run", "expired"}:
        broken.append(f"updates were rejected: { {reason: rejected[reason] for reason in others} }")
    trained = sum(sequence >= before[name] for name in DEVICES for sequence in federation.trained(name))
    return Outcome(
        time.monotonic() - begun, malice.done, federation.refusals(), rejected["signature"], trained, kept,
        run.figures["accepted"], broken,
    )  # fmt: skip


class _Lives:
    """The processes of the second run; the aggregator and a device are started again in the middle of it."""

    def __init__(self, federation: Federation) -> None:
        self.ended: list[str] = []
        self.restart_at = float("inf")
        self._federation = federation
        self._programs = {"aggregator": federation.aggregator("second", None, "--replace")}
        self._programs["aggregator"].says("connected run=")  # until then the broker shows truly that a run is finished
        self._programs |= {name: federation.client(name) for name in DEVICES}

    def step(self) -> None:
        """See who lives, and start again whose turn it is."""
        for name, program in self._programs.items():
            if not program.running and not self.ended:
                self.ended.append(f"{name} ended by itself, with code {program.ends(0)}: {_last(program)}")
        if time.monotonic() >= self.restart_at and not self.ended:
            self.restart_at = float("inf")
            for name in ("aggregator", DEVICES[0]):
                self._programs[name].kill()
            self._programs["aggregator"] = self._federation.aggregator("second")
            self._programs[DEVICES[0]] = self._federation.client(DEVICES[0])

    def stop(self) -> list[str]:
        """End them, as their owners would; who did not follow."""
        for program in self._programs.values():
            program.terminate()
        return [
            f"{name} was asked to stop and ended with code {code}: {_last(program)}"
            for name, program in self._programs.items()
            if (code := program.ends())
        ]


def _first_run(federation: Federation) -> None:
    """A run that is finished: its messages are what devices must not hear again."""
    programs = [federation.aggregator("first", _FIRST_VERSIONS), *(federation.client(name) for name in DEVICES)]
    for program in programs:
        assert program.ends() == 0, program.log
    assert all("finished" in program.log for program in programs)


class _Eye:
    """Sees to it that what `fedmq status` would show has been said by whose word it is."""

    def __init__(self, watch: Watch, federation: Federation) -> None:
        self.broken: list[str] = []
        self._watch = watch
        self._federation = federation
        self._runs: set[str] = set()

    def look(self) -> None:
        """Take what has come, and look at all of it."""
        watch = self._watch
        watch.poll(0.02)
        said = [
            f"{name}: {status}"
            for name, status in watch.clients.items()
            if name not in DEVICES
            or status.accepted > self._federation.stored(name)
            or set(status.incarnation) <= {"0", "f"}
        ]
        for shown in (watch.progress, watch.aggregator):
            if shown is not None and shown.run not in self._runs:
                self._runs |= {run.run for name in ("first", "second") if (run := self._federation.run(name))}
                said += [] if shown.run in self._runs else [str(shown)]
        if said and not self.broken:
            self.broken = [f"what nobody has said is shown: {said[0]}"]


def _miscounted(weights: object, before: dict[str, int], stored: dict[str, int]) -> list[str]:
    counts = np.asarray(weights)
    found = []
    for number, name in enumerate(DEVICES):
        expected = np.zeros(PLACES)
        expected[before[name] : stored[name]] = 1
        mine = counts[number * PLACES : (number + 1) * PLACES]
        found += [
            f"{name} {sequence}: counts {mine[sequence]:g} times, kept {expected[sequence]:g} times"
            for sequence in np.flatnonzero(mine != expected)[:3]
        ]
    if counts[len(DEVICES) * PLACES :].any():
        found.append("weights moved that no device trains")
    return found


def _until(condition: Callable[[], object], seconds: float, step: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := bool(condition())) and time.monotonic() < deadline:
        step()
        time.sleep(0.02)
    return met


def _last(program: Program) -> str:
    return " | ".join(program.log.splitlines()[-2:])


def _end(federation: Federation) -> None:
    for program in federation.programs:
        program.kill()
