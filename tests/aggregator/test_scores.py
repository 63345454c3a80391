"""What devices measured: means weighted by samples, the spread between devices, all of it bounded."""

from __future__ import annotations

import pytest

from fedmq.aggregator.scores import Scores, reached_by_most, summarised
from fedmq.schemas.messages import Evaluation


def measured(num_samples: int = 10, **metrics: float) -> Evaluation:
    return Evaluation(num_samples=num_samples, metrics=metrics)


def test_a_mean_is_weighted_by_samples_and_so_is_the_spread() -> None:
    # (10 * 0.5 + 30 * 0.9) / 40 = 0.8; variance (10 * 0.09 + 30 * 0.01) / 40 = 0.03.
    summary = summarised([measured(10, accuracy=0.5), measured(30, accuracy=0.9)])
    assert summary is not None
    assert (summary.clients, summary.num_samples) == (2, 40)
    assert summary.mean == {"accuracy": pytest.approx(0.8)}
    assert summary.spread == {"accuracy": pytest.approx(0.03**0.5)}


def test_a_claim_of_a_trillion_test_samples_counts_as_ten_medians() -> None:
    honest = [measured(100, accuracy=0.5) for _ in range(10)]
    summary = summarised([measured(10**12, accuracy=1.0), *honest])
    assert summary is not None
    assert summary.mean["accuracy"] == pytest.approx(0.75)
    assert summary.num_samples == 2000
    summary = summarised([measured(10**12, accuracy=1.0), measured(100, accuracy=0.5)])
    assert summary is not None
    assert summary.num_samples == 1100


def test_what_most_reach_is_what_more_than_half_of_the_samples_reach() -> None:
    scores = [measured(10, accuracy=0.5), measured(30, accuracy=0.7), measured(21, accuracy=0.9)]
    assert reached_by_most(scores, "accuracy", higher_is_better=True) == 0.7
    assert reached_by_most(scores[:2], "accuracy", higher_is_better=False) == 0.7
    two = [measured(10, accuracy=0.5), measured(10, accuracy=0.9)]
    assert reached_by_most(two, "accuracy", higher_is_better=True) == 0.5
    assert reached_by_most(two, "accuracy", higher_is_better=False) == 0.9
    assert reached_by_most(two, "loss", higher_is_better=False) is None
    assert reached_by_most([], "loss", higher_is_better=False) is None


def test_one_device_that_claims_anything_does_not_end_a_run() -> None:
    honest = [measured(100, accuracy=0.1) for _ in range(99)]
    liar = measured(10**12, accuracy=1e90)
    assert reached_by_most([liar, *honest], "accuracy", higher_is_better=True) == 0.1


def test_each_metric_is_a_mean_over_those_that_measured_it() -> None:
    summary = summarised([measured(10, loss=1.0), measured(30, loss=2.0, accuracy=0.5)])
    assert summary is not None
    assert summary.mean == {"accuracy": 0.5, "loss": 1.75}


def test_one_device_with_names_of_its_own_hides_none_that_others_measure() -> None:
    strange = measured(100, **{f"_{n:02}": 1.0 for n in range(32)})
    summary = summarised([strange, measured(100, accuracy=0.9, loss=0.3), measured(100, accuracy=0.7, loss=0.5)])
    assert summary is not None
    assert len(summary.mean) == 32
    assert summary.mean["accuracy"] == pytest.approx(0.8)
    assert summary.mean["loss"] == pytest.approx(0.4)
    summary = summarised([strange, measured(100, accuracy=0.9)], always="accuracy")
    assert summary is not None
    assert summary.mean["accuracy"] == 0.9


def test_what_most_reach_is_asked_for_only_when_it_may_have_changed_and_not_all_the_time() -> None:
    scores = Scores()
    assert scores.ask_again(0.0)
    for number in range(100):
        scores.add(f"c{number}", 1, measured(accuracy=0.5))
    assert scores.ask_again(1.0)
    assert not scores.ask_again(2.0)
    assert scores.deadline() is None
    scores.add("c7", 2, measured(accuracy=0.6))
    assert scores.ask_again(2.0)
    scores.leave_out(["nobody"])
    assert scores.deadline() is None
    scores.leave_out(["c7"])
    assert scores.deadline() == pytest.approx(2.1)  # a hundred clients, a thousandth of a second for each
    assert not scores.ask_again(2.05)
    assert scores.ask_again(2.1)


