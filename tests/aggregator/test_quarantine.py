"""Who is not listened to: for what, for how long, what that means, and what never brings anybody there."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.export import read_figures
from fedmq.aggregator.quarantine import HALF_LIFE_SECONDS, OFFENCES, Quarantine, QuarantineRule
from fedmq.aggregator.releases import Releases
from fedmq.aggregator.strategies import fedavg
from fedmq.schemas.messages import ClientStatus, Later, Missing, Need, Part
from fedmq.schemas.wire import encode
from fedmq.transport.link import Connected, Message
from tests.aggregator.door import CLIENT, LAYOUT, MOST_BYTES, TOPICS, VERSION, Door, header_of
from tests.aggregator.small_run import RUN, plain_fedbuff

AFTER = 5
RULE = QuarantineRule(AFTER, 3600.0)
RULES = Rules(RUN, LAYOUT, frozenset({""}), 10, Bound(norm=10.0), quarantine=RULE)

HOSTILE: dict[str, Callable[[Door], bytes]] = {
    "malformed, no header": lambda door: b"\xc1 rubbish",
    "malformed, a body that is no vector": lambda door: undecodable(door),
    "malformed, a body of another digest": lambda door: door.offer(digest="0" * 64),
    "schema": lambda door: msgpack.packb({"protocol": 1, "kind": "offer"}),
    "too_large": lambda door: door.offer() + bytes(MOST_BYTES),
    "too_large, announced": lambda door: door.offer(size=1 << 50),
    "wrong_client": lambda door: door.offer(client_id="bob"),
    "layout": lambda door: door.offer(layout="0" * 64),
    "not_finite": lambda door: door.offer(float("nan")),
    "norm_bound": lambda door: door.offer(1e9),
}


def test_every_offence_is_tried_here() -> None:
    assert {name.partition(",")[0] for name in HOSTILE} == OFFENCES


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/robustness.md"])
def test_the_documents_say_what_counts(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    paragraphs = [set(re.findall(r"`(\w+)`", paragraph)) for paragraph in re.split(r"\n\n|What never|Offers,", text)]
    assert OFFENCES in paragraphs


def undecodable(door: Door) -> bytes:
    """An update whose header is true of its body, and whose codec makes nothing of it."""
    body = bytes(3)
    return encode(header_of(door.offer(size=len(body), digest=hashlib.sha256(body).hexdigest())), body)


# What has no header has no signature, so where messages are signed it is nobody's: see below.
TRIED = [(name, signed) for signed in (False, True) for name in HOSTILE if not (signed and name.endswith("no header"))]


@pytest.mark.parametrize(("name", "signed"), TRIED)
def test_whoever_does_it_again_and_again_is_not_listened_to(tmp_path: Path, name: str, signed: bool) -> None:
    door, reason = Door(tmp_path, RULES, signed=signed), name.partition(",")[0]
    for _ in range(AFTER - 1):
        door.say(HOSTILE[name](door))
    assert door.ask(door.offer()) is None
    door.say(HOSTILE[name](door))
    door.answers.clear()
    offer = door.offer()
    door.say(offer)
    (answer,) = door.answers
    assert isinstance(answer, Later)
    assert (answer.reason, answer.update) == ("quarantine", header_of(offer).update)
    assert answer.seconds == 300.0
    assert door.state.rejected[reason] == AFTER  # type: ignore[index]
    (shown,) = door.progress().quarantine
    assert (shown.client_id, shown.reason, shown.until - shown.since) == (CLIENT, reason, 3600)


INNOCENT: dict[str, Callable[[Door], bytes]] = {
    "offers without bytes": lambda door: encode(header_of(door.offer())),
    "stale": lambda door: door.offer(base_version=VERSION - 11),
    "of the future": lambda door: door.offer(base_version=VERSION + 99),
    "of another run": lambda door: door.offer(run="f" * 32),
    "of another task": lambda door: door.offer(task_version="old"),
    "need": lambda door: encode(Need(run=RUN, version=3, parts=(1, 2))),
    "parts of nothing": lambda door: encode(
        Part(run=RUN, update=header_of(door.offer()).update, digest="0" * 64, offset=0, number=1), bytes(100)
    ),
    "a slot that is taken": lambda door: door.offer(),
    "duplicates": lambda door: door.offer(),
    "duplicates of what was refused": lambda door: door.offer(float("nan")),
    "ids that were used": lambda door: door.offer(sequence=1),
}


@pytest.mark.parametrize("name", INNOCENT)
def test_time_and_settings_never_count(tmp_path: Path, name: str) -> None:
    strategy = plain_fedbuff(9, one_per_client=name == "a slot that is taken")
    door = Door(tmp_path, RULES, strategy=strategy)
    first = INNOCENT[name](door)
    for number in range(5 * AFTER):
        door.say(first if name.startswith("duplicates") else INNOCENT[name](door), seconds=0.1)
        if name == "ids that were used" and not number:
            assert door.state.accepted == 1
    assert door.state.quarantine.held == {}
    assert door.state.quarantine.suspects.get(CLIENT, (0,))[0] <= 1.0


def test_what_is_late_or_too_often_never_counts(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT, allowance=Allowance(1.0, 3), quarantine=RULE))
    for _ in range(5 * AFTER):
        door.say(door.offer(), seconds=0.1)
    door.core.finish("done", door.broker.time.now)
    offer = door.offer()
    door.client.publish(TOPICS.update(CLIENT), offer)
    door.work()
    assert door.state.quarantine.suspects == {}


def test_what_somebody_else_may_have_sent_never_counts_where_messages_are_signed(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES, signed=True)
    for _ in range(5 * AFTER):
        for payload in (door.offer(float("nan")), b"\xc1", door.offer(layout="0" * 64), b""):
            door.client.publish(TOPICS.update(CLIENT), payload)
        door.work(0.1)
    assert door.state.rejected == {"signature": 15 * AFTER}
    assert door.state.quarantine.suspects == {}
    assert door.ask(door.offer()) is None


def test_it_is_for_signed_messages_by_default() -> None:
    assert AggregatorSettings().quarantine(signed=False) is None
    assert AggregatorSettings().quarantine(signed=True) == QuarantineRule(20, 3600.0)
    assert AggregatorSettings(quarantine_after=0).quarantine(signed=True) is None
    assert AggregatorSettings(quarantine_after=3, quarantine_seconds=9).quarantine(signed=False) == QuarantineRule(3, 9)


def test_half_of_it_is_forgotten_in_ten_minutes() -> None:
    quarantine = Quarantine()
    assert not any(quarantine.offence(RULE, "mallory", "layout", 0.0) for _ in range(4))
    assert not any(quarantine.offence(RULE, "mallory", "layout", HALF_LIFE_SECONDS) for _ in range(2))
    assert quarantine.suspects["mallory"][0] == 4.0
    assert quarantine.offence(RULE, "mallory", "layout", HALF_LIFE_SECONDS)
    now = 10 * HALF_LIFE_SECONDS
    assert quarantine.over(now) == ["mallory"]
    assert quarantine.suspects == {}
    # Once in ten minutes never suffices.
    assert not any(quarantine.offence(RULE, "mallory", "layout", now + n * HALF_LIFE_SECONDS) for n in range(1000))


def test_what_is_remembered_is_bounded() -> None:
    quarantine = Quarantine()
    for number in range(2000):
        quarantine.offence(RULE, f"suspect-{number}", "layout", 0.0)
        quarantine.offence(RULE, f"held-{number}", "layout", 0.0, times=99)
    assert len(quarantine.suspects) == len(quarantine.held) == 256


def test_of_a_fleet_that_does_wrong_in_turn_as_many_come_to_quarantine_as_are_remembered() -> None:
    quarantine = Quarantine()
    for turn in range(2 * AFTER):
        for number in range(300):
            quarantine.offence(RULE, f"broken-{number}", "layout", float(turn))
    assert len(quarantine.held) == 256
    # And who did most is not forgotten for those who did less.
    quarantine = Quarantine()
    for _ in range(AFTER - 1):
        quarantine.offence(RULE, "mallory", "layout", 0.0)
    for number in range(1000):
        quarantine.offence(RULE, f"made-up-{number}", "layout", 0.0)
    assert quarantine.offence(RULE, "mallory", "layout", 0.0)


def hostile(door: Door, times: int = AFTER) -> None:
    for _ in range(times):
        door.say(door.offer(float("nan")))


def test_in_quarantine_nothing_is_decoded_and_answers_are_few(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(tmp_path, RULES)
    hostile(door)
    door.answers.clear()
    with caplog.at_level(logging.INFO, "fedmq"):
        caplog.clear()
        for _ in range(20):
            door.say(*(door.offer(float("nan")) for _ in range(50)), seconds=0.1)
        door.say(b"\xc1", encode(Need(run=RUN, version=1)), door.offer() + bytes(MOST_BYTES))
    assert ["not read client=dev-1 reason=quarantine" in line for line in caplog.text.splitlines()] == [True]
    assert all(isinstance(answer, Later) and answer.reason == "quarantine" for answer in door.answers)
    assert len(door.answers) <= 14
    assert door.state.rejected == {"not_finite": AFTER}
    assert door.state.later["quarantine"] == 20 * 50 + 3
    assert door.state.accepted == 0


def test_nothing_is_said_to_it_until_the_aggregator_knows_that_it_may_work(tmp_path: Path) -> None:
    """It may be an older copy; and who has heard an aggregator's later start heeds no earlier one."""
    door = Door(tmp_path, RULES)
    hostile(door)
    door.answers.clear()
    door.service.handle(Connected())
    door.service.handle(Message(TOPICS.update(CLIENT), door.offer()))
    door.work(2.0)
    assert door.answers == []
    door.say(door.offer())
    assert [answer.reason for answer in door.answers if isinstance(answer, Later)] == ["quarantine"]


