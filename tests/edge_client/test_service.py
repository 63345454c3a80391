"""The client's loop at a broker in memory, the aggregator's part played by hand."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import get_args

import numpy as np
import pytest

from fedmq.edge_client.core import ClientCore
from fedmq.edge_client.fetch import Fetch
from fedmq.edge_client.job import Made
from fedmq.edge_client.meter import Meter
from fedmq.edge_client.outbox import Outbox
from fedmq.edge_client.runner import Job
from fedmq.edge_client.service import ClientService
from fedmq.edge_client.training import NumpyTrainer
from fedmq.schemas.errors import LaterReason, ProtocolError, Reason
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import (
    Head,
    Later,
    LayoutNotice,
    Missing,
    Offer,
    Receipt,
    Reply,
    SnapshotPart,
    UpdateId,
)
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.tasks.contract import Arrays, Trained
from fedmq.transport.link import Disconnected, Message
from fedmq.transport.memory import MemoryBroker
from tests.edge_client.words import DIGEST, RUN, offline, online

TOPICS = Topics("f")
LAYOUT = Layout((Entry("w", (1,)),))
_NOON = 20_000.5 * 86_400


class JobsByHand:
    """A runner whose job is done when `finished` is set."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.finished = False

    def start(self, job: Job) -> None:
        self.job, self.finished = job, False

    def take(self) -> Made | None:
        if self.job is None or not self.finished:
            return None
        job, self.job = self.job, None
        return job()


class Device:
    """A client that takes the announced layout, and what the aggregator gets of it. It is noon when it starts.

    Attributes:
        weights: what each training began with.
        offers: those that arrived.
        plan: of what is published.

    """

    def __init__(self, daily_uplink: int | None = None) -> None:
        self.broker = MemoryBroker()
        self.outbox = Outbox(None)
        self.weights: list[float] = []
        self.offers: list[Offer] = []
        self.plan = Plan()
        self._jobs = JobsByHand()
        self._link = self.broker.link("dev")
        self._aggregator = self.broker.link("aggregator")
        self.service = ClientService(
            link=self._link,
            topics=TOPICS,
            client_id="dev",
            core=ClientCore("e" * 32, random.Random(0), []),
            incarnation="e" * 32,
            outbox=self.outbox,
            training=NumpyTrainer(self._train, "1"),
            runner=self._jobs,
            fetch=Fetch(self._link, TOPICS, "dev", None, 8),
            meter=Meter(
                lambda: self._link.carried, self.outbox, daily_uplink, wall=lambda: self.broker.time.now + _NOON
            ),
            clock=lambda: self.broker.time.now,
        )
        self._aggregator.open()
        self._aggregator.subscribe(TOPICS.update("dev"))
        self.say(TOPICS.aggregator, encode(online()))
        self.say(TOPICS.layout, encode(LayoutNotice(run=RUN, digest=LAYOUT.digest), LAYOUT.encoded))
        self._link.open()
        self.wait(0.1)

    def _train(self, weights: Arrays, plan: Plan) -> Trained:
        self.weights.append(float(weights["w"][0]))
        return Trained({"w": weights["w"] + 1}, 1)

    def say(self, topic: str, payload: bytes) -> None:
        """As the aggregator, retained."""
        assert self._aggregator.publish(topic, payload, retain=True)

    def snapshot(self, version: int) -> None:
        """Publish weights that are the version's number."""
        body = np.full(LAYOUT.size, version, "<f4").tobytes()
        digest = hashlib.sha256(body).hexdigest()
        head = Head(
            run=RUN,
            version=version,
            plan=self.plan,
            layout=LAYOUT.digest,
            codec="float32",
            size=len(body),
            digest=digest,
        )
        self.say(TOPICS.model, encode(head, body))

    def announce(self, version: int, parts: int) -> None:
        """Publish the head of a model in parts of 4,096 bytes; `part` publishes one of them."""
        head = Head(
            run=RUN, version=version, plan=self.plan, layout=LAYOUT.digest, codec="float32", size=4096 * parts,
            digest=DIGEST, slot=0, part_bytes=4096,
        )  # fmt: skip
        self.say(TOPICS.model, encode(head))

    def part(self, version: int, part: int) -> None:
        self.say(TOPICS.part(0, part), encode(SnapshotPart(run=RUN, version=version), bytes(4096)))

    def lacks(self, update: UpdateId, start: int, end: int) -> None:
        """Say that these bytes of an update in parts are missing."""
        missing = Missing(update=update, ranges=((start, end),), window=8, heard=1000)
        self.say(TOPICS.reply("dev"), encode(Reply(run=RUN, incarnation="1" * 32, missing=(missing,))))
        self.wait(0.1)

    def reject(self, update: UpdateId, reason: Reason, times: int = 1) -> None:
        receipt = Receipt(update=update, verdict="rejected", reason=reason)
        self.say(TOPICS.reply("dev"), encode(Reply(run=RUN, incarnation="1" * 32, receipts=(receipt,) * times)))
        self.wait(0.1)

    def put_off(self, update: UpdateId, reason: LaterReason) -> None:
        later = Later(update=update, reason=reason, seconds=300.0)
        self.say(TOPICS.reply("dev"), encode(Reply(run=RUN, incarnation="1" * 32, later=(later,))))
        self.wait(0.1)

    def accept(self, update: UpdateId) -> None:
        receipt = Receipt(update=update, verdict="accepted", version=0, staleness=0)
        self.say(TOPICS.reply("dev"), encode(Reply(run=RUN, incarnation="1" * 32, receipts=(receipt,))))
        self.wait(0.1)

    @property
    def sent(self) -> int:
        """Bytes."""
        return self._link.carried[0]

    @property
    def received(self) -> int:
        """Bytes."""
        return self._link.carried[1]

    def finish_job(self, *, if_any: bool = False) -> None:
        if if_any and self._jobs.job is None:
            return
        assert self._jobs.job is not None
        self._jobs.finished = True
        self.service.tick()
        self.wait(0.1)

    def wait(self, seconds: float) -> None:
        """Let virtual time pass."""
        until = self.broker.time.now + seconds
        while self.broker.time.now < until and self.service.stopped is None:
            due = self.service.deadline()
            self.broker.time.step(until if due is None else min(due, until))
            while self._link.waiting:
                event = self._link.poll(0.0)
                assert event is not None
                self.service.handle(event)
            while self._aggregator.waiting:
                event = self._aggregator.poll(0.0)
                if isinstance(event, Message):
                    with suppress(ProtocolError):  # a part, or what is needed
                        self.offers.append(decode(event.payload, Offer)[0])
            self.service.tick()


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.outbox.close()


