from __future__ import annotations

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker

WIDER = """
import torch
import fedmq

task_version = "1"

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(5))

def build_model():
    return Model()

def load_data(client_id):
    return fedmq.Data(train=(torch.zeros(4, 5), torch.zeros(4)))
"""


def test_a_client_whose_model_differs_names_the_first_difference_and_ends(at_work: Federation) -> None:
    wider = at_work.client("wider", at_work.task("wider.py", WIDER))
    assert wider.ends() == 2
    difference = "entry 0: parameter 'w' float32[5] here, parameter 'w' float32[4] there"
    assert difference in wider.log
    assert "Traceback" not in wider.log
    at_work.until(lambda: at_work.status("wider").activity == "stopped", "its status")
    assert difference in at_work.status("wider").detail
