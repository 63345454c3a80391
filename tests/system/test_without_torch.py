from __future__ import annotations

import pytest

from tests.system.processes import TASK, Federation

pytestmark = pytest.mark.broker

NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            print("somebody imports torch", file=sys.stderr, flush=True)
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
"""

WITH_A_MODEL = (
    TASK
    + """
def build_model():
    import torch
    return torch.nn.Linear(1, 1)

def load_data(client_id):
    raise AssertionError("no torch, no data")
"""
)


@pytest.fixture
def torchless(fed: Federation) -> Federation:
    """A federation on machines that have no torch."""
    (fed.folder / "site").mkdir()
    (fed.folder / "site" / "sitecustomize.py").write_text(NO_TORCH)
    fed.environment["PYTHONPATH"] = str(fed.folder / "site")
    return fed


def test_a_numpy_client_and_an_aggregator_with_initial_weights_never_import_torch(torchless: Federation) -> None:
    torchless.set(aggregator__goal__versions=4)
    programs = [torchless.aggregator(), torchless.client("ada")]
    assert [program.ends() for program in programs] == [0, 0]
    for program in programs:
        assert "somebody imports torch" not in program.log
    assert torchless.read_run().version == 4


def test_a_task_with_a_model_needs_torch_and_the_error_says_how_to_get_it(torchless: Federation) -> None:
    option = torchless.task("model.py", WITH_A_MODEL)
    client = torchless.client("ada", option)
    aggregator = torchless.aggregator(option, "--set", f'aggregator.init="{torchless.folder}/missing.safetensors"')
    assert client.ends() == 2
    assert client.log.endswith("trains with PyTorch, which is not installed: pip install 'fedmq[torch]'\n")
    assert aggregator.ends() == 2  # with initial weights it would do without torch
    assert "missing.safetensors: it cannot be read" in aggregator.log
    for program in (client, aggregator):
        assert "Traceback" not in program.log
