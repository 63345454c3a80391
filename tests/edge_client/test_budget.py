"""A day's bytes: what they are counted by, and that a device does without more."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fedmq.edge_client.actions import Action, Follow, SendPart, Stop, Train
from fedmq.edge_client.budget import Allowance, Budget, Shortage, Spent
from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.estimate import known_bytes, update_bytes
from fedmq.edge_client.feedback import encoded
from fedmq.edge_client.meter import Meter
from fedmq.edge_client.offers import Morning
from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.codecs import CODECS
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import Head, Progress
from fedmq.schemas.plan import Plan
from fedmq.schemas.wire import encode
from tests.edge_client import test_service
from tests.edge_client.test_service import TOPICS, Device
from tests.edge_client.words import (
    RUN,
    accepted,
    connected_core,
    head,
    missing,
    offer,
    offers,
    offline,
    online,
    trained_core,
)

DAY = 86_400.0
NOON = 20_000 * DAY + DAY / 2


def allowed(core: ClientCore, uplink: int | None = None, downlink: int | None = None, until: float = 1000.0) -> None:
    core.allowance = Allowance(uplink, downlink, until)


def with_size(size: int, version: int = 1) -> Head:
    return head(version).model_copy(update={"size": size})


def parts(actions: list[Action]) -> list[SendPart]:
    return [action for action in actions if isinstance(action, SendPart)]


def test_what_a_link_carries_in_all_is_counted_against_the_day_it_is_carried_on() -> None:
    budget = Budget(1000, 2000)
    budget.count(100, 300, NOON)
    budget.count(150, 300, NOON + 10)
    assert budget.allowance(NOON + 10, 5.0) == Allowance(850, 1700, 5.0 + DAY / 2 - 10, 20_000)
    budget.count(900, 2500, NOON + 20)
    assert budget.allowance(NOON + 20, 0.0).downlink == 0, "never less than nothing"
    budget.count(950, 2500, NOON + DAY)
    assert budget.spent == Spent(20_001, 50, 0)
    assert budget.allowance(NOON + DAY, 0.0).uplink == 950


def test_a_clock_that_goes_back_begins_a_day_too() -> None:
    budget = Budget(1000, None, Spent(30_000, 999, 0))
    budget.count(0, 0, NOON)
    assert budget.allowance(NOON, 0.0).uplink == 1000


def test_a_day_that_the_clock_goes_back_from_goes_on_when_it_returns_with_what_was_carried_meanwhile() -> None:
    budget = Budget(1000, 1000)
    budget.count(700, 70, NOON)
    budget.count(750, 80, 60.0)
    assert budget.allowance(60.0, 0.0).uplink == 950
    budget.count(800, 90, NOON)
    assert (budget.spent, budget.later) == (Spent(20_000, 800, 90), None)


def test_what_a_day_costs_is_not_added_to_one_that_follows_by_itself() -> None:
    budget = Budget(1000, None, Spent(20_001, 300, 0))  # by a clock that was wrong
    budget.count(500, 0, NOON)
    budget.count(500, 0, NOON + DAY)
    assert (budget.spent, budget.later) == (Spent(20_001, 300, 0), None)


def test_a_later_day_that_is_over_is_forgotten() -> None:
    budget = Budget(1000, None, Spent(0, 50, 0), Spent(20_000, 300, 0))
    budget.count(0, 0, NOON + DAY)
    assert (budget.spent, budget.later) == (Spent(20_001), None)


def one_boot(folder: Path, clock_is_set: float, clean: bool) -> int:
    """Of a device that begins in 1970 and sends all that it may as soon as its clock is set: how many bytes it has."""
    outbox, carried, wall = Outbox(folder), [100, 0], 60.0
    meter = Meter(lambda: (carried[0], carried[1]), outbox, 2_000_000, wall=lambda: wall)
    assert meter.read(0.0).uplink == 2_000_000 - 100
    wall = clock_is_set
    while meter.read(0.0).suffices(uplink=50_000):
        carried[0] += 50_000
    if clean:
        meter.close()
    outbox.close()
    return carried[0]


@pytest.mark.parametrize("clean", [False, True])
def test_boots_of_a_device_whose_clock_begins_in_1970_share_one_day(tmp_path: Path, clean: bool) -> None:
    first = one_boot(tmp_path, NOON, clean)
    assert first == 2_000_100, "the first time nobody knows which day it was in 1970"
    assert [one_boot(tmp_path, NOON + 600 * boot, clean) for boot in range(1, 5)] == [100] * 4
    assert one_boot(tmp_path, NOON + DAY, clean) == first, "it is another day"


def test_an_outbox_from_before_has_no_later_day() -> None:
    outbox = Outbox(None)
    with outbox._transaction() as execute:
        execute("INSERT INTO meta VALUES ('spent', '[20000, 700, 40]')")
    assert (outbox.spent(), outbox.spent_later()) == (Spent(20_000, 700, 40), None)
    outbox.keep_spent(Spent(0, 1, 2), Spent(20_000, 700, 40))
    assert (outbox.spent(), outbox.spent_later()) == (Spent(0, 1, 2), Spent(20_000, 700, 40))
    outbox.close()


def test_the_disk_has_up_to_a_64th_of_the_budget_more_than_was_spent_and_is_written_no_more_often() -> None:
    budget = Budget(64_000_000, None)
    budget.count(0, 0, NOON)
    assert budget.to_keep() == Spent(20_000, 1_000_000, 1_000_000)
    budget.count(500_000, 0, NOON)
    assert budget.to_keep() is None
    budget.count(500_001, 0, NOON)
    assert budget.to_keep() == Spent(20_000, 1_500_001, 1_000_000)
    assert budget.to_keep() is None
    budget.count(500_001, 0, NOON + DAY)
    assert budget.to_keep() == Spent(20_001, 1_000_000, 1_000_000)


def test_what_is_about_to_be_sent_is_kept_as_spent_before_it_is_until_its_connection_is_gone() -> None:
    budget = Budget(64_000_000, None)
    budget.promise(5_000_000)
    budget.promise(3_000_000)
    budget.count(0, 0, NOON)
    assert budget.to_keep() == Spent(20_000, 9_000_000, 1_000_000)
    budget.count(6_000_000, 0, NOON)
    assert budget.to_keep() is None
    assert budget.allowance(NOON, 0.0).uplink == 58_000_000, "it is not spent yet"
    budget.cut_off()
    assert budget.to_keep() == Spent(20_000, 7_000_000, 1_000_000)


def one_start(folder: Path, clean: bool) -> int:
    """Of a device that sends 30,000 bytes if it may: how many it has."""
    outbox, carried = Outbox(folder), [0, 0]
    meter = Meter(lambda: (carried[0], carried[1]), outbox, 2_000_000, wall=lambda: NOON)
    while carried[0] < 30_000 and meter.read(0.0).suffices(uplink=3000):
        carried[0] += 3000
    if clean:
        carried[0] += 100  # its goodbye
        meter.close()
    outbox.close()
    return carried[0]


def test_no_number_of_clean_starts_makes_a_day_longer_or_shorter(tmp_path: Path) -> None:
    assert 1_997_000 < sum(one_start(tmp_path, clean=True) for _ in range(100)) <= 2_000_000 + 100 * 100


def test_a_kill_makes_a_day_no_longer_and_costs_a_64th_of_it_at_most(tmp_path: Path) -> None:
    sent = [one_start(tmp_path, clean=False) for _ in range(100)]
    assert sum(sent) <= 2_000_000
    assert sum(sent[:32]) == 32 * 30_000, "with as many kills"


def test_a_killed_device_has_sent_no_more_than_its_disk_says_and_one_that_stops_just_as_much() -> None:
    device = Device(daily_uplink=4000)
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    kept = device.outbox.spent()
    assert kept is not None
    assert device.sent < kept.uplink <= device.sent + 1024
    device.service.stop(Stop(0, "asked to stop"))
    assert device.outbox.spent() == Spent(20_000, device.sent, device.received)
    device.outbox.close()


def test_a_body_is_kept_as_spent_before_the_link_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_service, "LAYOUT", Layout((Entry("w", (10_240,)),)))
    device = Device(daily_uplink=64_000)
    device.plan = Plan(codec="float32", zstd=False)
    kept: list[tuple[int, Spent | None]] = []
    publish = device.service._link.publish

    def noting(topic: str, payload: bytes, **how: Any) -> bool:
        kept.append((len(payload), device.outbox.spent()))
        return publish(topic, payload, **how)

    monkeypatch.setattr(device.service._link, "publish", noting)
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    [there] = [spent for size, spent in kept if size > 40_960]
    assert there is not None
    assert there.uplink > 40_960
    device.outbox.close()


def test_a_restart_neither_saves_nor_costs_anything() -> None:
    outbox = Outbox(None)
    assert outbox.spent() is None
    outbox.keep_spent(Spent(20_000, 700, 40))
    budget = Budget(1000, None, outbox.spent())
    budget.count(100, 0, NOON)
    assert budget.allowance(NOON, 0.0).uplink == 200
    outbox.close()


def test_without_limits_nothing_is_short_and_nothing_is_kept() -> None:
    budget = Budget()
    budget.count(1 << 40, 1 << 40, NOON)
    assert budget.allowance(NOON, 0.0).suffices(uplink=1 << 50, downlink=1 << 50)
    assert budget.to_keep() is None


def test_an_update_that_today_has_no_room_for_is_offered_tomorrow_and_not_by_everybody_at_once() -> None:
    moments = set()
    for seed in range(5):
        core = connected_core(offer(0, size=5000), seed=seed)
        allowed(core, uplink=6000)
        [first] = offers(core.tick(1.0))
        assert not first.with_body, "5,000 bytes may have been sent before"
        allowed(core, uplink=5500)
        assert offers(core.reply(missing(0, (0, 5000)), 2.0)) == []
        assert offers(core.tick(999.0)) == []
        deadline = core.deadline()
        assert deadline is not None
        assert 1000.0 <= deadline <= 1600.0
        moments.add(deadline)
        allowed(core, uplink=10_000, until=1000.0 + DAY)
        assert [action.with_body for action in offers(core.tick(1600.0))] == [True]
    assert len(moments) == 5


MIDNIGHT = 20_001 * DAY


def paused_until(wall_of: Callable[[float], float], seconds: int) -> float | None:
    """When a core that is out of bytes at 0 goes on, looking every ten seconds."""
    core, budget = ClientCore("e" * 32, random.Random(0), []), Budget(1_000_000)
    core.foresee(200_000)
    core.connected(0.0)
    for now in range(0, seconds, 10):
        budget.count(900_000, 0, wall_of(now))
        core.allowance = budget.allowance(wall_of(now), now)
        core.tick(now)
        if core.paused is None:
            return now
    return None


def offered_at(wall_of: Callable[[float], float], seconds: int, in_parts: bool) -> float | None:
    """When an update that was put off at 0 is offered, looking every ten seconds."""
    core, budget = connected_core(offer(0, size=100_000)), Budget(1_000_000)
    core.offers.part_bytes = 4096 if in_parts else 1 << 28
    budget.count(0, 0, wall_of(0))
    core.allowance = budget.allowance(wall_of(0), 0)
    assert offers(core.tick(1.0))
    budget.count(999_000, 0, wall_of(0))
    core.allowance = budget.allowance(wall_of(0), 1)
    assert core.reply(missing(0, (0, 100_000)), 2.0) == [Follow(False)]
    for now in range(10, seconds, 10):
        budget.count(999_000, 0, wall_of(now))
        core.allowance = budget.allowance(wall_of(now), now)
        if offers(core.tick(now)):
            return now
    return None


def ntp(now: float) -> float:
    """What a clock shows that begins in 1970 and is set after five minutes, to noon."""
    return 10 + now if now < 300 else NOON + now


def sleepy(now: float) -> float:
    """What a clock shows from an hour before midnight on, on a device that is awake a minute in twenty."""
    return MIDNIGHT - 3600 + 20 * now


@pytest.mark.parametrize(("wall_of", "new_day"), [(ntp, 300), (sleepy, 180)])
def test_a_device_goes_on_within_ten_minutes_of_a_day_that_comes_sooner_than_it_seemed(
    wall_of: Callable[[float], float], new_day: float
) -> None:
    for moment in (
        paused_until(wall_of, 4000),
        offered_at(wall_of, 4000, in_parts=False),
        offered_at(wall_of, 4000, in_parts=True),
    ):
        assert moment is not None
        assert new_day <= moment <= new_day + 610


def test_a_device_that_wakes_just_before_midnight_does_not_sleep_as_long_again() -> None:
    woken_at = 600.0
    moment = paused_until(lambda now: NOON + now if now < woken_at else MIDNIGHT - 30 + (now - woken_at), 4000)
    assert moment is not None
    assert 630 <= moment <= 1240


def test_a_morning_comes_nearer_only_and_not_for_all_at_once() -> None:
    moments = set()
    for seed in range(5):
        morning = Morning(Allowance(until=5000.0, day=1), random.Random(seed))
        first = morning.at
        morning.look(Allowance(until=9000.0, day=1), 100.0)
        assert morning.at == first
        morning.look(Allowance(until=1000.0, day=1), 200.0)
        assert morning.at == 1600.0
        morning.look(Allowance(until=90_000.0, day=2), 300.0)
        assert 300.0 <= morning.at <= 900.0
        moments.add(morning.at)
        morning.look(Allowance(until=90_000.0, day=2), 400.0)
        assert morning.at in moments
    assert len(moments) == 5


def test_several_offers_at_a_time_share_what_is_left() -> None:
    core, _ = trained_core(0)
    core = connected_core(*(offer(n) for n in range(4)))
    allowed(core, uplink=2 * 1024)
    assert len(offers(core.tick(1.0))) == 2


def test_no_more_parts_are_sent_than_there_is_room_for() -> None:
    core = connected_core(offer(0, size=100_000))
    core.offers.part_bytes = 4096
    allowed(core, uplink=4096 + 100)
    assert offers(core.tick(1.0))
    asked = missing(0, (0, 100_000))
    asked = asked.model_copy(update={"missing": (asked.missing[0].model_copy(update={"window": 8}),)})
    assert len(parts(core.reply(asked, 1.1))) == 1, "not two"
    allowed(core, uplink=4095)
    assert parts(core.reply(asked, 1.2)) == []
    assert offers(core.tick(999.0)) == [], "nor is it offered again before tomorrow"


def test_nothing_is_trained_whose_update_could_not_be_sent() -> None:
    core, _ = trained_core(0, version=0)
    core.reply(accepted(0), 0.1)
    allowed(core, uplink=1024 + 3)  # the last update took 4
    assert core.head(head(1), True, 0.2) == []
    assert core.tick(0.2) == [Follow(False)]
    assert core.paused == Shortage("uplink", 1028)
    assert core.tick(999.0) == []
    allowed(core, uplink=1028, until=1000.0 + DAY)
    assert Follow(True) in core.tick(1600.0)
    assert core.paused is None
    assert Train(head(2)) in core.head(head(2), True, 1600.0)


def test_a_version_is_not_trained_on_again_either() -> None:
    core, _ = trained_core(0, version=0)
    core.reply(accepted(0), 0.1)
    allowed(core, uplink=0)
    assert [action for action in core.tick(900.0) if isinstance(action, Train)] == []
    assert core.deadline() is not None


def test_a_model_that_today_has_no_room_for_is_not_subscribed_to() -> None:
    core = ClientCore("e" * 32, random.Random(0), [])
    core.connected(0.0)
    core.presence(online(), 0.0)
    allowed(core, downlink=60_000)
    assert Train(with_size(40_000)) in core.head(with_size(40_000), True, 0.1)
    allowed(core, downlink=19_000)
    core.trained(offer(0), [], 0.2)
    assert Follow(True) not in core.reply(accepted(0), 0.3)
    assert core.paused == Shortage("downlink", 41_024)
    core.disconnected()
    assert Follow(True) not in core.connected(5.0)
    assert core.lacks(with_size(20_000, 2)) == Shortage("downlink", 20_000)
    allowed(core, downlink=60_000, until=1000.0 + DAY)
    assert Follow(True) in core.tick(1600.0)


def test_what_comes_or_goes_in_parts_takes_more_than_its_bytes() -> None:
    model = with_size(24_990_000).model_copy(update={"slot": 0, "part_bytes": 122_880})
    core = ClientCore("e" * 32, random.Random(0), [])
    core.connected(0.0)
    core.presence(online(), 0.0)
    allowed(core, downlink=50_000_000)
    assert core.lacks(model) is None
    assert Train(model) in core.head(model, True, 0.1)
    allowed(core, downlink=50_000_000 - 25_005_000)  # as much as its bytes, and not enough for what is around its parts
    needed = 24_990_000 + 204 * 256
    assert core.lacks(model) == Shortage("downlink", needed)
    core.trained(offer(0), [], 0.2)
    assert core.paused == Shortage("downlink", needed + 1024)
    core = connected_core(offer(0, size=100_000))
    core.offers.part_bytes = 4096
    allowed(core, uplink=105_000)
    core.tick(0.1)
    assert core.paused == Shortage("uplink", 100_000 + 25 * 256 + 1024)


@pytest.mark.parametrize(
    ("limit", "used", "needed", "said"),
    [
        (50_000_000, 25_005_000, 24_996_000, "25.005 of 50 MB of daily_downlink used today, a model takes 24.996 MB;"),
        (
            50_000_000,
            25_000_001,
            25_000_000,
            "25.000001 of 50 MB of daily_downlink used today, a model takes 25.000000 MB;",
        ),
        (2_005_000, 1_003_000, 1_003_000, "1.003 of 2.005 MB of daily_downlink used today, a model takes 1.003 MB;"),
        (12_345_678, 12_000_000, 400_000, "12.0 of 12.3 MB of daily_downlink used today, a model takes 0.4 MB;"),
        (900, 500, 401, "500 of 900 B of daily_downlink used today, a model takes 401 B;"),
    ],
)
def test_a_sentence_of_a_pause_has_the_digits_that_show_why(limit: int, used: int, needed: int, said: str) -> None:
    budget = Budget(None, limit, Spent(20_000, 0, used))
    assert budget.sentence(Shortage("downlink", needed)).startswith(said)


def test_a_budget_that_never_suffices_is_said_to_and_what_suffices_tomorrow_too() -> None:
    budget = Budget(5_000_000, 300_000, Spent(20_000, 3_000_000, 0))
    assert budget.sentence(Shortage("uplink", 2_500_000)) == (
        "3.0 of 5 MB of daily_uplink used today, an update takes 2.5 MB; this device goes on after 00:00 UTC"
    )
    assert budget.sentence(Shortage("downlink", 400_000)) == (
        "device.daily_downlink is 300000 bytes, a model takes 400000: allow more, or choose another "
        "aggregator.snapshot_codec"
    )


def test_a_day_that_never_suffices_is_said_before_the_first_training_and_the_device_rests_after_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(test_service, "LAYOUT", Layout((Entry("w", (10_000,)),)))
    device = Device(daily_uplink=4000)
    device.snapshot(0)
    device.wait(1.0)
    assert device.service._job is not None
    head, layout = device.service._job
    device.service._remarks.begins(layout, head)  # a second one, where zstd has made less of the first
    assert sum("budget too small" in record.getMessage() for record in caplog.records) == 1
    said = "device.daily_uplink is 4000 bytes, an update takes "
    assert device.weights == [], "nothing was trained"
    assert device.service.status.activity == "training"
    assert device.service.status.detail.startswith(said)
    device.finish_job()
    device.wait(1.0)
    assert device.service.paused is not None
    assert device.service.complaint.startswith(said)
    device.outbox.close()


@pytest.mark.parametrize("in_parts", [False, True])
def test_nothing_is_taken_or_trained_whose_update_is_known_to_be_too_large(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, in_parts: bool
) -> None:
    monkeypatch.setattr(test_service, "LAYOUT", Layout((Entry("w", (10_240,)),)))
    device = Device(daily_uplink=40_000)
    device.plan = Plan(codec="float32", zstd=False)
    if in_parts:
        device.announce(0, parts=10)
    else:
        device.snapshot(0)
    device.wait(10.0)
    device.finish_job(if_any=True)
    assert device.weights == []
    assert device.outbox.pending() == []
    assert device.service.paused == Shortage("uplink", 40_960 + 1024)
    assert device.service.complaint == (
        "device.daily_uplink is 40000 bytes, an update takes 41984: allow more, or choose another plan.codec"
    )
    assert device.service._fetch.receiving() is None
    assert "no model in federation" not in caplog.text
    device.outbox.close()


def test_what_is_known_of_one_plan_does_not_hold_for_the_next() -> None:
    device = Device(daily_uplink=4000)
    device.service._core.foresee(5000)
    device.plan = Plan(codec="int8", zstd=False)
    device.snapshot(0)
    device.wait(0.1)
    assert device.service.status.activity == "training"
    device.outbox.close()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("parameters", [0, 1, 4097, 1 << 18, (1 << 18) + 7, (3 << 18) + 4099])
def test_without_zstd_the_size_of_an_update_is_known_to_the_byte(codec: str, parameters: int) -> None:
    entries = [Entry("w", (parameters,))] if parameters else []
    layout = Layout.of([*entries, Entry("s", (3,), kind="statistic")])
    plan = Plan(codec=codec, zstd=False)
    update = np.random.default_rng(7).standard_normal(layout.size, np.float32)
    real = len(encoded(update, layout, RUN, plan, None, seed=1).body)
    assert known_bytes(layout, plan) == (None if codec == "top_k" else real)
    assert known_bytes(layout, Plan(codec=codec)) is None


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("parameters", "statistics"), [(10, 0), (70_000, 3), (300_001, 0)])
def test_the_size_of_an_update_is_foreseen_from_its_layout_and_codec(
    codec: str, parameters: int, statistics: int
) -> None:
    entries = [Entry("w", (parameters,))]
    if statistics:
        entries.append(Entry("s", (statistics,), kind="statistic"))
    layout, plan = Layout.of(entries), Plan(codec=codec)
    update = np.random.default_rng(7).standard_normal(layout.size, np.float32) * np.float32(0.01)
    real = len(encoded(update, layout, RUN, plan, None, seed=1).body)
    assert update_bytes(layout, plan) == pytest.approx(real, rel=0.05, abs=16)


def test_a_device_rests_when_its_day_is_spent_says_so_and_goes_on_the_next_day() -> None:
    device = Device(daily_uplink=4000)
    version = 0
    while device.service.paused is None:
        assert version < 20, "it never rests"
        device.snapshot(version)
        device.wait(0.1)
        device.finish_job(if_any=True)
        for waiting in device.outbox.pending():
            device.accept(waiting.update)
        device.wait(3.0)
        version += 1
    assert device.sent <= 4000
    assert 1 <= device.service.accepted < version + 1
    assert (
        "of 4 kB of daily_uplink used today, an update takes 1.04 kB; this device goes on" in device.service.complaint
    )
    rested, trained = device.sent, len(device.weights)
    device.snapshot(version)
    device.wait(30_000.0)
    assert device.sent - rested < 600, "statuses may go out"
    assert len(device.weights) == trained
    assert device.outbox.spent() is not None
    device.wait(DAY)
    device.finish_job(if_any=True)
    assert device.weights[trained:] == [version]
    assert device.offers[-1].base_version == version
    device.outbox.close()


def test_today_is_in_the_status_of_a_device_with_a_budget() -> None:
    device = Device(daily_uplink=4000)
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    device.wait(1.0)
    told = device.service.status
    assert told.uplink_today == pytest.approx(device.sent, abs=600)
    assert told.downlink_today == pytest.approx(1000, abs=800)
    device.outbox.close()


def paused_device() -> Device:
    """Its day is spent, and it has an update without a verdict."""
    device = Device(daily_uplink=4000)
    version = 0
    while device.service.paused is None:
        assert version < 20, "it never rests"
        for waiting in device.outbox.pending():
            device.accept(waiting.update)
        device.snapshot(version)
        device.wait(3.0)
        device.finish_job(if_any=True)
        version += 1
    return device


def test_that_it_rests_is_in_its_status_as_long_as_it_does_whatever_else_happens() -> None:
    device = paused_device()
    for waiting in device.outbox.pending():
        device.reject(waiting.update, "too_stale")
    device.wait(10.0)
    assert device.service.rejected == 1
    assert "of 4 kB of daily_uplink used today" in device.service.complaint
    device.wait(DAY)
    assert device.service.paused is None
    assert device.service.complaint == ""
    device.outbox.close()


@pytest.mark.parametrize("state", ["finished", "training"])
def test_a_device_that_rests_hears_that_the_run_is_finished_when_the_aggregator_goes(
    state: Literal["training", "finished"],
) -> None:
    device = paused_device()
    device.say(TOPICS.progress, encode(Progress(run=RUN, version=9, state=state, strategy="fedbuff", updates=9)))
    device.wait(10.0)
    assert device.service.stopped is None
    device.say(TOPICS.aggregator, encode(offline()))
    device.wait(1.0)
    assert device.service.stopped == (Stop(0, "the run is finished") if state == "finished" else None)
    device.outbox.close()