def test_more_than_are_remembered_may_come_at_once(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES)
    for number in range(300):
        for _ in range(AFTER):
            door.service.handle(Message(TOPICS.update(f"dev-{number}"), b"\xc1"))
    door.service.tick()
    assert list(door.state.quarantine.held) == [f"dev-{number}" for number in range(300 - 256, 300)]


def test_what_could_not_be_read_before_a_stop_is_in_its_last_commit(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES, stored=True)
    for payload in (door.offer(), b"\xc1"):
        door.service.handle(Message(TOPICS.update(CLIENT), payload))
    door.end()
    again = Door(tmp_path, RULES, stored=True)
    assert (again.state.accepted, again.state.rejected) == (1, {"malformed": 1})
    again.end()


def test_what_is_half_here_of_its_updates_goes(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES)
    door.say(encode(header_of(door.offer(size=16, number=0))))
    (missing,) = door.answers
    assert isinstance(missing, Missing)
    transfers = door.service._reception._transfers
    assert transfers is not None
    assert list(transfers._coming) == [CLIENT]
    hostile(door)
    assert list(transfers._coming) == []
    assert list(door.parts.glob("*")) == []


def test_no_round_waits_for_it(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES, strategy=fedavg(clients=2))
    status = encode(ClientStatus(state="online", client_id=CLIENT, incarnation="c" * 32))
    door.say(status, topic=TOPICS.status(CLIENT))
    assert door.core.cohort.online == {CLIENT}
    for _ in range(AFTER):
        door.say(b"\xc1")
    assert door.core.cohort.online == set()
    door.say(status, topic=TOPICS.status(CLIENT))
    assert door.core.cohort.online == set()


