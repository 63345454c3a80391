"""Where an aggregator begins: with the run in its folder, with version 0, or with another run's weights."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmq.aggregator.export import read_run
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.blame import faults_of
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.plan import Plan
from fedmq.settings import Settings
from fedmq.tasks.contract import Task
from fedmq.tasks.initial import built, read_weights

__all__ = ["Beginning", "has_torch"]

log = logging.getLogger("fedmq.aggregator")


class Beginning:
    """The first state of an aggregator's process; version 0 is made at once, before a folder is there.

    Args:
        settings: of the federation.
        task: with the model, if there is one.
        plan: of the run.
        source: a run's folder or a safetensors file, for another run to take weights from.

    Attributes:
        layout: of the model.

    Raises:
        ConfigError: there is no model, or nothing in `source` fits it.
        StoreError: the run in `source` cannot be read.

    """

    def __init__(self, settings: Settings, task: Task | None, plan: Plan, source: str | Path | None = None) -> None:
        self._settings = settings
        self._task = task
        self._plan = plan
        self._carried = source is not None
        self.layout, weights = self._version_0()
        if source is not None:
            _carry_over(_entries(Path(source)), self.layout, weights, str(source))
        self._weights: Vector | None = weights

    def state(self, store: Store) -> State:
        """The run in the folder, or a new one in a new folder; once.

        Raises:
            StoreError: the run in the folder cannot go on.

        """
        weights, self._weights = self._weights, None
        assert weights is not None
        if store.layout() is None:
            return State.initial(os.urandom(16).hex(), self.layout, weights)
        # The model's weights go before the run's are read: a process begins with no more memory than it works with.
        del weights
        state = store.load(self.layout)
        if state is None:
            return State.initial(os.urandom(16).hex(), *self._version_0())
        if state.finished is not None:
            # A goal that lies further on makes it go on; else it ends again at once.
            if (reached := self._reached(state, store)) is not None:
                log.warning("the run has reached its goal (%s) and ends again; set another [aggregator.goal], or begin"
                            " another run with --new-run", reached)  # fmt: skip
            else:
                log.warning(
                    "the run was finished (%s); it goes on to its goal, start the clients again", state.finished
                )
            state.finished = None
        return state

    def anew(self, store: Store) -> State:
        """Another run, which takes the place of the one in the folder, and its weights unless there is a source; once.

        Raises:
            ConfigError: nothing of the run in the folder fits the model.
            StoreError: a run cannot be read or kept.

        """
        weights, self._weights = self._weights, None
        assert weights is not None
        old = read_run(store.folder) if store.layout() is not None else None
        if old is not None:
            if not self._carried:
                _carry_over(old.arrays(), self.layout, weights, f"run {old.run[:8]}")
            kept = store.archive(old.run)
            store.begin_anew()
            log.warning("the old run %s, version %d, is kept in %s", old.run[:8], old.version, kept)
        state = State.initial(os.urandom(16).hex(), self.layout, weights)
        state.replaced = [*old.figures["replaced"], old.run] if old is not None else []
        return state

    def _reached(self, state: State, store: Store) -> str | None:
        """Which part of the goal is reached as of the last commit."""
        goal, devices, own = self._settings.aggregator.goal, None, None
        if goal.target is not None and goal.source == "devices":
            devices = state.scores.reached_by_most(goal.metric, higher_is_better=goal.higher_is_better)
        elif goal.target is not None:
            for record in store.history():
                own = record["aggregator"]
        return goal.reached(state.version, state.seconds, devices, own)

    def _version_0(self) -> tuple[Layout, Vector]:
        settings, task = self._settings.aggregator, self._task
        weights: Vector | None = None
        layout: Layout | None = None
        if task is not None and task.build_model is not None and not (settings.init and not has_torch()):
            with faults_of(task):
                layout, weights = built(task, self._plan, settings.seed)
        if settings.init is not None:
            layout, weights = read_weights(settings.init, layout)
        if layout is None or weights is None:
            raise ConfigError(
                "there is no model: set task to a file with build_model(), or [aggregator] init to a safetensors file"
            )
        return layout, weights


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    try:
        import torch  # noqa: F401 (only whether it is there)
    except ImportError:
        return False
    return True


def _entries(source: Path) -> dict[str, npt.NDArray[np.float32]]:
    if source.is_dir():
        return read_run(source).arrays()
    layout, weights = read_weights(source, None)
    return layout.views(weights)


def _carry_over(entries: dict[str, npt.NDArray[np.float32]], layout: Layout, weights: Vector, where: str) -> None:
    here = layout.views(weights)
    carried = [name for name, array in here.items() if name in entries and entries[name].shape == array.shape]
    if not carried:
        raise ConfigError(
            f"{where} has no entry of the model's names and shapes; the model has {', '.join(here)[:300]}"
        )
    for name in carried:
        here[name][...] = entries[name]
    left = sorted(set(here) - set(carried))
    log.info("carried over from %s: %d of %d entries%s", where, len(carried), len(here),
             f"; as in version 0: {', '.join(left)[:300]}" if left else "")  # fmt: skip