def test_an_old_head_does_not_leave_its_weights_for_the_next_training(device: Device) -> None:
    device.snapshot(9)
    device.wait(0.1)
    device.finish_job()
    device.accept(device.offers[0].update)
    device.snapshot(2)  # what a broker that came back from an old disk keeps
    device.wait(60.0)
    device.finish_job()
    assert [offer.base_version for offer in device.offers[:2]] == [9, 9]
    assert device.weights == [9.0, 9.0]


def test_a_head_that_arrives_while_it_trains_does_not_leave_its_weights_for_the_next_training(device: Device) -> None:
    device.snapshot(8)
    device.wait(0.1)
    device.finish_job()
    device.wait(2.5)  # until it is subscribed again
    device.snapshot(9)
    device.snapshot(10)  # on its way before the device can unsubscribe
    device.wait(0.1)
    device.broker.stop()
    device.finish_job()
    device.wait(60.0)
    device.finish_job()
    assert [offer.base_version for offer in device.outbox.pending()] == [8, 9, 9]
    assert device.weights == [8.0, 9.0, 9.0]

    device.broker.start()
    device.wait(1.0)
    device.finish_job()
    assert device.outbox.pending()[-1].base_version == 10
    assert device.weights == [8.0, 9.0, 9.0, 10.0]


def test_an_id_that_is_reused_twice_in_one_reply_becomes_one_new_id(device: Device) -> None:
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    [first] = device.offers
    device.reject(first.update, "id_reused", times=2)
    device.reject(first.update, "id_reused")
    device.wait(2.0)
    ids = {offer.update for offer in device.offers} - {first.update}
    assert ids == {device.outbox.offer(0).update}