@pytest.mark.parametrize(("last", "online"), [("online", {CLIENT}), ("offline", set())])
def test_after_its_end_a_round_has_it_if_it_is_there(tmp_path: Path, last: str, online: set[str]) -> None:
    door = Door(tmp_path, RULES, strategy=fedavg(clients=2))
    for state in ("online", last):
        status = ClientStatus.model_validate({"state": state, "client_id": CLIENT, "incarnation": "c" * 32})
        door.client.publish(TOPICS.status(CLIENT), encode(status), retain=True)
        if state == "online":
            door.work()
            hostile(door)
    assert door.core.cohort.online == set()
    door.work(3700.0)
    assert door.core.cohort.online == online


def test_it_ends_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(tmp_path, RULES)
    hostile(door)
    door.work(3500.0)
    assert door.ask(door.offer()) == "quarantine"
    door.work(150.0)
    assert "quarantine ended client=dev-1 why='its time is over'" in caplog.text
    assert door.ask(door.offer()) is None
    assert door.progress().quarantine == ()
    hostile(door, AFTER - 1)
    assert door.ask(door.offer()) is None


def test_it_outlives_a_restart_and_so_does_what_led_to_it(tmp_path: Path) -> None:
    first = Door(tmp_path, RULES, stored=True)
    hostile(first, AFTER - 1)
    first.end()
    second = Door(tmp_path, RULES, stored=True)
    assert second.state.quarantine.suspects[CLIENT][0] == pytest.approx(AFTER - 1, rel=0.01)
    second._sequence = AFTER
    hostile(second, 1)
    assert second.ask(second.offer()) == "quarantine"
    held = second.state.quarantine.held
    # Nothing but the commit that followed at once is on the disk.
    assert second.store is not None
    second.store.close()
    third = Door(tmp_path, RULES, stored=True)
    assert third.state.quarantine.held == held
    assert third.ask(third.offer(sequence=90)) == "quarantine"
    third.end()


