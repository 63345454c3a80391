"""The aggregator's decisions: never lost, never twice, and what ends a version or a run."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.base_snapshots import nearest
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.judged import Judged
from fedmq.aggregator.scores import Scores
from fedmq.aggregator.staleness import constant
from fedmq.aggregator.strategies import STRATEGIES, fedasync, fedavg, median
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.messages import Evaluation, Later, Missing
from tests.aggregator.small_run import SmallRun, offer_of, outbox, plain_fedbuff
from tests.generators import unhurried


def reason(answer: Judged | Missing | Later) -> str | None:
    assert isinstance(answer, Judged)
    return answer.reason


def test_an_accepted_update_is_told_its_version_and_staleness() -> None:
    run = SmallRun()
    run.make_versions(3)
    receipt = run.deliver("alice", 1.0, base_version=1)
    assert (receipt.version, receipt.staleness) == (3, 2)
    assert run.state.mean_staleness == 2 / 4


def test_the_same_offer_has_the_same_verdict_however_often_it_comes_and_counts_once() -> None:
    run = SmallRun()
    receipts = [run.judge("alice", [1.0], base_version=0, sequence=0) for _ in range(3)]
    assert receipts == [receipts[0]] * 3
    assert (run.state.version, run.state.accepted, run.weights) == (1, 1, [1.0])


def test_a_rejection_is_as_final_and_counts_once() -> None:
    run = SmallRun()
    refused = [run.judge("alice", [float("nan")], sequence=0) for _ in range(3)]
    assert [reason(receipt) for receipt in refused] == ["not_finite"] * 3
    assert reason(refused[0]) == "not_finite"
    assert run.state.rejected == Counter({"not_finite": 1})
    assert run.weights == [0.0]


def test_an_offer_without_its_bytes_is_asked_for_all_of_them() -> None:
    run = SmallRun()
    offer, body = offer_of([1.0], run.layout)
    answer = run.core.judge("alice", offer, memoryview(b""), 0.0)
    assert answer == Missing(update=offer.update, ranges=((0, 4),))
    assert run.state.accepted == 0
    assert reason(run.core.judge("alice", offer, body, 0.0)) is None
    assert run.state.accepted == 1


def test_a_judged_offer_has_its_receipt_without_its_bytes_too() -> None:
    run = SmallRun()
    offer, body = offer_of([1.0], run.layout)
    receipt = run.core.judge("alice", offer, body, 0.0)
    assert run.core.judge("alice", offer, memoryview(b""), 1.0) == receipt


def test_an_offer_on_another_clients_topic_is_refused_and_takes_nothing_from_the_rightful_one() -> None:
    run = SmallRun()
    offer, body = offer_of([1.0], run.layout, client_id="alice")
    assert reason(run.core.judge("mallory", offer, body, 0.0)) == "wrong_client"
    assert reason(run.core.judge("alice", offer, body, 0.0)) is None


def test_an_update_that_named_another_client_is_not_accepted_when_it_names_its_own() -> None:
    run = SmallRun()
    foreign, body = offer_of([1.0], run.layout, client_id="alice")
    own = foreign.model_copy(update={"client_id": "mallory"})
    verdicts = [reason(run.core.judge("mallory", said, body, 0.0)) for said in (foreign, own, foreign)]
    assert verdicts == ["wrong_client"] * 3
    assert run.state.rejected == {"wrong_client": 1}


def test_an_accepted_update_that_names_another_client_later_has_its_verdict_still() -> None:
    run = SmallRun()
    own, body = offer_of([1.0], run.layout, client_id="mallory")
    foreign = own.model_copy(update={"client_id": "alice"})
    receipts = [run.core.judge("mallory", said, body, 0.0) for said in (own, foreign)]
    assert receipts[0] == receipts[1]
    assert reason(receipts[1]) is None


def test_a_used_id_with_other_bytes_changes_nothing() -> None:
    run = SmallRun()
    run.deliver("alice", 1.0, sequence=0)
    assert reason(run.judge("alice", [5.0], sequence=0)) == "id_reused"
    assert (run.state.accepted, run.weights) == (1, [1.0])


def test_an_update_beyond_the_staleness_bound_is_too_stale_and_one_at_it_is_not() -> None:
    run = SmallRun(max_staleness=2)
    run.make_versions(3)
    assert reason(run.judge("alice", [1.0], base_version=0)) == "too_stale"
    run.deliver("alice", 1.0, base_version=1)


def test_without_a_bound_there_is_none() -> None:
    run = SmallRun()
    run.make_versions(300)
    assert run.deliver("alice", 1.0, base_version=0).staleness == 300


def test_a_failure_of_the_aggregator_itself_is_a_final_internal_rejection() -> None:
    run = SmallRun()
    offer, body = offer_of([1.0], run.layout)
    refused = run.core.refuse("alice", offer, ProtocolError("internal", "the aggregator failed"))
    assert reason(refused) == "internal"
    assert reason(run.core.judge("alice", offer, body, 0.0)) == "internal"
    assert run.state.accepted == 0


def test_a_failure_after_the_verdict_does_not_change_it() -> None:
    run = SmallRun()
    offer, body = offer_of([1.0], run.layout)
    receipt = run.core.judge("alice", offer, body, 0.0)
    assert run.core.refuse("alice", offer, ProtocolError("internal", "the aggregator failed")) == receipt
    assert run.state.rejected == Counter()


def test_k_updates_make_a_version() -> None:
    run = SmallRun(plain_fedbuff(3))
    for number in range(7):
        run.deliver(f"client-{number}", 1.0)
    assert run.state.version == 2
    assert [(record.version, record.why, len(record.updates)) for record in run.core.news.versions] == [
        (1, "full", 3), (2, "full", 3)
    ]  # fmt: skip
    assert len(run.state.buffer.updates) == 1


def test_the_timer_flushes_a_buffer_that_waits_longer_than_is_usual() -> None:
    run = SmallRun(plain_fedbuff(4))
    for second in range(9):  # one update a second: four take four, and twice that is long
        run.deliver(f"client-{second}", 1.0, now=float(second))
    assert (run.state.version, run.core.deadline()) == (2, 8.0 + 8.0)
    run.core.tick(15.9)
    assert run.state.version == 2
    run.core.tick(16.0)
    assert (run.state.version, run.core.news.versions[-1].why) == (3, "timer")
    assert run.core.deadline() is None


def test_no_timer_runs_where_it_is_off_or_nothing_waits() -> None:
    run = SmallRun(plain_fedbuff(4, flush_timer=False))
    for second in range(9):
        run.deliver(f"client-{second}", 1.0, now=float(second))
    run.core.tick(1e9)
    assert (run.state.version, run.core.deadline()) == (2, None)


def test_reaching_the_versions_of_the_goal_finishes_the_run() -> None:
    run = SmallRun(goal=Goal(versions=2))
    run.deliver("alice", 1.0)
    assert run.state.finished is None
    run.deliver("alice", 1.0)
    assert run.state.finished == "2 versions"


def test_what_is_in_the_buffer_when_the_goal_is_reached_makes_a_last_version() -> None:
    run = SmallRun(plain_fedbuff(4, flush_timer=False), goal=Goal(seconds=60))
    run.deliver("alice", 1.0, now=1.0)
    assert run.core.deadline() == 60.0
    run.core.tick(60.0)
    assert (run.state.finished, run.state.version, run.weights) == ("60 seconds", 1, [0.25])
    assert run.core.news.versions[0].why == "goal"
    assert run.core.deadline() is None


def test_devices_reach_a_target_with_what_they_measured() -> None:
    run = SmallRun(goal=Goal(target=0.9))
    run.deliver("alice", 1.0, evaluation=Evaluation(num_samples=10, metrics={"accuracy": 0.8}))
    assert run.state.finished is None
    run.deliver("bob", 1.0, evaluation=Evaluation(num_samples=30, metrics={"accuracy": 0.95}))
    assert run.state.finished == "accuracy 0.9500"  # more than half of the test samples are bob's


def test_what_devices_reach_is_asked_for_when_it_may_be_another_and_otherwise_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = SmallRun(plain_fedbuff(9, flush_timer=False), goal=Goal(target=0.9))
    asked, ask = [], Scores.reached_by_most

    def counted(scores: Scores, metric: str, *, higher_is_better: bool) -> float | None:
        asked.append(metric)
        return ask(scores, metric, higher_is_better=higher_is_better)

    monkeypatch.setattr(Scores, "reached_by_most", counted)
    for tick in range(10):
        run.core.tick(float(tick))
    assert asked == ["accuracy"]
    for client, value in (("alice", 0.5), ("bob", 0.95), ("carol", 0.95)):
        run.deliver(client, 1.0, now=10.0, evaluation=Evaluation(num_samples=10, metrics={"accuracy": value}))
    at = run.core.deadline()
    assert at is not None
    run.core.tick(at)
    assert run.state.finished == "accuracy 0.9500"
    assert asked == ["accuracy"] * 2


def test_to_ask_how_much_a_tick_would_close_changes_nothing() -> None:
    run = SmallRun(median(buffer_size=9, flush_timer=False), goal=Goal(target=0.9))
    for client in ("alice", "bob", "carol"):
        run.deliver(client, 1.0, now=10.0, evaluation=Evaluation(num_samples=10, metrics={"accuracy": 0.95}))
    assert run.state.finished is None
    assert run.core.closing_bytes(11.0) == 3 * run.state.weights.nbytes
    run.core.tick(11.0)
    assert run.state.finished == "accuracy 0.9500"


def test_what_the_goal_asks_for_is_in_every_summary() -> None:
    run = SmallRun(goal=Goal(metric="zeal", target=2.0))
    names = [f"a{number:02}" for number in range(31)]
    for _ in range(2):
        run.deliver("mallory", 0.0, evaluation=Evaluation(num_samples=9, metrics=dict.fromkeys([*names, "b"], 1.0)))
    run.deliver("alice", 0.0, evaluation=Evaluation(num_samples=9, metrics={"zeal": 0.5}))
    summary = run.state.scores.now()
    assert summary is not None
    assert summary.mean["zeal"] == 0.5


def test_the_aggregators_own_evaluation_reaches_a_target() -> None:
    run = SmallRun(goal=Goal(target=0.1, metric="loss", higher_is_better=False, source="aggregator"))
    run.core.measured(0, {"loss": 0.2})
    run.core.tick(1.0)
    assert run.state.finished is None
    run.core.measured(1, {"loss": 0.1})
    run.core.tick(2.0)
    assert run.state.finished == "loss 0.1000"


def test_a_finished_run_refuses_every_update_as_late_and_stays_as_it_is() -> None:
    run = SmallRun(goal=Goal(versions=1))
    run.deliver("alice", 1.0)
    assert reason(run.judge("bob", [1.0])) == "late"
    run.core.finish("another reason", 9.0)
    assert (run.state.finished, run.state.version, run.weights) == ("1 versions", 1, [1.0])


def test_metrics_that_no_sum_can_hold_do_not_stop_the_run() -> None:
    run = SmallRun(goal=Goal(target=0.9))
    for client, value in (("alice", 1e308), ("bob", -1e308), ("carol", 1e200)):
        evaluation = Evaluation(num_samples=(1 << 63) - 1, metrics={"accuracy": value})
        run.deliver(client, 0.0, evaluation=evaluation)
    run.core.tick(100.0)
    assert run.state.finished is None
    run.deliver("dave", 0.0, evaluation=Evaluation(num_samples=10, metrics={"accuracy": 0.95}))
    assert run.state.finished == "accuracy 0.9500"


def test_a_mixing_strategy_refuses_a_base_that_was_never_published() -> None:
    run = SmallRun(fedasync())
    run.state.bases.clear()
    assert reason(run.judge("alice", [1.0])) == "unknown_base"
    run.publish()
    run.deliver("alice", 1.0)


def test_a_mixing_strategy_refuses_what_is_older_than_all_that_it_holds() -> None:
    run = SmallRun()
    run.make_versions(3)
    mixing = SmallRun(fedasync())
    mixing.core.state.version, mixing.core.state.bases = 3, {2: run.state.weights, 3: run.state.weights}
    assert reason(mixing.judge("alice", [1.0], base_version=1)) == "unknown_base"
    mixing.deliver("alice", 1.0, base_version=2)


def test_however_many_versions_a_fast_device_makes_a_slow_ones_update_counts() -> None:
    run = SmallRun(fedasync(), [0.0])
    run.make_versions(1000)
    assert len(run.state.bases) == 16
    for base in range(0, 1000, 37):
        run.deliver("alice", 1.0, base_version=base)


def test_for_a_base_that_is_no_longer_held_the_nearest_that_is_stands() -> None:
    run = SmallRun(fedasync(alpha=0.5, staleness=constant()), [0.0])
    for _ in range(40):
        run.deliver("fast", 1.0)  # x + 0.5
    gone = next(version for version in range(40) if version not in run.state.bases)
    held = nearest(run.state.bases, gone)
    assert held is not None
    assert abs(held - gone) == 1
    run.deliver("alice", 8.0, base_version=gone)
    assert run.weights == [0.5 * 20.0 + 0.5 * (0.5 * held + 8.0)]  # half of x, half of what stands for y
    assert run.core.news.versions[-1].updates[0].held_base == held


def test_other_strategies_hold_no_old_weights() -> None:
    run = SmallRun()
    run.make_versions(5)
    assert run.state.bases == {}


def test_presence_decides_nothing_where_no_one_is_waited_for() -> None:
    run = SmallRun(plain_fedbuff(2))
    run.deliver("alice", 1.0)
    for online in (True, False):
        run.core.presence("alice", online, 1.0)
    assert run.state.version == 0


def test_news_are_told_once_rejections_too() -> None:
    run = SmallRun(plain_fedbuff(2))
    run.judge("alice", [float("nan")])
    run.deliver("bob", 1.0)
    news = run.core.take()
    assert [(client_id, update.outbox_id, update.sequence) for client_id, update, _ in news.judged] == [
        ("alice", outbox(1), 0),
        ("bob", outbox(1), 0),
    ]
    assert run.core.take().judged == []


def test_a_nonsense_size_is_refused_and_not_asked_for() -> None:
    run = SmallRun()
    offer, _ = offer_of([1.0], run.layout, size=0)
    assert reason(run.core.judge("alice", offer, memoryview(b""), 0.0)) == "malformed"


schedules = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans(), st.floats(0, 20)), min_size=1, max_size=80
)


@unhurried
@given(schedules, st.sampled_from(["fedbuff", "fedasync_delta", "fedavg"]), st.integers(1, 4))
def test_in_any_order_with_any_repetition_an_update_is_in_one_version_if_accepted_and_in_none_if_rejected(
    schedule: list[tuple[int, int, bool, float]], name: str, k: int
) -> None:
    strategies = {"fedbuff": plain_fedbuff(k), "fedavg": fedavg(clients=1, deadline=30.0)}
    run = SmallRun(strategies.get(name) or STRATEGIES[name]())
    verdicts: dict[tuple[str, int], Judged] = {}
    now = 0.0
    for client, sequence, with_body, passing in schedule:
        now += passing
        client_id = f"client-{client}"
        run.core.presence(client_id, sequence % 2 == 0, now)
        value = float("nan") if (client + sequence) % 5 == 4 else 1.0
        offer, body = offer_of([value], run.layout, client_id=client_id, sequence=sequence, base_version=0)
        answer = run.core.judge(client_id, offer, body if with_body else memoryview(b""), now)
        run.core.tick(now)
        assert not isinstance(answer, Later)
        if isinstance(answer, Missing):
            assert (client_id, sequence) not in verdicts
        else:
            said = verdicts.setdefault((client_id, sequence), answer)
            assert answer == said._replace(detail=answer.detail)  # the sentence is not remembered
    run.core.finish("the end", now)

    inputs = [(folded.client_id, folded.update.sequence) for v in run.core.news.versions for folded in v.updates]
    accepted = [update for update, receipt in verdicts.items() if receipt.verdict == "accepted"]
    assert sorted(inputs) == sorted(accepted)
    assert run.state.accepted == len(accepted)
    assert run.state.rejected.total() == len(verdicts) - len(accepted)
    assert np.isfinite(run.state.weights).all()
