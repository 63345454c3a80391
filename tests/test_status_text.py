"""What `fedmq status` prints."""

from __future__ import annotations

import pytest

from fedmq.schemas.messages import AggregatorPresence, ClientStatus, DeviceEvaluation, Progress, Quarantined
from fedmq.status_text import client_text, clients_table, failed, in_bytes, quarantined, run_text

RUN = "b" * 32
DEVICE = ClientStatus(
    state="online",
    client_id="dev-2",
    incarnation="a" * 32,
    connection=2,
    activity="training",
    run=RUN,
    base_version=7,
    waiting=1,
    accepted=5,
    metrics={"loss": 3.7458269596099854},
    task_version="t1",
    uplink_bytes=360820,
    downlink_bytes=2_500_000,
    uplink_today=4600,
)
GONE = ClientStatus(state="offline", client_id="dev-3", incarnation="c" * 32)
PROGRESS = Progress(
    run=RUN, version=45, state="training", strategy="fedbuff", updates=90, updates_per_second=0.78, mean_staleness=1.5,
    buffer_size=2, uplink_bytes=9000, goal="until stopped",
)  # fmt: skip


def test_bytes_have_three_digits_and_a_unit() -> None:
    assert [in_bytes(number) for number in (0, 999, 1000, 1_240_000, 5e9)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1.24 MB",
        "5 GB",
    ]


def test_one_client_is_told_in_words_and_units_and_without_what_is_not_known() -> None:
    assert client_text(DEVICE).splitlines() == [
        "dev-2",
        "  state       online, training",
        f"  trained on  version 7 of run {RUN}",
        "  measured    loss 3.746",
        "  outbox      1 update waits",
        "  verdicts    5 accepted, 0 rejected, since its process started",
        "  bytes       361 kB sent, 2.5 MB received, since its process started",
        "  today       4.6 kB up, with all that belongs to MQTT, since 00:00 UTC",
        "  task        version t1",
        "  process     aaaaaaaaaaaa, connection 2",
    ]


def test_of_a_client_that_left_nothing_but_its_last_will_no_figures_are_made_up() -> None:
    head, first, second, note = clients_table({"dev-3": GONE, "dev-2": DEVICE})
    assert first.split() == ["dev-2", "online", "training", "7", "5", "1", "361", "kB", "2.5", "MB"]
    assert second.split() == ["dev-3", "offline", *"------"]
    assert "from the start of a device's process" in note
    assert all(line == line.rstrip() for line in (head, first, second))
    assert "what it did before is not known" in client_text(GONE)


def test_who_is_in_quarantine_and_not_named_is_counted() -> None:
    held = Quarantined(client_id="dev-9", reason="malformed", since=0, until=1)
    progress = PROGRESS.model_copy(update={"quarantine": (held,), "quarantined": 3})
    said = [line for line in run_text(None, progress) if "quarantine" in line]
    assert [line.partition(" (")[0] for line in said] == ["in quarantine: dev-9", "in quarantine: 2 more"]
    assert not [line for line in run_text(None, PROGRESS) if "quarantine" in line]


@pytest.mark.parametrize("until", [1 << 56, 1 << 62])
def test_a_time_that_no_clock_shows_is_no_reason_to_fail(until: int) -> None:
    said = quarantined(Quarantined(client_id="dev-9", reason="malformed", since=0, until=until))
    assert said.endswith(", until a time that no clock shows")


def test_what_an_aggregator_said_of_its_present_is_over_when_it_is_offline() -> None:
    presence = AggregatorPresence(state="online", run=RUN, incarnation="d" * 32, version=45)
    _, line, each = run_text(presence, PROGRESS)
    assert line.startswith(
        "version 45, training, 90 updates (0.78/s), mean staleness 1.50, fedbuff, K = 2, goal: until"
    )
    assert each == "100 B an update"
    _, line, _ = run_text(presence.model_copy(update={"state": "offline"}), PROGRESS)
    assert line.startswith("version 45, when last shown, 90 updates, mean staleness 1.50, fedbuff, K = 2, goal: until")
    _, line, _ = run_text(
        presence.model_copy(update={"state": "offline"}), PROGRESS.model_copy(update={"state": "finished"})
    )
    assert line.startswith("version 45, finished, 90 updates, ")


def test_nobodys_text_becomes_a_line_of_its_own_or_reaches_the_terminal() -> None:
    evil = "x\n\r\x1b[2Kdev-1  online   training   12\u2028in quarantine: dev-3\x1b]0;a\x07"
    device = DEVICE.model_copy(update={"detail": evil, "task_version": evil, "metrics": {evil: 1.0}})
    table = list(clients_table({"dev-2": device}))
    honest = list(clients_table({"dev-2": DEVICE}))
    assert len(table) == len(honest)
    assert table[1].startswith(honest[1] + "  x \\x1b[2Kdev-1 online training 12 in quarantine: dev-3")
    presence = AggregatorPresence(state="online", run=RUN, incarnation="d" * 32, version=45, detail=evil)
    mean = DeviceEvaluation(clients=1, num_samples=1, mean={evil: 1.0}, spread={})
    said = {"strategy": evil, "goal": evil, "limits": evil, "waits": evil, "devices": mean, "aggregator": {evil: 1.0}}
    run = list(run_text(presence, PROGRESS.model_copy(update=said)))
    assert len(run) == 8
    one = client_text(device).split("\n")
    assert len(one) == len(client_text(DEVICE).split("\n")) + 1  # the detail
    assert all(line.isprintable() for line in [*table, *run, *one, failed("dev-2", evil)])
