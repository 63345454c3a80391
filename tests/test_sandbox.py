"""The whole federation in one process: the real aggregator and the real devices, in virtual time."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmq.aggregator.state import VersionRecord
from fedmq.aggregator.strategies import fedasync, fedasync_delta, fedavg, fedbuff, median, multi_krum, trimmed_mean
from fedmq.sandbox import Sandbox
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.plan import Plan
from fedmq.transport.memory import Faults

torch.set_num_threads(1)

TASK = """
import torch
from torch import nn
from fedmq import Data

def points(seed, count=16):
    inputs = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return inputs, inputs @ torch.tensor([[1.0], [-2.0]])

def build_model():
    return nn.Linear(2, 1)

def load_data(client_id):
    return Data(train=points(ord(client_id[-1])))

def load_test_data():
    return points(7)

loss = nn.MSELoss()
"""

PERSONAL = TASK.replace("return nn.Linear(2, 1)", "return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))").replace(
    "def load_test_data", "def unused"
)

NORMED = TASK.replace("return nn.Linear(2, 1)", "return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))")

BROKEN_FOR_BOB = (
    TASK
    + """
attempts = 0

def load_data(client_id):
    inputs, targets = points(1)
    return Data(train=(inputs, targets + float("nan") if client_id == "bob" else targets))

def loss(outputs, targets):
    global attempts
    if targets.isnan().any():
        attempts += 1
        raise RuntimeError("the camera is gone")
    return nn.functional.mse_loss(outputs, targets)