def test_somebody_lets_a_client_out(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES, stored=True)
    hostile(door)
    assert list(read_figures(tmp_path / "run")["quarantine"]["held"]) == [CLIENT]
    releases = Releases(tmp_path / "run")
    wish, other = releases.ask(CLIENT), releases.ask("somebody-else")
    (tmp_path / "run" / "release" / "no id.").touch()
    door.work(2.0)
    assert not wish.exists()
    assert not other.exists()
    assert read_figures(tmp_path / "run")["quarantine"] == {"held": {}, "suspects": {}}
    assert door.ask(door.offer()) is None
    door.end()


@pytest.mark.parametrize("how", ["its time is over", "somebody releases it"])
def test_whoever_was_put_off_is_told_once_to_offer_again_when_it_is_over(tmp_path: Path, how: str) -> None:
    door = Door(tmp_path, RULES, stored=True)
    hostile(door)
    offer = door.offer()
    assert door.ask(offer) == "quarantine"
    counted = door.state.later["quarantine"]
    door.answers.clear()
    if how == "its time is over":
        door.work(3700.0)
    else:
        Releases(tmp_path / "run").ask(CLIENT)
        door.work(2.0)
    (told,) = door.answers
    assert isinstance(told, Later)
    assert (told.update, told.reason, told.seconds) == (header_of(offer).update, "quarantine", 1.0)
    assert door.state.later["quarantine"] == counted, "nothing was offered"
    assert door.ask(offer) is None
    door.end()


def test_a_wish_waits_for_an_aggregator(tmp_path: Path) -> None:
    door = Door(tmp_path, RULES, stored=True)
    hostile(door)
    door.end()
    wish = Releases(tmp_path / "run").ask(CLIENT)
    again = Door(tmp_path, RULES, stored=True)
    again.work(2.0)
    assert not wish.exists()
    assert again.ask(again.offer(sequence=50)) is None
    again.end()
