from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import fedmq
from fedmq.tasks.contract import Arrays
from fedmq.tasks.loader import load_task
from tests.system.processes import Federation

pytestmark = pytest.mark.broker

WITH_BATCHNORM = """
import torch

def build_model():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

def load_data(client_id):
    raise AssertionError("only devices load data")
"""


@pytest.mark.parametrize("name", ["model.safetensors", "model.npz", "model.NPZ"])
def test_export_writes_the_newest_weights_while_the_aggregator_works(at_work: Federation, name: str) -> None:
    out = at_work.folder / name
    at_work.refresh()
    before = at_work.version
    done = at_work.command("export", "--out", str(out))
    assert done.returncode == 0, done.stderr
    if out.suffix.lower() == ".npz":
        with np.load(out, allow_pickle=False) as arrays:
            weights = arrays["w"]
            assert arrays.files == ["w"]
    else:
        with safe_open(out, "numpy") as file:
            weights = file.get_tensor("w")
            assert file.metadata()["fedmq.run"] == at_work.read_run().run
            assert int(file.metadata()["fedmq.version"]) >= before
    assert weights.shape == (4,)
    assert weights.min() > 0  # whoever trained added something
    assert not list(at_work.folder.glob("*.part"))


def test_a_name_that_promises_another_format_is_refused_before_anything_is_written(at_work: Federation) -> None:
    names = [str(at_work.folder / name) for name in ("first.npz", "first.jsonl", "first.jpg")]
    done = at_work.command("export", "--out", names[0], "--history", names[1], "--report", names[2])
    assert done.returncode == 2
    assert f"--report {names[2]}: it writes *.png; choose such a name" in done.stderr
    assert not list(at_work.folder.glob("first.*"))


def test_what_was_exported_loads_into_the_model_and_begins_another_run(fed: Federation) -> None:
    def train(weights: Arrays, plan: fedmq.Plan) -> fedmq.Trained:
        return fedmq.Trained({name: array + np.float32(1) for name, array in weights.items()}, num_samples=10)

    (fed.folder / "model.py").write_text(WITH_BATCHNORM)
    fed.set(task="model.py", aggregator__init=None, aggregator__goal__versions=3, device__folder="devices")
    with fedmq.Aggregator(fed.file) as aggregator, fedmq.EdgeClient(fed.file, "ada", train=train):
        assert [version.version for version in aggregator.versions()] == [1, 2, 3]
    out = fed.folder / "model.safetensors"
    done = fed.command("export", "--out", str(out))
    assert done.returncode == 0, done.stderr

    build_model = load_task(fed.folder / "model.py").build_model
    assert build_model is not None
    model: torch.nn.Module = build_model()
    missing, unexpected = model.load_state_dict(load_file(out), strict=False)
    assert not unexpected
    assert set(missing) <= {"1.num_batches_tracked"}  # integers stay on the devices
    trained = aggregator.weights()
    assert trained["1.running_mean"].min() > 0
    for name, tensor in model.state_dict().items():
        if name in trained:
            np.testing.assert_array_equal(tensor.numpy(), trained[name])

    fed.set(task=None, aggregator__init=str(out), aggregator__folder="another", aggregator__goal__versions=None)
    with fedmq.Aggregator(fed.file) as another:  # which has no model that could say what is a statistic
        assert another.version == 0
        for name, array in another.weights().items():
            np.testing.assert_array_equal(array, trained[name])
    stored = fed.command(
        "export", "--folder", str(fed.folder / "another"), "--out", str(fed.folder / "again.safetensors")
    )
    assert stored.returncode == 0, stored.stderr
    for path in (out, fed.folder / "again.safetensors"):
        with safe_open(path, "numpy") as file:
            assert file.metadata()["fedmq.statistics"] == '["1.running_mean", "1.running_var"]'


def test_export_writes_the_history_and_a_picture_while_the_aggregator_works(at_work: Federation) -> None:
    history, picture = at_work.folder / "history.jsonl", at_work.folder / "report.png"
    at_work.refresh()
    before = at_work.version
    done = at_work.command("export", "--history", str(history), "--report", str(picture))
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in history.read_text().splitlines()]
    assert [record["version"] for record in records] == list(range(1, len(records) + 1))
    assert len(records) >= before
    assert set(records[0]) == {"version", "updates", "buffer_size", "why", "seconds", "devices", "aggregator"}
    assert {"client_id", "staleness"} <= set(records[0]["updates"][0])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "model.safetensors" not in done.stdout
    assert f"{history}: {len(records)} versions" in done.stdout
