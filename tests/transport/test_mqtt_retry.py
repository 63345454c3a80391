from __future__ import annotations

import random
import time

import pytest

from fedmq.transport.mqtt_retry import Retry


def pauses(retry: Retry, count: int) -> list[float]:
    found = []
    for _ in range(count):
        assert not retry.failed()
        found.append(retry.at - time.monotonic())
    return found


def test_the_pause_is_drawn_from_zero_to_a_bound_that_doubles_up_to_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr(random, "uniform", lambda low, high: drawn.append((low, high)) or high)  # type: ignore[func-returns-value]
    assert pauses(Retry("auto", 1.0), 5) == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0], abs=0.05)
    assert drawn == [(0.0, 0.2), (0.0, 0.4), (0.0, 0.8), (0.0, 1.0), (0.0, 1.0)]


def test_two_of_a_fleet_do_not_come_back_together() -> None:
    assert pauses(Retry("auto", 30.0), 5) != pytest.approx(pauses(Retry("auto", 30.0), 5), abs=1e-6)


def test_only_a_connection_that_lasted_starts_the_pauses_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    retry = Retry("auto", 30.0)
    assert pauses(retry, 3) == pytest.approx([0.2, 0.4, 0.8])
    retry.connected()
    clock += 5.0
    assert pauses(retry, 1) == pytest.approx([1.6])
    retry.connected()
    clock += 20.0
    assert pauses(retry, 1) == pytest.approx([0.2])


def test_the_other_version_is_tried_at_once_and_mqtt_5_again_after_a_pause() -> None:
    retry = Retry("auto", 30.0)
    tried: list[tuple[bool, str]] = [(retry.failed(version_refused=True), retry.version) for _ in range(4)]
    assert tried == [(True, "3.1.1"), (False, "5"), (True, "3.1.1"), (False, "5")]


def test_a_version_that_has_worked_is_given_up_after_three_refusals() -> None:
    retry = Retry("auto", 30.0)
    retry.connected()
    for _ in range(2):
        assert not retry.failed(version_refused=True)
    assert retry.failed(version_refused=True)
    assert retry.version == "3.1.1"


def test_a_forced_version_is_never_changed() -> None:
    for version in ("5", "3.1.1"):
        retry = Retry(version, 30.0)
        for _ in range(5):
            assert not retry.failed(version_refused=True)
        assert retry.version == version


def test_a_thousand_failures_do_not_overflow() -> None:
    assert max(pauses(Retry("auto", 30.0), 1000)) <= 30.0
