"""How often, how many a day, and how long an update may be."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.allowance import DAY_SECONDS, Allowance, Allowances
from fedmq.aggregator.buckets import Buckets
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.judged import Judged
from fedmq.aggregator.quarantine import QuarantineRule
from fedmq.aggregator.sparing import Sparing
from fedmq.aggregator.store import Store
from fedmq.schemas.messages import Later, Missing
from tests.aggregator.door import LAYOUT, VERSION, Door
from tests.aggregator.small_run import RUN, SmallRun, plain_fedbuff


def limited(
    allowance: Allowance | None = None, longest: Bound | None = None, quarantine: QuarantineRule | None = None
) -> SmallRun:
    run = SmallRun(plain_fedbuff())
    rules = replace(run.core.rules, allowance=allowance or Allowance(), longest=longest, quarantine=quarantine)
    run.core = AggregatorCore(run.state, run.strategy, rules, run.core.goal)
    return run


def put_off(run: SmallRun, client: str, now: float, **other: object) -> tuple[str, float] | None:
    answer = run.judge(client, [0.0], now=now, **other)
    if isinstance(answer, Later):
        return answer.reason, answer.seconds
    assert isinstance(answer, Judged)
    assert answer.verdict == "accepted"
    return None


def test_as_many_come_at_once_as_a_minute_has_and_then_one_after_the_other() -> None:
    run = limited(Allowance(per_minute=3.0))
    assert [put_off(run, "alice", 100.0) for _ in range(4)] == [None, None, None, ("rate", 20.0)]
    assert put_off(run, "alice", 110.0) == ("rate", 10.0)
    assert put_off(run, "bob", 110.0) is None
    assert put_off(run, "alice", 120.0) is None
    assert put_off(run, "alice", 120.0) == ("rate", 20.0)
    assert put_off(run, "alice", 1000.0) is None


def test_what_is_refused_takes_nothing_from_the_rate() -> None:
    run = limited(Allowance(per_minute=1.0))
    for _ in range(3):
        judged = run.judge("alice", [float("nan")], now=1.0)
        assert isinstance(judged, Judged)
        assert judged.reason == "not_finite"
    assert put_off(run, "alice", 1.0) is None
    assert put_off(run, "alice", 1.0) == ("rate", 60.0)


def test_who_has_to_wait_is_not_asked_for_bytes() -> None:
    run = limited(Allowance(per_minute=1.0))
    assert put_off(run, "alice", 1.0) is None
    answer = run.judge("alice", [], now=2.0, size=4)
    assert isinstance(answer, Later)
    assert isinstance(run.judge("alice", [], now=100.0, size=4), Missing)


def test_a_day_of_the_run_has_so_many_and_the_next_as_many_again() -> None:
    run = limited(Allowance(per_day=2))
    assert [put_off(run, "alice", 10.0) for _ in range(3)] == [None, None, ("quota", 3600.0)]
    assert put_off(run, "bob", 10.0) is None
    assert put_off(run, "alice", DAY_SECONDS - 60.0) == ("quota", 60.0)
    assert put_off(run, "alice", DAY_SECONDS) is None
    assert run.state.allowances.today == (1, {"alice": 1})


def test_what_a_client_had_today_outlives_a_restart(tmp_path: Path) -> None:
    run = limited(Allowance(per_day=1))
    assert put_off(run, "alice", 10.0) is None
    run.state.later["quota"] += 5
    store = Store(tmp_path, "f")
    store.commit(run.state, run.core.take())
    store.close()
    store = Store(tmp_path, "f")
    state = store.load(run.layout)
    store.close()
    assert state is not None
    assert state.later == {"quota": 5}
    assert state.allowances.wait(Allowance(per_day=1), "alice", 20.0) == ("quota", 3600.0)
    assert state.allowances.wait(Allowance(per_day=1), "bob", 20.0) is None


def test_without_limits_nothing_is_remembered() -> None:
    run = limited()
    assert put_off(run, "alice", 10.0) is None
    assert run.state.allowances.today == (0, {})
    assert Allowances().wait(Allowance(), "alice", 0.0) is None


def reason_of(run: SmallRun, client: str, length: float) -> str | None:
    answer = run.judge(client, [length])
    assert isinstance(answer, Judged)
    return answer.reason


def test_what_is_longer_than_a_fixed_norm_is_refused_for_good() -> None:
    run = limited(longest=Bound(norm=2.0))
    assert [reason_of(run, "alice", length) for length in (2.0, -2.0, 2.1, -1e10)] == [
        None, None, "norm_bound", "norm_bound",
    ]  # fmt: skip
    assert run.weights == [0.0]
    assert run.state.norms.newest == {}


def test_the_median_binds_when_three_clients_are_known_and_each_counts_once() -> None:
    run = limited(longest=Bound(medians=10.0))
    assert [reason_of(run, name, length) for name, length in (("alice", 1.0), ("mallory", 1e6), ("bob", 1.0))] == [
        None
    ] * 3
    assert [reason_of(run, "mallory", 1e6) for _ in range(50)] == ["norm_bound"] * 50
    assert reason_of(run, "carol", 9.0) is None
    assert run.state.norms.newest["mallory"] == pytest.approx(1e6)


def test_a_fixed_norm_holds_before_the_median_is_known_and_the_smaller_one_after() -> None:
    run = limited(longest=Bound(norm=50.0, medians=10.0))
    assert reason_of(run, "mallory", 1e6) == "norm_bound"
    assert [reason_of(run, name, 1.0) for name in ("alice", "bob", "carol")] == [None] * 3
    assert reason_of(run, "mallory", 11.0) == "norm_bound"
    assert reason_of(run, "mallory", 9.0) is None


def test_a_first_client_with_tiny_norms_does_not_shut_the_others_out() -> None:
    run = limited(longest=Bound(medians=10.0))
    for name in ("mallory", "eve"):
        assert reason_of(run, name, 1e-9) is None
    names = ("alice", "bob", "carol", "dave")
    first = [reason_of(run, name, 1.0) for name in names]
    assert first[0] == "norm_bound"
    assert [reason_of(run, name, 1.0) for name in names] == [None] * 4


def test_clients_that_have_nothing_to_say_do_not_shut_the_others_out() -> None:
    run = limited(longest=Bound(medians=10.0))
    assert [reason_of(run, f"idle-{n}", 0.0) for n in range(5)] == [None] * 5
    assert [reason_of(run, name, 1.0) for name in ("alice", "bob", "carol")] == [None] * 3
    assert [reason_of(run, f"idle-{n}", 0.0) for n in range(5)] == [None] * 5
    assert [reason_of(run, name, 9.0) for name in ("alice", "bob", "carol")] == [None] * 3
    assert reason_of(run, "mallory", 1e6) == "norm_bound"


def test_no_minority_decides_with_tiny_norms_who_is_refused() -> None:
    run = limited(longest=Bound(norm=100.0, medians=5.0))
    for _ in range(10):
        assert reason_of(run, "mallory", 1e-12) in (None, "norm_bound")
        assert [reason_of(run, name, length) for name, length in (("a", 1.0), ("b", 4.0), ("c", 6.0))] == [None] * 3


def test_a_bound_that_others_made_is_no_offence_and_a_fixed_one_is() -> None:
    run = limited(longest=Bound(norm=100.0, medians=10.0), quarantine=QuarantineRule(after=3))
    assert [reason_of(run, name, 1.0) for name in ("alice", "bob", "carol")] == [None] * 3
    assert [reason_of(run, "dave", 99.0) for _ in range(10)] == ["norm_bound"] * 10
    assert run.state.quarantine.held == {}
    assert [reason_of(run, "mallory", 101.0) for _ in range(3)] == ["norm_bound"] * 3
    assert set(run.state.quarantine.held) == {"mallory"}


def test_a_bound_that_is_not_above_zero_is_an_error() -> None:
    assert AggregatorSettings().longest() is None
    assert AggregatorSettings(max_medians=3.0).longest() == Bound(medians=3.0)
    assert AggregatorSettings(max_norm=1.0, max_medians=2.0).longest() == Bound(1.0, 2.0)
    with pytest.raises(ValueError, match=r"max_norm = -1\.0, expected more than 0"):
        AggregatorSettings(max_norm=-1.0)


def test_buckets_forget_who_is_full() -> None:
    buckets = Buckets(1.0, 2.0)
    for number in range(100_000):
        buckets.take(f"client-{number}", number / 1000)
    assert len(buckets) < 5000
    assert buckets.seconds("client-99999", 99.999) == 0.0
    assert [buckets.taken("client-99999", 99.999) for _ in range(2)] == [True, False]
    assert buckets.seconds("client-99999", 99.999) == 1.0


def test_of_a_thousand_lines_about_one_thing_few_are_written_and_the_rest_is_counted() -> None:
    sparing = Sparing()
    written = [left_out for second in range(1000) if (left_out := sparing.line("mallory", second / 10)) is not None]
    assert len(written) == 20 + 9
    assert written[:20] == [""] * 20
    assert sum(int(text.removeprefix(" left_out=")) for text in written[20:]) + len(written) > 900
    assert sparing.line("alice", 100.0) == ""


def test_whoever_makes_up_a_new_name_for_each_line_fills_no_log() -> None:
    sparing = Sparing()
    names = [f"{'x' * 60_000}{n}" if n % 2 else f"{n}{'x' * 60_000}" for n in range(20_000)]
    written = [name for n, name in enumerate(names) if sparing.line(name, n / 1000) is not None]
    assert 500 <= len(written) <= 500 + 5 * 20
    assert max(map(len, sparing._buckets._left)) == 100


def test_versions_have_a_line_each_at_a_usual_pace_and_one_a_second_beyond_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), strategy=plain_fedbuff(1))

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.message.startswith("version=")]

    with caplog.at_level(logging.INFO):
        for _ in range(200):
            door.say(door.offer(), seconds=1.0)
        assert len(lines()) == 200
        for _ in range(500):
            door.say(door.offer(), seconds=0.01)
    assert door.state.version == VERSION + 700
    assert 100 <= len(lines()) - 200 <= 110
    door.work(5.0)
    with caplog.at_level(logging.INFO):
        door.say(door.offer())
    left_out = sum(int(line.rpartition("left_out=")[2]) for line in lines() if "left_out=" in line)
    assert len(lines()) + left_out == 701
