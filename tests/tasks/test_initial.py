from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.plan import Plan
from fedmq.tasks.bridge import layout_of, to_vector
from fedmq.tasks.contract import Task
from fedmq.tasks.initial import STATISTICS_KEY, built, built_model, read_weights

torch.set_num_threads(1)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def task(build_model: Any) -> Task:
    return Task(Path("task.py"), "v1", build_model=build_model)


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    layout, weights = built(task(net), Plan(), 1)
    assert layout == layout_of(net())
    np.testing.assert_array_equal(built(task(net), Plan(), 1)[1], weights)
    assert not np.array_equal(built(task(net), Plan(), 2)[1], weights)
    torch.manual_seed(1)
    np.testing.assert_array_equal(to_vector(net(), layout), weights)


def test_torchs_own_randomness_stays_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    built(task(net), Plan(), 1)
    built_model(task(net), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_local_parameters_are_left_out() -> None:
    layout, weights = built(task(net), Plan(local_parameters=("1.*",)), 0)
    assert [entry.name for entry in layout.entries] == ["0.weight", "0.bias"]
    assert weights.shape == (8,)


@pytest.mark.parametrize(
    ("build_model", "sentence"),
    [
        (None, r"it has no build_model\(\)"),
        (lambda: 7, r"build_model\(\) returned a int, expected a torch\.nn\.Module"),
    ],
)
def test_what_is_no_model_is_a_clear_error(build_model: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        built(task(build_model), Plan(), 0)


def saved(folder: Path, arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    path = folder / "init.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata)
    return path


def test_a_file_of_a_models_weights_is_read_for_that_model(tmp_path: Path) -> None:
    model = net()
    path = tmp_path / "init.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    layout, weights = read_weights(path, layout_of(model))
    assert layout == layout_of(model)
    np.testing.assert_array_equal(weights, to_vector(model, layout))


def test_without_a_model_the_file_is_the_layout_and_statistics_are_recognised_by_name(tmp_path: Path) -> None:
    arrays = {
        "a.weight": np.ones((2, 3), np.float32),
        "n.running_mean": np.full(2, 4, np.float32),
        "n.running_var": np.full(2, 5, np.float32),
        "n.num_batches_tracked": np.array(9),
        "z.bias": np.full(2, 3, np.float16),
    }
    layout, weights = read_weights(saved(tmp_path, arrays))
    assert {(entry.name, entry.kind) for entry in layout.entries} == {
        ("a.weight", "parameter"),
        ("z.bias", "parameter"),
        ("n.running_mean", "statistic"),
        ("n.running_var", "statistic"),
    }
    views = layout.views(weights)
    for entry in layout.entries:
        np.testing.assert_array_equal(views[entry.name], arrays[entry.name])


def test_without_a_model_the_metadata_names_other_statistics(tmp_path: Path) -> None:
    arrays = {"w": np.ones(2, np.float32), "ema": np.ones(2, np.float32)}
    layout, _ = read_weights(saved(tmp_path, arrays, {STATISTICS_KEY: json.dumps(["ema"])}))
    assert layout == Layout((Entry("w", (2,)), Entry("ema", (2,), kind="statistic")))


def test_a_file_is_read_without_torch(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": np.ones(2, np.float32)})
    script = "import sys; from pathlib import Path; from fedmq.tasks.initial import read_weights\n"
    script += "assert read_weights(Path(sys.argv[1]))[1].sum() == 2 and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"w": np.ones(3, np.float32)}, r"it does not fit the model: entry 'w': shape \[3\], expected \[2\]"),
        ({"v": np.ones(2, np.float32)}, "it does not fit the model: entry 'w': missing"),
    ],
)
def test_a_file_that_does_not_fit_names_the_entry(tmp_path: Path, arrays: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_weights(saved(tmp_path, arrays), Layout((Entry("w", (2,)),)))


def test_a_file_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it does not fit the model: a layout has 0 entries"):
        read_weights(saved(tmp_path, {"count": np.array(3)}))


def test_files_that_cannot_be_read_are_clear_errors(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\xff" * 100)
    for path in (tmp_path / "nothing.safetensors", tmp_path, garbage):
        with pytest.raises(ConfigError, match="cannot be read as safetensors"):
            read_weights(path)
    brain = tmp_path / "bfloat16.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, brain)
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        read_weights(brain)


@pytest.mark.parametrize(("metadata", "sentence"), [("{", "is not JSON"), ("7", "is not a list of names")])
def test_metadata_that_make_no_sense_are_a_clear_error(tmp_path: Path, metadata: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_weights(saved(tmp_path, {"w": np.ones(2, np.float32)}, {STATISTICS_KEY: metadata}))