def test_after_a_restart_a_late_evaluation_does_not_stand_for_all_of_an_older_version() -> None:
    scores = Scores()
    for client, version in (("alice", 7), ("bob", 7), ("carol", 5)):
        scores.add(client, version, measured(accuracy=0.5))
    scores.restored()
    scores.add("dave", 5, measured(accuracy=0.1))  # who else had measured it is not known any more
    scores.add("dave", 7, measured(accuracy=0.2))
    assert scores.of(5) is None
    summary = scores.of(7)
    assert summary is not None
    assert summary.clients == 3


def test_an_evaluation_of_no_samples_or_no_metrics_says_nothing() -> None:
    assert summarised([]) is None
    assert summarised([measured(0, accuracy=1.0), measured(10)]) is None


def test_a_metric_that_diverged_is_left_out_and_the_others_stay() -> None:
    summary = summarised([measured(10, loss=1e308, accuracy=0.1), measured(10, loss=-1e200, accuracy=0.3)])
    assert summary is not None
    assert summary.mean == {"accuracy": pytest.approx(0.2)}
    summary = summarised([measured(10, loss=1e308), measured(10, loss=2.0)])
    assert summary is not None
    assert summary.mean == {"loss": 2.0}


def test_more_samples_than_a_message_can_say_are_said_as_the_most_it_can() -> None:
    most = (1 << 63) - 1
    summary = summarised([measured(most, accuracy=0.25), measured(most, accuracy=0.75)])
    assert summary is not None
    assert summary.num_samples == most
    assert summary.mean["accuracy"] == pytest.approx(0.5)


def test_of_more_metrics_than_a_message_can_hold_the_first_32_by_name_are_said() -> None:
    one = Evaluation(num_samples=1, metrics={f"metric-{number:02}": 1.0 for number in range(32)})
    other = Evaluation(num_samples=1, metrics={f"other-{number:02}": 1.0 for number in range(32)})
    summary = summarised([one, other])
    assert summary is not None
    assert list(summary.mean) == [f"metric-{number:02}" for number in range(32)]


def test_now_is_each_clients_newest_and_an_older_one_does_not_replace_it() -> None:
    scores = Scores()
    scores.add("alice", 5, measured(accuracy=0.5))
    scores.add("alice", 3, measured(accuracy=0.1))
    scores.add("bob", 4, measured(accuracy=0.7))
    summary = scores.now()
    assert summary is not None
    assert summary.mean == {"accuracy": pytest.approx(0.6)}
    assert scores.newest_version() == 5


def test_a_version_keeps_what_every_device_measured_of_it() -> None:
    scores = Scores()
    for client, version, accuracy in (("alice", 3, 0.2), ("bob", 3, 0.4), ("alice", 4, 0.9)):
        scores.add(client, version, measured(accuracy=accuracy))
    third, fourth = scores.of(3), scores.of(4)
    assert third is not None
    assert fourth is not None
    assert (third.clients, fourth.clients) == (2, 1)
    assert third.mean["accuracy"] == pytest.approx(0.3)
    assert fourth.mean["accuracy"] == 0.9
    assert scores.of(5) is None


def test_scores_are_bounded_and_the_clients_heard_last_are_kept() -> None:
    scores = Scores()
    for number in range(1500):
        scores.add(f"client-{number}", number, measured(accuracy=0.5))
    assert (len(scores.newest), len(scores.versions)) == (1000, 64)
    assert "client-1499" in scores.newest
    assert "client-499" not in scores.newest


def test_nobody_has_measured_anything_at_first() -> None:
    assert Scores().now() is None
    assert Scores().newest_version() is None
