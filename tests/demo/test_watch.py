from __future__ import annotations

import importlib.machinery
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedmq.demo import watch
from fedmq.demo.central import train_centrally
from fedmq.demo.watch import CHANNELS, EXERCISES, STEP, WINDOW, split, unseen, wearers
from fedmq.schemas.errors import ConfigError
from fedmq.tasks.loader import load_task

TASK_FILE = Path(watch.__file__).with_name("watch_task.py")
Record = Callable[..., None]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Makes series the only recordings, all of wearer-1 and of exercise 0."""

    def made(*series: NDArray[np.float64], right: list[bool]) -> None:
        count = len(series)
        recordings = {
            "X": list(series),
            "y": np.zeros(count, np.int64),
            "subject": np.ones(count, np.int64),
            "side": np.array(right, np.float64),
        }
        monkeypatch.setattr(watch, "_recordings", lambda: recordings)

    return made


def installed_at(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Python finds seglearn in this folder; None for nowhere."""
    spec = importlib.machinery.ModuleSpec("seglearn", None, origin=str(folder / "__init__.py")) if folder else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(watch, "_recordings", watch._recordings.__wrapped__)  # not what an earlier test has read


def test_eight_wearers_take_part_and_two_others_do_not() -> None:
    assert wearers() == [f"wearer-{number}" for number in range(1, 9)]
    assert unseen() == ["wearer-9", "wearer-10"]


@pytest.mark.parametrize("client_id", [*wearers(), *unseen()])
def test_every_part_of_every_wearer_holds_windows_of_every_exercise(client_id: str) -> None:
    mine = split(client_id)
    for inputs, targets in (mine.train, mine.validation, mine.test):
        assert inputs.dtype == np.float32
        assert inputs.shape == (len(targets), CHANNELS, WINDOW)
        assert inputs.flags.c_contiguous
        assert np.isfinite(inputs).all()
        assert targets.dtype == np.int64
        assert set(targets.tolist()) == set(range(len(EXERCISES)))


def test_the_participants_have_these_windows_and_no_others() -> None:
    parts = [split(client_id) for client_id in wearers()]
    assert [len(part.train[1]) for part in parts] == [584, 557, 274, 262, 495, 481, 539, 487]
    assert [len(part.validation[1]) for part in parts] == [162, 153, 62, 54, 132, 129, 149, 130]
    assert [len(part.test[1]) for part in parts] == [162, 153, 62, 55, 132, 129, 149, 131]


def test_splitting_twice_gives_the_same_windows() -> None:
    once, again = split("wearer-3"), split("wearer-3")
    for one, other in ((once.train, again.train), (once.validation, again.validation), (once.test, again.test)):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("length", [947, 1000, 2618])
def test_between_the_parts_of_a_series_lies_a_window_that_none_of_them_touches(length: int, record: Record) -> None:
    record(np.tile(np.arange(length, dtype=np.float64)[:, None], CHANNELS), right=[False])
    mine = split("wearer-1")
    sample = float(mine.train[0][0, 0, 1] - mine.train[0][0, 0, 0])  # what one sample's distance has become
    ends = [(float(part[0].min()) / sample, float(part[0].max()) / sample) for part in (mine.train, mine.validation)]
    assert ends[1][0] - ends[0][1] >= WINDOW
    assert float(mine.test[0].min()) / sample - ends[1][1] >= WINDOW


def test_windows_follow_each_other_by_half_a_second(record: Record) -> None:
    record(np.tile(np.arange(1000, dtype=np.float64)[:, None], CHANNELS), right=[False])
    inputs, _ = split("wearer-1").train
    np.testing.assert_allclose(inputs[1, :, : WINDOW - STEP], inputs[0, :, STEP:], rtol=1e-6)
    assert STEP / 50 == 0.5


def test_only_the_training_stretch_decides_how_a_wearer_is_normalised(record: Record) -> None:
    series = np.random.default_rng(0).normal(3.0, 2.0, (1000, CHANNELS))
    record(series, right=[False])
    before = split("wearer-1")
    record(np.concatenate([series[:480], 100 * series[480:]]), right=[False])  # 480 = 60 % of what the gaps leave
    after = split("wearer-1")
    np.testing.assert_array_equal(before.train[0], after.train[0])
    assert abs(float(before.train[0].mean())) < 0.1
    assert abs(float(before.train[0].std()) - 1) < 0.1


def test_a_right_arm_is_seen_as_the_left_arm_that_moves_like_it(record: Record) -> None:
    left = np.random.default_rng(0).normal(size=(1000, CHANNELS))
    record(left, left * [-1, 1, 1, 1, -1, -1], right=[False, True])
    of_left, of_right = np.split(split("wearer-1").train[0], 2)
    np.testing.assert_array_equal(of_left, of_right)


def test_the_package_of_the_recordings_is_not_imported() -> None:
    split("wearer-1")
    assert "seglearn" not in sys.modules


def test_somebody_who_was_not_recorded_is_refused() -> None:
    with pytest.raises(ConfigError, match="no recordings of 'wearer-11'"):
        split("wearer-11")


def test_without_the_recordings_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_at(monkeypatch, None)
    with pytest.raises(ConfigError, match=r"pip install 'fedmq\[demo\]'"):
        split("wearer-1")


def test_a_package_without_the_recordings_counts_as_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed_at(monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match=r"pip install 'fedmq\[demo\]'"):
        split("wearer-1")


def test_another_file_in_their_place_is_refused_before_it_is_unpickled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "watch_dataset.npy", np.array(Trap(), dtype=object), allow_pickle=True)
    installed_at(monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match=r"is not the file of seglearn 1\.2\.5"):
        split("wearer-1")
    assert not (tmp_path / "sprung").exists()
    assert pickle.loads(pickle.dumps(Trap())) is None
    assert (tmp_path / "sprung").exists()  # so it was a trap


def test_the_task_trains_on_the_first_stretch_and_tests_on_the_validation_stretch() -> None:
    task = load_task(TASK_FILE)
    assert task.load_data is not None
    data, mine = task.load_data("wearer-2"), split("wearer-2")
    np.testing.assert_array_equal(data.train[0], mine.train[0])
    np.testing.assert_array_equal(data.test[0], mine.validation[0])


def test_the_model_tells_seven_exercises_apart_and_fits_in_one_message() -> None:
    task = load_task(TASK_FILE)
    assert task.build_model is not None
    model = task.build_model()
    assert model(torch.zeros(3, CHANNELS, WINDOW)).shape == (3, len(EXERCISES))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) <= 28_000


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other in a loop, which is slow wherever the cores have other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_trained_in_one_place_it_knows_at_least_95_of_100_windows() -> None:
    result = train_centrally(0)
    assert result.accuracy >= 0.95
    assert 0.6 <= result.accuracy_unseen <= result.accuracy  # strangers are harder
