"""How many updates make a version: measured from what arrives, without clocks and without state per client."""

from __future__ import annotations

import heapq
import random
from statistics import mean

import pytest

from fedmq.aggregator.strategies import fedbuff
from fedmq.aggregator.tempo import Tempo
from tests.aggregator.small_run import SmallRun


def fleet(durations: list[float], *, buffer_size: int | None, updates: int = 6000) -> tuple[list[Tempo], list[int]]:
    """Always-busy clients whose jobs last so long, give or take half; what the tempo was, and how stale updates were.

    Only the second half, when it has settled. The tempo object is one and the same, so copies of its figures are kept.
    """
    randomness = random.Random(11)
    tempo = Tempo()
    tempo.buffer_size = buffer_size or 1
    agenda = [(randomness.random() * duration, client, 0) for client, duration in enumerate(durations)]
    heapq.heapify(agenda)
    version = buffered = 0
    seen, staleness = [], []
    for accepted in range(updates):
        now, client, base = heapq.heappop(agenda)
        tempo.update(base, accepted, 10, 1.0)
        staleness.append(version - base)
        buffered += 1
        if buffered >= tempo.buffer_size:
            version, buffered = version + 1, 0
            tempo.version(version, accepted + 1, buffer_size)
        seen.append(Tempo(tempo.clients_at_work, tempo.buffer_size))
        heapq.heappush(agenda, (now + durations[client] * randomness.uniform(0.5, 1.5), client, version))
    return seen[updates // 2 :], staleness[updates // 2 :]


def spread(clients: int, slowest: float) -> list[float]:
    """Job durations from 1 to `slowest`, each client the same factor slower than the one before."""
    return [slowest ** (number / max(1, clients - 1)) for number in range(clients)]


def test_three_equal_clients_in_turn_are_counted_as_three() -> None:
    tempo = Tempo()
    for accepted in range(200):
        tempo.update(max(0, accepted - 2), accepted, 10, 1.0)  # two others came while it was in the making
        tempo.version(accepted + 1, accepted + 1, None)
    assert tempo.clients_at_work == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize(
    ("clients", "slowest"), [(1, 1.0), (2, 1.0), (5, 1.0), (5, 10.0), (21, 1.0), (21, 10.0), (41, 1.0), (41, 10.0)]
)
def test_the_number_of_clients_at_work_is_right_however_fast_each_of_them_is(clients: int, slowest: float) -> None:
    seen, _ = fleet(spread(clients, slowest), buffer_size=1)
    assert mean(tempo.clients_at_work for tempo in seen) == pytest.approx(clients, rel=0.1)


def test_the_automatic_buffer_size_holds_staleness_near_what_is_planned_for() -> None:
    seen, staleness = fleet(spread(41, 10.0), buffer_size=None)
    assert 8 <= mean(tempo.buffer_size for tempo in seen) <= 13
    assert 3.0 <= mean(staleness) <= 5.0


def test_who_lies_about_the_base_does_not_make_the_buffer_much_larger_than_for_all_clients_at_work() -> None:
    run, turns = SmallRun(fedbuff()), random.Random(1)
    bases = dict.fromkeys([f"client-{n}" for n in range(9)], 0)
    for _ in range(1000):
        client = "liar" if turns.random() < 0.5 else turns.choice(sorted(bases))
        run.judge(client, [0.0], base_version=bases.get(client, 0))
        bases |= {client: run.state.version} if client in bases else {}
        assert run.state.tempo.buffer_size <= 4  # (1.5 * 10 - 1) / 4
    assert run.state.version > 200


@pytest.mark.parametrize("slowest", [1.0, 10.0])
def test_the_bound_on_those_at_work_is_beyond_what_clients_that_tell_the_truth_come_to(slowest: float) -> None:
    seen, _ = fleet(spread(41, slowest), buffer_size=None)
    assert max(tempo.clients_at_work for tempo in seen) < 1.5 * 41


@pytest.mark.parametrize(("at_work", "size"), [(1.0, 1), (6.9, 1), (7.1, 2), (9.0, 2), (41.0, 10), (401.0, 100)])
def test_the_automatic_buffer_size_is_a_quarter_of_the_others_at_work(at_work: float, size: int) -> None:
    tempo = Tempo(clients_at_work=at_work)
    tempo.version(1, 1, None)
    assert tempo.buffer_size == size


def test_the_buffer_size_changes_only_when_a_version_is_made() -> None:
    tempo = Tempo(clients_at_work=41.0)
    tempo.update(0, 0, 10, 1.0)
    assert tempo.buffer_size == 1
    tempo.version(1, 1, 7)
    assert tempo.buffer_size == 7


def test_one_device_that_slept_for_a_day_does_not_turn_the_tempo() -> None:
    tempo = Tempo(clients_at_work=5.0)
    tempo.update(0, 1_000_000, 10, 1.0)
    assert tempo.clients_at_work == 5.0 + (4 * 5.0 + 4 - 5.0) / 10


def test_the_timer_is_twice_what_a_buffer_usually_takes() -> None:
    tempo = Tempo(buffer_size=4)
    for accepted, interval in enumerate([1.0, 2.0, 3.0, 3.0, 1000.0]):
        assert tempo.flush_after() is None  # nothing to go by yet
        tempo.update(accepted, accepted, 10, interval)
    assert tempo.flush_after() == 2 * 3.0 * 4


def test_the_first_update_after_a_start_tells_nothing_about_intervals() -> None:
    tempo = Tempo()
    tempo.update(0, 0, 10, None)
    assert len(tempo.intervals) == 0


def test_the_median_of_samples_caps_nothing_before_the_first_update() -> None:
    tempo = Tempo()
    assert tempo.median_samples() == float("inf")
    for samples in (100, 10**12, 90):
        tempo.update(0, 0, samples, None)
    assert tempo.median_samples() == 100


def test_half_of_the_counts_may_be_made_up_and_the_median_is_an_honest_one() -> None:
    tempo = Tempo()
    for samples in (10**12, 100) * 3:
        tempo.update(0, 0, samples, None)
    assert tempo.median_samples() == 100


def test_all_figures_are_bounded_however_long_it_runs() -> None:
    tempo = Tempo()
    for accepted in range(5000):
        tempo.update(accepted, accepted, 10, 1.0)
        tempo.version(accepted + 1, accepted + 1, None)
    assert (len(tempo.intervals), len(tempo.samples), len(tempo.made_at)) == (31, 101, 1024)
