from __future__ import annotations

import pytest

from fedmq.aggregator.export import Run
from tests.system.handmade import HandmadeClient
from tests.system.processes import Federation, until

pytestmark = pytest.mark.broker

WRITES_ITS_PLAN = """
from pathlib import Path
from fedmq import Trained

def train_numpy(weights, plan):
    with Path(__file__).with_suffix(".plans").open("a") as plans:
        print(plan.learning_rate, file=plans)
    return Trained({name: array + plan.learning_rate for name, array in weights.items()}, num_samples=10)
"""


def test_a_plan_changed_in_the_file_reaches_running_clients_and_the_run_goes_on(fed: Federation) -> None:
    names = ("ada", "bob", "cleo")
    fed.aggregator()
    clients = [fed.client(name, fed.task(f"{name}.py", WRITES_ITS_PLAN)) for name in names]
    fed.work(*names)
    fed.set(plan__learning_rate=0.25)
    stopped = fed.command("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert fed.programs[0].ends() == 0
    before = fed.read_run()
    assert fed.command("stop").stdout == f"no aggregator works in {fed.run_folder}\n"
    fed.aggregator()
    for name in names:
        plans = fed.folder / f"{name}.plans"
        until(lambda plans=plans: plans.read_text().endswith("0.25\n"), f"{name} to train by the new plan")  # type: ignore[misc]
        rates = plans.read_text().split()
        assert rates == sorted(rates, reverse=True)  # 1.0, and then 0.25 and never 1.0 again
    fed.work(*names)
    after = fed.read_run()
    assert after.run == before.run
    assert after.version > before.version
    assert [client.running for client in clients] == [True] * 3


def test_a_start_with_another_strategy_than_the_last_says_so(fed: Federation) -> None:
    slots = ("--set=aggregator.strategy=multi_krum", "--set=aggregator.buffer_size=5", "--set=aggregator.hostile=0.3")
    said = "the strategy is another than at the last start: "
    expected = {
        (): "",
        slots: f"{said}multi_krum, buffer_size = 5, hostile = 0.3; it was fedbuff, buffer_size = 1\n",
        (*slots, "--set=plan.learning_rate=0.5"): "",
        (*slots, "--set=aggregator.one_per_client=true"): f"{said}multi_krum, buffer_size = 5, hostile = 0.3, "
        "one_per_client = true; it was multi_krum, buffer_size = 5, hostile = 0.3\n",
        ("--new-run",): "",
    }
    for options, line in expected.items():
        aggregator = fed.aggregator(*options)
        aggregator.says("fedmq.aggregator connected")
        assert line in aggregator.log
        assert aggregator.log.count(said) == bool(line)
        aggregator.terminate()
        assert aggregator.ends() == 0


def updates_of(run: Run) -> list[tuple[str, str, int]]:
    """Every update that counted: client, outbox, sequence; those that are in the buffer too."""
    folded = [each for record in run.history for each in record["updates"]] + run.figures["buffer"]["updates"]
    return [(each["client_id"], each["update"]["outbox_id"], each["update"]["sequence"]) for each in folded]


def test_an_aggregator_that_is_killed_goes_on_where_its_receipts_say(fed: Federation) -> None:
    fed.set(aggregator__buffer_size=3, device__pace=0.01, plan__continuous=True)
    aggregator = fed.aggregator()
    fed.client("ada")
    fed.client("bob")
    fed.work("ada", "bob")
    run = fed.read_run().run
    with HandmadeClient(fed, "zoe", "ada", "bob") as zoe:
        for kill in range(3):
            offer = zoe.offer(kill)
            zoe.send(offer)
            receipt = zoe.receipt(kill)
            assert receipt.verdict == "accepted"
            fed.work("ada", "bob")
            aggregator.kill()  # in the middle of whatever it is doing: ada and bob never pause
            zoe.listen(0.1)
            fed.refresh()
            told = fed.watch.progress
            assert told is not None
            kept = fed.read_run()
            shown = max(each.version or 0 for heard in zoe.receipts.values() for each in heard)
            assert kept.version >= max(shown, zoe.head.version, told.version)
            assert kept.figures["accepted"] >= told.updates
            aggregator = fed.aggregator()
            aggregator.says(f"connected run={run} version={kept.version}\n")
            zoe.send(offer, b"")
            assert zoe.receipt(kill, nth=2) == receipt
            fed.work("ada", "bob")
        zoe.listen(0.2)
        aggregator.terminate()
        assert aggregator.ends() == 0
        zoe.listen(0.2)
    after = fed.read_run()
    assert after.run == run
    counted = updates_of(after)
    assert len(counted) == len(set(counted)) == after.figures["accepted"]
    for update, heard in zoe.receipts.items():
        assert len({receipt.model_dump_json() for receipt in heard}) == 1  # a verdict is final
        assert (heard[0].verdict == "accepted") == (update in counted)