@pytest.mark.parametrize("reason", sorted(set(get_args(Reason)) - {"id_reused"}))
def test_only_what_says_nothing_of_an_updates_content_is_put_back(
    device: Device, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    delete, returned = device.outbox.delete, []

    def deleting(sequence: int, *, forgotten: bool, returns: bool) -> None:
        returned.append(returns)
        delete(sequence, forgotten=forgotten, returns=returns)

    monkeypatch.setattr(device.outbox, "delete", deleting)
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    [first] = device.offers
    device.reject(first.update, reason)
    assert returned == [reason in ("internal", "malformed", "too_large")]


def test_an_expired_update_is_gone_and_the_next_has_a_new_outbox_id(device: Device) -> None:
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    [first] = device.offers
    device.reject(first.update, "expired")
    assert device.outbox.pending() == []
    device.wait(60.0)
    device.finish_job()
    [second] = device.outbox.pending()
    assert second.update.outbox_id != first.update.outbox_id
    assert [offer.update for offer in device.offers] == [first.update, second.update]


def test_a_device_that_hears_of_no_model_says_so_once_and_not_when_there_is_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = Device()
    device.wait(10.0)
    said = [record for record in caplog.records if "no model in federation 'f' yet" in record.getMessage()]
    assert len(said) == 1
    assert "no model in federation 'f' yet" in device.service.complaint
    caplog.clear()
    other = Device()
    other.snapshot(1)
    other.wait(10.0)
    assert not [record for record in caplog.records if "no model in federation" in record.getMessage()]


def test_a_device_that_receives_its_first_model_does_not_say_that_there_is_none_but_how_far_it_is(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    device.announce(28, parts=3)
    device.wait(0.5)
    assert device.service.complaint == "receiving version 28: 0.0 of 12.3 kB"
    device.part(28, 0)
    device.wait(6.0)
    assert device.service.complaint == "receiving version 28: 4.1 of 12.3 kB"
    device.announce(29, parts=3)  # no reason to begin again
    device.part(28, 1)
    device.part(28, 2)
    device.wait(1.0)
    lines = [record.getMessage() for record in caplog.records]
    assert "receiving client=dev version=28 bytes=12288" in lines
    assert "received client=dev version=28 bytes=12288" in lines
    assert not [line for line in lines if "version=29" in line or "no model" in line]


def test_without_a_model_it_says_that_the_aggregator_is_offline_if_it_is_until_a_model_comes(device: Device) -> None:
    device.say(TOPICS.aggregator, encode(offline()))
    device.wait(10.0)
    assert device.service.complaint == "no model in federation 'f' yet; its aggregator is offline"
    device.announce(1, parts=2)
    device.wait(1.0)
    assert device.service.complaint == "receiving version 1: 0.0 of 8.19 kB"


def test_without_a_model_it_says_that_somebody_has_written_over_it(device: Device) -> None:
    device.say(TOPICS.aggregator, encode(online()))
    device.say(TOPICS.model, b"bad")
    device.wait(10.0)
    assert "no model in federation 'f' yet: somebody has written over it (the header is" in device.service.complaint
    assert "or the next start of the aggregator" in device.service.complaint


def test_without_a_model_it_says_how_many_messages_of_the_aggregator_were_refused(device: Device) -> None:
    for _ in range(3):
        device.service.refused(TOPICS.model, "it is not signed with a known key of the aggregator")
    device.service.refused(TOPICS.status("dev"), "it is not signed")
    device.wait(10.0)
    assert device.service.complaint == (
        "no model in federation 'f' yet: 3 messages of its aggregator refused, the last because it is not signed with a"
        " known key of the aggregator; is signing.aggregator_keys_file the federation's of now?"
    )


def test_how_far_an_update_in_parts_is_is_in_the_status_and_its_beginning_in_the_log(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    [made] = device.offers
    device.service._core.offers.part_bytes = 2  # as in a broker of very small messages
    device.lacks(made.update, 0, made.size)
    device.wait(0.5)
    assert device.service.complaint == f"sending update 0: 0 of {made.size} B"
    assert f"sending client=dev sequence=0 bytes={made.size} parts={-(-made.size // 2)}" in caplog.messages
    device.accept(made.update)
    device.wait(0.1)
    assert device.service.complaint == ""


def test_a_device_whose_messages_lead_nowhere_says_so_once_and_no_more_when_they_do(
    device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with MQTT 3.1.1, where a broker takes what it does not pass on."""
    device.wait(60.0)
    assert device.service.complaint == "" or "no model" in device.service.complaint
    with monkeypatch.context() as patched:
        patched.setattr(device._link, "publish", lambda *_, **__: True)
        device.snapshot(0)
        device.wait(200.0)
        assert "what this device sends to fedmq/f/status/dev does not come back" in device.service.complaint
        assert "'dev' the id that this login is for" in device.service.complaint
        assert sum("unheard client=dev" in line for line in caplog.messages) <= 3
    device.finish_job()
    device.wait(1.0)
    assert device.service.complaint == ""


def test_a_device_that_the_aggregator_never_answers_says_so_until_it_does(device: Device) -> None:
    """As when it is signed with a key that the aggregator does not know."""
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    device.wait(100.0)
    assert device.service.complaint == ""
    device.wait(100.0)
    assert "the aggregator is online and answers nothing that this device sends" in device.service.complaint
    device.accept(device.offers[-1].update)
    device.wait(1.0)
    assert device.service.complaint == ""


def test_of_an_aggregator_that_is_gone_no_answer_is_missed(device: Device) -> None:
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    device.say(TOPICS.aggregator, encode(offline()))
    device.wait(500.0)
    assert device.service.complaint == ""


@pytest.mark.parametrize("refused", [True, False])
def test_a_login_that_is_not_taken_names_the_way_out(
    device: Device, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    device.service.handle(Disconnected("the broker at b:1 says no", login_refused=refused))
    assert "the broker at b:1 says no" in caplog.messages[-1]
    assert ("ask its operator for a new bundle" in caplog.messages[-1]) == refused


@pytest.mark.parametrize(
    ("reason", "level", "says"),
    [
        ("quarantine", "WARNING", "the operator ends it with `fedmq release dev` on the aggregator's machine"),
        ("quota", "INFO", "the aggregator takes no more updates of this device today"),
    ],
)
def test_a_device_that_is_put_off_for_long_says_so_once_and_shows_it_as_long_as_it_is_so(
    device: Device, caplog: pytest.LogCaptureFixture, reason: LaterReason, level: str, says: str
) -> None:
    caplog.set_level(logging.INFO, "fedmq")
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    device.put_off(device.offers[-1].update, reason)
    assert says in device.service.complaint
    device.snapshot(1)
    device.wait(3.0)
    device.finish_job()  # a training's end takes other complaints back
    device.wait(1.0)
    assert says in device.service.complaint
    device.put_off(device.offers[-1].update, reason)
    said = [line for line in caplog.records if f"waiting client=dev reason={reason}" in line.getMessage()]
    assert [line.levelname for line in said] == [level]
    assert says in said[0].getMessage()
    for update in {offer.update.sequence: offer.update for offer in device.offers}.values():
        device.accept(update)
    assert device.service.complaint == ""
    assert sum("heard again client=dev" in line for line in caplog.messages) == 1


def about_updates(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith(("trained ", "accepted "))]


def made_and_accepted(device: Device, version: int) -> None:
    device.snapshot(version)
    device.wait(0.01)
    device.finish_job()
    device.accept(device.offers[-1].update)
    device.wait(0.02)


def test_of_many_updates_a_second_one_line_is_written_with_how_many_were_left_out(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fedmq")
    for version in range(4):
        made_and_accepted(device, version)
    assert len(lines := about_updates(caplog)) == 1
    assert lines[0].startswith("accepted client=dev sequence=0 version=")
    device.wait(1.0)
    made_and_accepted(device, 4)
    assert len(lines := about_updates(caplog)) == 2
    assert lines[1].startswith("accepted client=dev sequence=4 version=")
    assert lines[1].endswith(" left_out=3")
    caplog.clear()
    caplog.set_level("DEBUG", "fedmq")
    for version in range(5, 8):
        made_and_accepted(device, version)
    assert len(about_updates(caplog)) == 6


def test_an_update_that_nobody_takes_for_now_has_its_line_when_it_is_made(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fedmq")
    device.say(TOPICS.aggregator, encode(offline()))
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    assert about_updates(caplog) == ["trained client=dev version=0 sequence=0"]


def trained_in(device: Device, seconds: float, *, refused: bool = False) -> int:
    """How many trainings end within this time, while a broker that refuses the login is asked once a minute."""
    before = len(device.weights)
    for second in range(int(seconds)):
        if refused and second % 60 == 0:
            device.service.handle(Disconnected("the broker at b:1 says no", login_refused=True))
        device.finish_job(if_any=True)
        device.wait(1.0)
    return len(device.weights) - before


@pytest.mark.parametrize("refused", [True, False])
def test_a_device_whose_login_is_not_taken_trains_no_more_after_ten_minutes_until_it_is(refused: bool) -> None:
    device = Device()
    device.plan = Plan(retrain_after=10.0, continuous=True)
    device.snapshot(0)
    device.wait(0.1)
    device._link.close()
    device.service.handle(Disconnected("the broker at b:1 says no", login_refused=refused))
    assert trained_in(device, 600.0, refused=refused) > 3
    assert (trained_in(device, 20_000.0, refused=refused) == 0) == refused
    deadline = device.service.deadline()
    assert deadline is None or deadline > device.broker.time.now, "it does not wake up again and again"
    device._link.open()
    device.wait(0.1)
    assert trained_in(device, 20.0) >= 1


def test_a_device_that_was_turned_away_once_and_has_no_network_then_trains_on() -> None:
    device = Device()
    device.plan = Plan(retrain_after=10.0, continuous=True)
    device.snapshot(0)
    device.wait(0.1)
    device._link.close()
    assert trained_in(device, 900.0, refused=True) > 3
    assert trained_in(device, 20_000.0) > 3


def test_a_device_that_was_taken_out_of_the_federation_ends_and_says_what_to_do(device: Device) -> None:
    device.snapshot(0)
    device.wait(0.1)
    device.finish_job()
    device.reject(device.offers[-1].update, "revoked")
    assert device.service.stopped is not None
    assert device.service.stopped.code == 2
    assert "ask its operator for a new bundle" in device.service.stopped.why
    assert device.outbox.pending() == [], "it has its verdict"
