"""Where an aggregator begins: on as it was, or anew with another run's weights; what was there is never lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.export import read_run
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.state import News, State
from fedmq.aggregator.store import Store
from fedmq.aggregator.strategies import fedasync_delta
from fedmq.beginning import Beginning
from fedmq.cli import main
from fedmq.schemas.errors import ConfigError, StoreError
from fedmq.settings import load_settings
from tests.aggregator.small_run import offer_of

Entries = dict[str, list[float]]


class Folder:
    """A federation's folder; the model is what `weights` says."""

    def __init__(self, path: Path, weights: Entries) -> None:
        self.path = path
        self.run = path / "run"
        (path / "federation.toml").write_text(
            'federation = "kitchen"\nbroker.url = "mqtt://127.0.0.1:1"\naggregator.folder = "run"\n'
            'aggregator.init = "weights.safetensors"\n'
        )
        self.model(weights)

    def model(self, weights: Entries) -> None:
        save_file({key: np.array(row, np.float32) for key, row in weights.items()}, self.path / "weights.safetensors")

    def begin(self, *, anew: bool = False, source: Path | None = None) -> State:
        """What a process begins with; it commits that, and dies."""
        settings = load_settings(self.path / "federation.toml", environment={})
        beginning = Beginning(settings, None, settings.plan, source)
        store = Store(self.run, "kitchen")
        try:
            state = beginning.anew(store) if anew else beginning.state(store)
            store.commit(state, News())
        finally:
            store.close()
        return state

    def moved(self, by: float) -> State:
        """The run after one version more, in which all weights have moved."""
        store = Store(self.run, "kitchen")
        layout = store.layout()
        assert layout is not None
        state = store.load(layout)
        assert state is not None
        state.weights += np.float32(by)
        state.version += 1
        store.commit(state, News())
        store.close()
        return state

    def entries(self, state: State) -> Entries:
        return {name: [float(x) for x in array] for name, array in state.layout.views(state.weights).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, {"w": [1, 2], "b": [3]})


def test_a_new_folder_begins_a_run_and_it_goes_on_the_next_time(folder: Folder) -> None:
    first = folder.begin()
    folder.moved(10)
    second = folder.begin()
    assert (second.run, second.version) == (first.run, 1)
    assert folder.entries(second) == {"w": [11, 12], "b": [13]}


def test_a_new_run_begins_with_the_weights_of_the_old_which_is_kept_aside(folder: Folder) -> None:
    old = folder.begin()
    folder.moved(10)
    new = folder.begin(anew=True)
    assert new.replaced == [old.run]
    assert (new.run != old.run, new.version) == (True, 0)
    assert folder.entries(new) == {"w": [11, 12], "b": [13]}
    assert read_run(folder.run).run == new.run
    kept = read_run(folder.run / f"run-{old.run[:8]}")
    assert (kept.run, kept.version) == (old.run, 1)
    assert {name: array.tolist() for name, array in kept.arrays().items()} == {"w": [11, 12], "b": [13]}
    again = folder.begin()
    assert (again.run, again.replaced) == (new.run, [old.run])
    assert [path.name for path in folder.run.glob("weights-*")] == ["weights-3.safetensors"]


def test_entries_of_equal_name_and_shape_are_carried_over_to_another_model(folder: Folder) -> None:
    folder.begin()
    folder.moved(10)
    folder.model({"w": [1, 2], "b": [3, 4], "head": [5]})
    with pytest.raises(StoreError, match="carry over what fits with --new-run"):
        folder.begin()
    new = folder.begin(anew=True)
    assert folder.entries(new) == {"w": [11, 12], "b": [3, 4], "head": [5]}


@pytest.mark.parametrize("kind", ["a run folder", "a file"])
def test_weights_may_come_from_elsewhere(kind: str, folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Folder(tmp_path / "other", {"w": [7, 8], "c": [9]})
    other.begin()
    source = other.run if kind == "a run folder" else other.path / "weights.safetensors"
    new = folder.begin(anew=True, source=source)
    assert not new.replaced
    assert folder.entries(new) == {"w": [7, 8], "b": [3]}


def test_weights_of_which_nothing_fits_are_refused_and_the_run_stays_as_it_was(folder: Folder, tmp_path: Path) -> None:
    old = folder.begin()
    (tmp_path / "other").mkdir()
    other = Folder(tmp_path / "other", {"v": [7, 8]})
    with pytest.raises(ConfigError, match=r"weights.safetensors has no entry of the model's names and shapes"):
        folder.begin(anew=True, source=other.path / "weights.safetensors")
    assert folder.begin().run == old.run


def test_the_old_ledger_does_not_judge_the_new_run(folder: Folder) -> None:
    def accepted() -> int:
        store = Store(folder.run, "kitchen")
        layout = store.layout()
        assert layout is not None
        state = store.load(layout)
        assert state is not None
        core = AggregatorCore(state, fedasync_delta(), Rules(state.run, layout), Goal())
        offer, body = offer_of([1, 1, 1], layout, run=state.run, base_version=state.version)
        core.judge("alice", offer, body, 0.0)
        store.commit(state, core.take())
        store.close()
        return len(list(state.ledger.clients()))

    folder.begin()
    assert accepted() == 1
    new = folder.begin(anew=True)
    assert new.ledger.clients() == []
    assert folder.begin().ledger.clients() == []
    assert accepted() == 1


def test_init_from_without_new_run_is_an_error(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(folder.path / "federation.toml")
    assert main(["aggregator", "--config", file, "--init-from", "old.safetensors"]) == 2
    assert "--init-from goes with --new-run" in capsys.readouterr().err
    assert not folder.run.exists()


def test_too_little_disk_for_an_update_of_this_model_is_an_error(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.model({"w": [0.0] * 300_000})
    file = folder.path / "federation.toml"
    file.write_text(f"{file.read_text()}aggregator.spool_bytes = 1048576\n")
    assert main(["aggregator", "--config", str(file)]) == 2
    assert "aggregator.spool_bytes is 1048576, an update of this model may take 1265536" in capsys.readouterr().err
    assert not folder.run.exists()


_TASK_WITH_A_BROKEN_TEST = """
import torch

def build_model():
    return torch.nn.Linear(2, 1)

loss = torch.nn.MSELoss()

def load_data(client_id): ...

def load_test_data():
    raise FileNotFoundError("no test.csv")
"""


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        ("", [], "there is no model"),
        ('task = "task.py"', [], "no test.csv"),
        ('aggregator.init = "none.safetensors"', [], "none.safetensors"),
        ('aggregator.init = "weights.safetensors"\naggregator.revoked_file = "none"', [], "aggregator.revoked_file: "),
        ('aggregator.init = "weights.safetensors"', ["--new-run", "--init-from", "other"], "there is no run in it"),
    ],
)
def test_a_start_that_failed_on_settings_leaves_no_folder(
    folder: Folder, capsys: pytest.CaptureFixture[str], lines: str, options: list[str], sentence: str
) -> None:
    file = folder.path / "federation.toml"
    file.write_text(f'federation = "kitchen"\nbroker.url = "mqtt://127.0.0.1:1"\n{lines}\n')
    (folder.path / "task.py").write_text(_TASK_WITH_A_BROKEN_TEST)
    (folder.path / "other").mkdir()
    options = [str(folder.path / option) if option == "other" else option for option in options]
    assert main(["aggregator", "--config", str(file), *options]) in (1, 2)
    assert sentence in capsys.readouterr().err
    assert not (folder.path / "runs").exists()