"""
)

SMALL_STEPS = Plan(local_steps=2, learning_rate=0.05)
ALWAYS = Plan(local_steps=1, learning_rate=0.01, continuous=True)

Start = Callable[..., Sandbox]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a sandbox with a task file of this text."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def started(clients: str = "alice bob", text: str = TASK, plan: Plan = SMALL_STEPS, **settings: Any) -> Sandbox:
        (tmp_path / "task.py").write_text(text)
        return Sandbox(tmp_path / "task.py", clients.split(), plan=plan, **settings)

    return started


def weights(sandbox: Sandbox) -> list[float]:
    return [float(value) for tensor in sandbox.model().state_dict().values() for value in tensor.flatten()]


def folded(sandbox: Sandbox) -> Counter[tuple[str, str, int]]:
    """How often each update is an input of a version, or waits in the buffer to be one."""
    buffered = sandbox._core.state.buffer.updates
    updates = [one for record in sandbox.history for one in record.updates] + buffered
    return Counter((one.client_id, one.update.outbox_id, one.update.sequence) for one in updates)


def verdicts(sandbox: Sandbox, verdict: str) -> set[tuple[str, str, int]]:
    """The updates whose receipts say so, as far as the ledger goes back."""
    ledger = sandbox._core.state.ledger
    return {
        (client_id, outbox.outbox_id, sequence)
        for client_id in ledger.clients()
        for outbox in ledger.outboxes(client_id)
        for sequence in outbox.verdicts
        if (known := outbox.verdicts.get(sequence)) is not None
        and ("rejected" if known.reason else "accepted") == verdict
    }


def work_of(history: list[VersionRecord]) -> Counter[str]:
    return Counter(one.client_id for record in history for one in record.updates)


def test_it_learns(start: Start) -> None:
    sandbox = start()
    before = sandbox.evaluate()["loss"]
    assert sandbox.run(versions=60) == 60 == sandbox.version
    assert sandbox.evaluate()["loss"] < before / 50
    assert sandbox.updates == sum(work_of(sandbox.history).values())
    assert [record.version for record in sandbox.history] == list(range(1, 61))
    assert all(len(device.outbox.pending()) <= 1 for device in sandbox._clients.values()), "what is judged is deleted"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(start: Start) -> None:
    def run(seed: int) -> tuple[list[float], list[VersionRecord], float]:
        torch.manual_seed(np.random.default_rng().integers(1 << 31))  # whatever happened before
        storm = Faults(delay=(0.0, 0.5), loss=0.1, duplication=0.1, reordering=True)
        sandbox = start("alice bob carol", faults=storm, seed=seed)
        sandbox.run(versions=10)
        sandbox.unplug("bob")
        sandbox.run(versions=5)
        sandbox.plug("bob")
        sandbox.run(versions=10)
        return weights(sandbox), sandbox.history, sandbox.seconds

    one = run(1)
    assert run(1) == one
    other = run(2)
    assert other[0] != one[0]
    assert other[1] != one[1]


def test_it_leaves_torchs_own_randomness_as_it_was(start: Start) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sandbox = start()
    sandbox.run(versions=3)
    sandbox.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


def test_it_runs_for_so_many_virtual_seconds_and_needs_to_know_how_long(start: Start) -> None:
    sandbox = start()
    sandbox.run(seconds=12.5)
    assert sandbox.seconds == pytest.approx(12.5)
    assert sandbox.version > 0
    with pytest.raises(ConfigError, match=r"run\(\) needs versions=… or seconds=…"):
        sandbox.run()


def test_the_others_go_on_without_an_unplugged_client_and_it_comes_back(start: Start) -> None:
    sandbox = start()
    sandbox.run(versions=6)
    sandbox.unplug("alice")
    assert sandbox.clients == ["bob"]
    before = len(sandbox.history)
    sandbox.run(versions=6)
    assert set(work_of(sandbox.history[before + 1 :])) == {"bob"}, "but for what was on its way"
    sandbox.plug("alice")
    before = len(sandbox.history)
    sandbox.run(versions=6)
    assert set(work_of(sandbox.history[before:])) == {"alice", "bob"}


def test_an_update_that_was_in_the_outbox_when_the_power_went_counts_later_and_once(start: Start) -> None:
    sandbox = start("alice", faults=Faults(delay=(0.4, 0.4)))
    while sandbox._clients["alice"].outbox.pending() == []:
        sandbox.run(seconds=0.1)
    sandbox.unplug("alice")
    sandbox.run(seconds=60.0)
    assert sandbox.updates == 0, "it died with its connection"
    sandbox.plug("alice")
    sandbox.run(versions=2)
    assert ("alice", sandbox._clients["alice"].outbox._meta("outbox_id"), 0) in folded(sandbox)
    assert set(folded(sandbox).values()) == {1}


def test_what_an_unplugged_client_was_training_leaves_no_trace_on_it(start: Start) -> None:
    sandbox = start("alice bob", text=PERSONAL, plan=Plan(local_parameters=("1.*",)), job_seconds=10.0)
    head = sandbox.model("alice").state_dict()["1.weight"].clone()
    sandbox.run(seconds=5.0)  # in the middle of the first job
    sandbox.unplug("alice")
    sandbox.run(seconds=20.0)
    assert torch.equal(sandbox.model("alice").state_dict()["1.weight"], head)


def test_a_client_that_is_ten_times_slower_counts_and_delays_nobody(start: Start) -> None:
    alone = start("fast", plan=ALWAYS)
    alone.run(seconds=100.0)
    both = start("fast slow", plan=ALWAYS, speeds={"slow": 10.0})
    both.run(seconds=100.0)
    assert work_of(both.history)["fast"] == work_of(alone.history)["fast"]
    assert work_of(both.history)["slow"] == pytest.approx(work_of(both.history)["fast"] / 10, abs=1)
    staleness = {one.client_id: one.staleness for record in both.history[-20:] for one in record.updates}
    assert staleness["slow"] == pytest.approx(10, abs=1)
    assert staleness["fast"] <= 1


@pytest.mark.parametrize(("clients", "buffer_size"), [(9, 1), (9, 2), (9, 4), (4, 1)])
def test_the_mean_staleness_of_always_busy_clients_is_as_many_others_as_there_are_per_buffer(
    start: Start, clients: int, buffer_size: int
) -> None:
    names = [f"dev-{number}" for number in range(clients)]
    speeds = {name: 1 + 0.13 * number for number, name in enumerate(names)}
    strategy = fedbuff(buffer_size=buffer_size, flush_timer=False)
    sandbox = start(" ".join(names), plan=ALWAYS, speeds=speeds, strategy=strategy)
    sandbox.run(seconds=40.0)
    assert sandbox.mean_staleness == pytest.approx((clients - 1) / buffer_size, rel=0.15)


WEATHER = {
    "duplicated": Faults(duplication=0.5),
    "lost": Faults(loss=0.3),
    "delayed": Faults(delay=(0.0, 5.0)),
    "reordered": Faults(delay=(0.0, 5.0), reordering=True),
    "all of it": Faults(delay=(0.0, 5.0), loss=0.3, duplication=0.5, reordering=True),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("faults", WEATHER.values(), ids=WEATHER.keys())
def test_whatever_the_network_does_every_accepted_update_is_folded_once_and_no_other(
    start: Start, faults: Faults, seed: int
) -> None:
    sandbox = start("alice bob carol", faults=faults, seed=seed, strategy=fedbuff(buffer_size=2))
    sandbox.run(versions=12)
    sandbox.unplug("carol")
    sandbox.run(versions=6)
    sandbox.plug("carol")
    sandbox.run(versions=6)
    assert set(folded(sandbox).values()) == {1}
    assert set(folded(sandbox)) == verdicts(sandbox, "accepted")
    assert sandbox.updates == len(folded(sandbox))
    assert not verdicts(sandbox, "rejected")


def test_a_device_whose_first_presence_and_model_were_lost_asks_again(start: Start) -> None:
    sandbox = start("alice", faults=Faults(loss=1.0))
    sandbox.run(seconds=10.0)
    sandbox._broker.faults = Faults()
    sandbox.run(versions=1, seconds=120.0)
    assert sandbox.version == 1


def test_when_the_broker_dies_and_forgets_all_the_training_goes_on(start: Start) -> None:
    sandbox = start()
    sandbox.run(versions=4)
    sandbox._broker.stop(forget=True)
    sandbox.run(seconds=30.0)
    sandbox._broker.start()
    sandbox.run(versions=4)
    assert set(folded(sandbox).values()) == {1}
    assert set(folded(sandbox)) == verdicts(sandbox, "accepted")


def test_with_nobody_plugged_in_it_says_so(start: Start) -> None:
    sandbox = start()
    sandbox.unplug("alice")
    sandbox.unplug("bob")
    with pytest.raises(ConfigError, match="no new version in a virtual week; plugged in: nobody; nothing was reported"):
        sandbox.run(versions=1)


def test_plugging_in_twice_or_unplugging_what_is_not_there_is_a_clear_error(start: Start) -> None:
    sandbox = start()
    with pytest.raises(ConfigError, match="'alice' is plugged in already"):
        sandbox.plug("alice")
    with pytest.raises(ConfigError, match="'carol' is not plugged in; plugged in: alice, bob"):
        sandbox.unplug("carol")
    with pytest.raises(ConfigError, match="'carol' was never plugged in; known: alice, bob"):
        sandbox.model("carol")


STRATEGIES = {
    "fedbuff": fedbuff(),
    "fedbuff of three with momentum": fedbuff(buffer_size=3, momentum=0.5),
    "fedasync": fedasync(),
    "fedasync_delta": fedasync_delta(),
    "fedavg": fedavg(clients=3),
    "fedbuff with slots and clipping": fedbuff(buffer_size=2, one_per_client=True, clip_medians=1.0),
    "median": median(buffer_size=3),
    "median with slots and clipping": median(buffer_size=3, one_per_client=True, clip_medians=1.0),
    "trimmed_mean": trimmed_mean(buffer_size=4, momentum=0.5),
    "multi_krum": multi_krum(buffer_size=5),
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_every_strategy_learns(start: Start, strategy: Any) -> None:
    sandbox = start("alice bob carl", strategy=strategy)
    before = sandbox.evaluate()["loss"]
    sandbox.run(versions=40)
    assert sandbox.version == 40
    assert sandbox.evaluate()["loss"] < before / 4


def test_fedavg_waits_for_both_and_takes_each_once_a_version(start: Start) -> None:
    sandbox = start(strategy=fedavg(clients=2), speeds={"bob": 7.0})
    sandbox.run(versions=5)
    for record in sandbox.history:
        assert sorted(one.client_id for one in record.updates) == ["alice", "bob"]
        assert {one.staleness for one in record.updates} == {0}
    sandbox.run(seconds=3.0)  # alice has delivered, bob is in the middle of it
    sandbox.unplug("bob")
    sandbox.run(seconds=3.0)
    last = sandbox.history[-1]
    assert (last.version, last.why, [one.client_id for one in last.updates]) == (6, "offline", ["alice"])
    sandbox.run(seconds=20.0)
    assert sandbox.version == 6, "one client is no cohort"
    sandbox.plug("bob")
    assert sandbox.run(versions=2, seconds=60.0) == 8


def test_local_parameters_stay_different_on_the_devices_and_never_travel(start: Start) -> None:
    plan = Plan(local_steps=5, local_parameters=("1.*",))
    sandbox = start(text=PERSONAL, plan=plan)
    sandbox.run(versions=10)
    assert [entry.name for entry in sandbox._core.state.layout.entries] == ["0.weight", "0.bias"]
    alice, bob = sandbox.model("alice").state_dict(), sandbox.model("bob").state_dict()
    assert torch.equal(alice["0.weight"], bob["0.weight"])
    assert not torch.equal(alice["1.weight"], bob["1.weight"])

    kept = sandbox._clients["alice"].outbox.local()
    sandbox.unplug("alice")
    sandbox.plug("alice")
    assert kept is not None
    np.testing.assert_array_equal(sandbox.model("alice").state_dict()["1.weight"].numpy(), kept["1.weight"])


def test_each_client_is_tested_with_its_own_local_parameters(start: Start) -> None:
    text = PERSONAL.replace("Data(train=points(ord(client_id[-1])))", "Data(points(1), test=points(2))")
    sandbox = start(text=text, plan=Plan(local_steps=5, local_parameters=("1.*",)))
    sandbox.run(versions=60)
    assert sandbox.evaluate()["loss"] < 0.1
    inputs, targets = sandbox._clients["alice"].trainer.data.test
    with torch.no_grad():
        mean = sum(float(torch.nn.functional.mse_loss(sandbox.model(c)(inputs), targets)) for c in sandbox.clients) / 2
    assert sandbox.evaluate()["loss"] == pytest.approx(mean)


def test_a_model_with_batch_norm_learns_and_its_running_variance_stays_positive(start: Start) -> None:
    speeds = {"carol": 7.0}
    sandbox = start("alice bob carol", text=NORMED, plan=Plan(local_steps=5), speeds=speeds)
    before = sandbox.evaluate()["loss"]
    for _ in range(20):
        sandbox.run(versions=5)
        state = sandbox.model().state_dict()
        assert (state["0.running_var"] > 0.2).all()
        assert (state["0.running_var"] < 5.0).all()
    assert sandbox.evaluate()["loss"] < before / 10


def test_with_float16_updates_take_half_the_bytes_and_it_still_learns(start: Start) -> None:
    sandbox = start(plan=SMALL_STEPS.model_copy(update={"codec": "float16"}))
    before = sandbox.evaluate()["loss"]
    sandbox.run(versions=60)
    assert sandbox._core.state.uplink_bytes == sandbox.updates * 3 * 2, "three parameters"
    assert sandbox.evaluate()["loss"] < before / 50


def test_without_test_data_there_is_a_clear_error_unless_data_are_given(start: Start) -> None:
    sandbox = start(text=TASK.replace("def load_test_data", "def unused"))
    with pytest.raises(ConfigError, match="no test data"):
        sandbox.evaluate()
    assert sandbox.evaluate((torch.zeros(4, 2), torch.zeros(4, 1)))["loss"] >= 0


def test_a_task_that_fails_on_one_device_is_tried_less_and_less_often_and_reported_and_the_others_go_on(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = start(text=BROKEN_FOR_BOB)
    with caplog.at_level(logging.ERROR):
        sandbox.run(seconds=300.0)
    assert set(work_of(sandbox.history)) == {"alice"}
    assert sandbox.version > 10
    assert sandbox.task.load_data is not None
    attempts = sandbox.task.load_data.__globals__["attempts"]
    assert 5 <= attempts <= 8, "after 5, 10, 20, 40, 80, 160 seconds or so"
    assert sum("training failed client=bob" in message for message in caplog.messages) == attempts
    assert sandbox._complaints() == "bob: the training failed: RuntimeError: the camera is gone"


def test_a_training_that_diverges_is_reported_and_nothing_of_it_is_sent(start: Start) -> None:
    sandbox = start("alice", plan=Plan(local_steps=200, learning_rate=100.0))
    sandbox.run(seconds=20.0)
    assert sandbox.updates == 0
    assert sandbox._core.state.rejected.total() == 0
    assert sandbox._complaints().startswith("alice: the training failed: the training diverged")
