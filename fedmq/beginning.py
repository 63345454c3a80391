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
    """The first state of an aggregator's process.

    Args:
        settings: of the federation.
        task: with the model, if there is one.
        store: of the run.

    """

    def __init__(self, settings: Settings, task: Task | None, store: Store) -> None:
        self._settings = settings
        self._task = task
        self._store = store

    def state(self, plan: Plan) -> State:
        """The run in the folder, or a new one in a new folder.

        Raises:
            ConfigError: there is no model.
            StoreError: the run in the folder cannot go on.

        """
        if self._store.layout() is None:
            return State.initial(os.urandom(16).hex(), *self._version_0(plan))
        # The model's weights go before the run's are read: a process begins with no more memory than it works with.
        layout = self._version_0(plan)[0]
        state = self._store.load(layout)
        if state is None:
            return State.initial(os.urandom(16).hex(), *self._version_0(plan))
        if state.finished is not None:
            # A goal that lies further on makes it go on; else it ends again at once.
            log.warning("the run was finished (%s); it goes on to its goal, start the clients again", state.finished)
            state.finished = None
        return state

    def anew(self, plan: Plan, source: str | Path | None) -> State:
        """Another run, which takes the place of the one in the folder.

        Args:
            plan: of the new run.
            source: a run's folder or a safetensors file to take weights from; the run in the folder if None.

        Raises:
            ConfigError: there is no model, or nothing in `source` fits it.
            StoreError: a run cannot be read or kept.

        """
        layout, weights = self._version_0(plan)
        old = read_run(self._store.folder) if self._store.layout() is not None else None
        if source is not None:
            _carry_over(_entries(Path(source)), layout, weights, str(source))
        elif old is not None:
            _carry_over(old.arrays(), layout, weights, f"run {old.run[:8]}")
        if old is not None:
            kept = self._store.archive(old.run)
            self._store.begin_anew()
            log.warning("the old run %s, version %d, is kept in %s", old.run[:8], old.version, kept)
        state = State.initial(os.urandom(16).hex(), layout, weights)
        state.replaced = [*old.figures["replaced"], old.run] if old is not None else []
        return state

    def _version_0(self, plan: Plan) -> tuple[Layout, Vector]:
        settings, task = self._settings.aggregator, self._task
        weights: Vector | None = None
        layout: Layout | None = None
        if task is not None and task.build_model is not None and not (settings.init and not has_torch()):
            with faults_of(task):
                layout, weights = built(task, plan, settings.seed)
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
