"""Error feedback: what travels and what stays behind add up to what was trained, through rejections and deaths."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedmq.edge_client.feedback import Residual, encoded, put_back, seed_of
from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Entry, Layout, Vector
from fedmq.schemas.messages import Offer, UpdateId
from fedmq.schemas.plan import Plan

RUN = "1" * 32
SMALL = Layout.of([Entry("w", (50,)), Entry("mean", (2,), kind="statistic")])
LARGE = Layout.of([Entry("w", (300_000,))])  # more than a megabyte: the residual has a file of its own
LARGER = Layout.of([Entry("w", (1_200_000,))])  # and so have its updates
LOSSY = ["int8", "eden4", "eden2", "eden1", "top_k"]


def numbers(layout: Layout, sequence: int) -> Vector:
    """Whole numbers, so that sums of them are exact."""
    return np.random.default_rng(sequence).integers(-8, 9, layout.size).astype(np.float32)


def train(outbox: Outbox, layout: Layout, plan: Plan, update: Vector, run: str = RUN) -> Offer:
    """What the service does with an update."""
    seed = seed_of(run, "ada", 0, outbox.next_sequence())
    sent = encoded(update, layout, run, plan, outbox.residual(), seed)
    offer = Offer(
        run=run,
        client_id="ada",
        update=UpdateId(outbox_id="0" * 32, sequence=0),
        base_version=0,
        layout=layout.digest,
        codec=sent.codec.name,
        size=len(sent.body),
        digest=hashlib.sha256(sent.body).hexdigest(),
        num_samples=1,
    )
    return outbox.add(offer, sent.body, None, sent.residual)[0]


def arrived(outbox: Outbox, layout: Layout, offer: Offer) -> Vector:
    return codec_named(offer.codec).decode(outbox.body(offer.update.sequence), layout)


@pytest.mark.parametrize("codec", LOSSY)
def test_over_1000_updates_with_rejections_and_restarts_nothing_is_lost(codec: str, tmp_path: Path) -> None:
    plan, chance = Plan(codec=codec, top_k_fraction=0.1), random.Random(codec)
    outbox = Outbox(tmp_path)
    trained, counted = np.zeros(50), np.zeros(50)
    for number in range(1000):
        update = numbers(SMALL, number)
        trained += update[:50]
        offer = train(outbox, SMALL, plan, update.copy())
        content = arrived(outbox, SMALL, offer)
        assert content[50:].tolist() == update[50:].tolist()
        accepted = chance.random() < 0.8
        if accepted:
            counted += content[:50]
        outbox.delete(offer.update.sequence, returns=not accepted)
        if chance.random() < 0.02:
            outbox.close()
            outbox = Outbox(tmp_path)
    residual = outbox.residual()
    assert residual is not None
    if codec in ("int8", "top_k"):  # whose numbers are a few bits times a few bits
        assert (counted + residual.vector).tolist() == trained.tolist()
    np.testing.assert_allclose(counted + residual.vector, trained, atol=1e-2)
    # And what stays behind does not grow with time.
    assert np.abs(residual.vector).max() < (200 if codec == "top_k" else 60)
    outbox.close()


def test_what_may_have_counted_or_was_pushed_out_is_not_put_back(tmp_path: Path) -> None:
    outbox, plan = Outbox(tmp_path, most_bytes=100), Plan(codec="top_k", top_k_fraction=0.5, zstd=False)
    offer = train(outbox, SMALL, plan, numbers(SMALL, 1))
    before = outbox.residual()
    assert before is not None
    outbox.delete(offer.update.sequence, forgotten=True)  # expired
    after = outbox.residual()
    assert after is not None
    assert after.vector.tolist() == before.vector.tolist()
    first, second = train(outbox, SMALL, plan, numbers(SMALL, 2)), numbers(SMALL, 3)
    left = outbox.residual()
    assert left is not None
    kept = train(outbox, SMALL, plan, second.copy())  # for which the first has to go
    assert [offer.update.sequence for offer in outbox.pending()] == [kept.update.sequence] != [first.update.sequence]
    residual = outbox.residual()
    assert residual is not None
    content = arrived(outbox, SMALL, kept)[:50]
    np.testing.assert_allclose(content + residual.vector, second[:50] + left.vector, atol=1e-6)
    outbox.close()


def test_another_run_or_layout_has_no_use_for_what_was_left(tmp_path: Path) -> None:
    outbox, plan = Outbox(tmp_path), Plan(codec="int8")
    old = train(outbox, SMALL, plan, numbers(SMALL, 1))
    update = numbers(SMALL, 2)
    new = train(outbox, SMALL, plan, update.copy(), run="2" * 32)
    alone = encoded(update.copy(), SMALL, "2" * 32, plan, None, seed_of("2" * 32, "ada", 0, 1))
    assert outbox.body(new.update.sequence) == bytes(alone.body)
    before = outbox.residual()
    outbox.delete(old.update.sequence, returns=True)
    after = outbox.residual()
    assert before is not None
    assert after is not None
    assert before.run == after.run == "2" * 32
    assert before.vector.tolist() == after.vector.tolist()
    outbox.close()


def test_exact_codecs_and_a_plan_without_feedback_leave_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for plan in (Plan(codec="float32"), Plan(codec="bfloat16"), Plan(codec="eden1", error_feedback=False)):
        offer = train(outbox, SMALL, plan, numbers(SMALL, 1))
        outbox.delete(offer.update.sequence, returns=True)
        assert outbox.residual() is None
    outbox.close()


def test_a_residual_beyond_all_bounds_is_let_go() -> None:
    grown = Residual(RUN, SMALL.digest, 2, np.full(50, 1e30, np.float32))
    sent = encoded(numbers(SMALL, 1), SMALL, RUN, Plan(codec="int8"), grown, 1)
    assert sent.residual is not None
    assert np.abs(sent.residual.vector).max() < 1


def test_what_goes_back_is_what_the_aggregator_would_have_decoded(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    offer = train(outbox, SMALL, Plan(codec="eden2"), numbers(SMALL, 1))
    residual, body = outbox.residual(), outbox.body(0)
    assert residual is not None
    content = codec_named(offer.codec).decode(body, SMALL)[:50]
    assert put_back(residual, offer, body).vector.tolist() == (residual.vector + content).tolist()
    outbox.close()


@pytest.mark.parametrize("layout", [SMALL, LARGER])
def test_an_update_that_is_rejected_while_the_next_is_made_goes_into_the_one_after_that(
    layout: Layout, tmp_path: Path
) -> None:
    outbox, plan, size = Outbox(tmp_path), Plan(codec="top_k", top_k_fraction=0.9, zstd=False), layout.parameter_size
    first, second = (train(outbox, layout, plan, numbers(layout, number)) for number in (1, 2))
    outbox.delete(first.update.sequence, returns=True)

    residual, ahead = outbox.residual(), outbox.ahead()  # a job begins, and takes the first with it
    outbox.delete(second.update.sequence, returns=True)
    sent = encoded(numbers(layout, 3), layout, RUN, plan, residual, 3)
    ahead.write(sent.body, sent.residual)
    outbox.close()
    outbox = Outbox(tmp_path)  # dies before it is added: as if the job had never been
    everything = outbox.residual()
    assert everything is not None
    assert np.array_equal(everything.vector, (numbers(layout, 1) + numbers(layout, 2))[:size])

    residual, ahead = outbox.residual(), outbox.ahead()
    sent = encoded(numbers(layout, 3), layout, RUN, plan, residual, 3)
    fourth = numbers(layout, 4)
    ahead.write(sent.body, sent.residual)
    offer = first.model_copy(update={"codec": sent.codec.name, "size": len(sent.body)})
    third, _ = outbox.add(offer, ahead, None)
    content = arrived(outbox, layout, third)[:size]
    offer = train(outbox, layout, plan, fourth.copy())
    content += arrived(outbox, layout, offer)[:size]
    residual = outbox.residual()
    assert residual is not None
    assert not residual.returned
    total = sum((numbers(layout, number)[:size] for number in (1, 2, 3, 4)), np.zeros(size, np.float32))
    assert np.array_equal(content + residual.vector, total)
    assert len(list(tmp_path.glob("update-*.body"))) == (2 if layout is LARGER else 0)
    outbox.close()


def test_what_was_returned_to_a_run_that_is_over_goes_with_its_residual(tmp_path: Path) -> None:
    outbox, plan = Outbox(tmp_path), Plan(codec="top_k", top_k_fraction=0.9, zstd=False)
    old = [train(outbox, LARGER, plan, numbers(LARGER, number)) for number in (1, 2)]
    outbox.delete(old[0].update.sequence, returns=True)
    residual, ahead = outbox.residual(), outbox.ahead()
    outbox.delete(old[1].update.sequence, returns=True)  # while the first job of the new run lasts
    sent = encoded(numbers(LARGER, 3), LARGER, "2" * 32, plan, residual, 3)
    ahead.write(sent.body, sent.residual)
    changes = {"run": "2" * 32, "codec": sent.codec.name, "size": len(sent.body)}
    new, _ = outbox.add(old[0].model_copy(update=changes), ahead, None)
    residual = outbox.residual()
    assert residual is not None
    assert not residual.returned
    assert np.array_equal(arrived(outbox, LARGER, new) + residual.vector, numbers(LARGER, 3))
    assert len(list(tmp_path.glob("update-*.body"))) == 1
    outbox.close()


CHILD = """
import json, sys
from pathlib import Path
from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.plan import Plan
from tests.edge_client.test_feedback import LARGE, numbers, train
outbox = Outbox(Path(sys.argv[1]), most_bytes=1 << 33)
while True:
    number = outbox.next_sequence()
    train(outbox, LARGE, Plan(codec="top_k", top_k_fraction=0.9), numbers(LARGE, number))
    print(number, flush=True)
    if number % 3 == 2:
        outbox.delete(number, returns=True)
"""


def test_a_death_at_any_instant_keeps_update_and_residual_together(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert child.stdout is not None
        for _ in range(chance.randint(2, 5)):
            assert child.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))  # an instant, not a wait for anything
        child.kill()
        child.wait()
        child.stdout.close()
    outbox = Outbox(tmp_path, most_bytes=1 << 33)
    residual = outbox.residual()
    assert residual is not None
    there = residual.vector.astype(np.float64)
    for offer in outbox.pending():
        there += arrived(outbox, LARGE, offer)
    trained = sum((numbers(LARGE, number) for number in range(outbox.next_sequence())), np.zeros(LARGE.size))
    assert np.array_equal(there, trained)
    assert len(list(tmp_path.glob("residual-*.body"))) == 1
    outbox.close()


def test_a_residual_that_is_damaged_is_a_clear_sentence(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    train(outbox, LARGE, Plan(codec="int8"), numbers(LARGE, 0))
    (path,) = tmp_path.glob("residual-*.body")
    path.write_bytes(b"short")
    with pytest.raises(StoreError, match=r"outbox\.sqlite is damaged, move it away"):
        outbox.residual()
    outbox.close()
