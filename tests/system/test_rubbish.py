from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial

import msgpack
import numpy as np
import pytest

from fedmq.schemas.errors import Reason
from fedmq.schemas.wire import HEADER_LIMIT, encode
from tests.system.handmade import UPDATE, HandmadeClient
from tests.system.processes import Federation

pytestmark = pytest.mark.broker

RUBBISH = {
    "random bytes": bytes(range(255, 0, -1)),
    "nothing": b"",
    "no map": msgpack.packb([1, 2, 3]),
    "half a map": msgpack.packb({"protocol": 1, "kind": "offer"})[:-3],
    "a huge header": msgpack.packb({"protocol": 1, "kind": "offer", "x": b"x" * (2 * HEADER_LIMIT)}),
    "an array that claims 4 billion items": b"\xdd\xff\xff\xff\xff",
    "another protocol": msgpack.packb({"protocol": 2, "kind": "offer"}),
    "a map of nothing": msgpack.packb({"protocol": 1}),
    "deep nesting": b"\x91" * 5000,
}


def refused(at_work: Federation) -> Counter[Reason]:
    """What the progress counts."""
    return Counter(at_work.watch.progress.rejected if at_work.watch.progress else ())


def test_an_update_that_cannot_count_is_rejected_with_its_reason_and_counted(at_work: Federation) -> None:
    not_finite = np.array([1, np.nan, 1, 1], "<f4").tobytes()
    with HandmadeClient(at_work, "mallory") as mallory:
        before = Counter(at_work.read_run().figures["rejected"])
        cases: list[tuple[Reason, bytes, dict[str, object]]] = [
            ("wrong_run", UPDATE, {"run": "f" * 32}),
            ("unknown_base", UPDATE, {"base_version": 10**9}),
            ("layout", UPDATE, {"layout": "f" * 64}),
            ("task_version", UPDATE, {"task_version": "2"}),
            ("not_finite", not_finite, {}),
            ("malformed", UPDATE, {"size": 17}),  # not what comes
            ("malformed", UPDATE[:-2], {}),  # not what the layout takes
            ("malformed", UPDATE, {"digest": "f" * 64}),
            ("malformed", UPDATE, {"codec": "gzip"}),
        ]
        for sequence, (reason, body, changes) in enumerate(cases):
            mallory.send(mallory.offer(sequence, body, **changes), body)
            receipt = mallory.receipt(sequence)
            assert (receipt.verdict, receipt.reason) == ("rejected", reason)
            assert receipt.detail
        mallory.send(mallory.offer(0, run="e" * 32, digest="e" * 64))
        assert mallory.receipt(0, nth=2).reason == "id_reused"
        mallory.send(mallory.offer(99, client_id="ada"))
        assert mallory.receipt(99).reason == "wrong_client"
        mallory.send(mallory.offer(100))
        assert mallory.receipt(100).verdict == "accepted"
    expected = Counter([*(reason for reason, _, _ in cases), "id_reused", "wrong_client"])
    at_work.until(
        lambda: refused(at_work) - before == expected,
        f"the progress to count {dict(expected)}",
    )


def test_rubbish_on_every_topic_stops_neither_the_aggregator_nor_a_client(at_work: Federation) -> None:
    aggregator, ada, _ = at_work.programs[:3]
    rejected = partial(refused, at_work)
    before = rejected()
    with HandmadeClient(at_work, "mallory") as mallory:
        topics = mallory.topics
        aimed_at = [topics.update("mallory"), topics.update("ada"), topics.aggregator, topics.model, topics.layout]
        aimed_at += [topics.status("ada"), topics.reply("ada"), topics.progress, f"{topics.update('ada')}%20x"]
        for topic in aimed_at:
            for rubbish in RUBBISH.values():
                mallory.publish(topic, rubbish)
        # The head of another model, and weights that are not what their head says.
        right = {"size": len(UPDATE), "digest": hashlib.sha256(UPDATE).hexdigest()}
        for changes in ({"layout": "f" * 64} | right, right | {"size": 3}, right | {"digest": "f" * 64}):
            mallory.publish(topics.model, encode(mallory.head.model_copy(update=changes), UPDATE))
        for topic in (topics.aggregator, topics.update("mallory"), topics.update("ada"), aimed_at[-1]):
            aggregator.says(f"ignored topic={topic} ")  # once at least: of many lines of one topic most are left out
        # All that came on the two topics of updates is counted, but for nothing, in which nobody says anything.
        counted = 2 * (len(RUBBISH) - 1)
        at_work.until(lambda: (rejected() - before).total() == counted, f"the progress to count {counted} more")
        assert set(rejected() - before) <= {"malformed", "schema", "too_large"}
    ada.says("reason=malformed")
    at_work.work("ada", "bob", updates=2)
