"""What was true once and is repeated: by a broker that keeps everything that it has ever carried."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest

from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.messages import ClientStatus, Offer
from fedmq.schemas.signing import AGGREGATOR, author, sealed
from fedmq.schemas.wire import decode, pack, split
from fedmq.session import AtWork
from fedmq.transport.link import Message
from tests.security.signed_world import DEVICES, PRIVATE, TOPICS, HostileBroker, World

RUN, NEXT_RUN = "a" * 32, "b" * 32
SHOWN = (TOPICS.aggregator, TOPICS.model, TOPICS.progress)


def shown(broker: HostileBroker) -> list[Message]:
    """Everything that aggregators have ever shown."""
    return [message for message in broker.seen if message.topic in SHOWN]


def forged(messages: Iterable[Message]) -> list[Message]:
    """The same without a signature, and with that of a stranger and of a device."""
    made = []
    for message in messages:
        fields, end = split(memoryview(message.payload))
        del fields["session"], fields["signature"]
        plain = pack(fields, memoryview(message.payload)[end:])
        made.append(Message(message.topic, plain))
        for name in ("stranger", "dev-1"):
            made.append(Message(message.topic, sealed(message.topic, plain, 1 << 60, PRIVATE[name].sign)))
    return made


def work(world: World, versions: int = 3, seconds: float = 300.0) -> bool:
    goal = world.core.state.version + versions
    return world.run(lambda: world.core.state.version >= goal, seconds)


@pytest.fixture
def second() -> World:
    """A run that took the place of another."""
    broker = HostileBroker()
    first = World(broker, RUN, 1)
    assert work(first)
    first.end()
    broker.retained.clear()
    world = World(broker, NEXT_RUN, 2, first.outboxes, replaces=frozenset())
    assert work(world)
    return world


def test_an_earlier_start_ends_those_only_that_have_heard_of_no_later_one() -> None:
    broker = HostileBroker()
    first = World(broker, RUN, 1)
    assert work(first)
    first.core.finish("enough", broker.time.now)
    assert first.run(lambda: all(client.stopped for client in first.clients.values()))
    first.end()
    finished = [message for message in broker.seen if message.topic == TOPICS.model][-1]
    broker.retained.clear()
    broker.plant(finished)

    def held_back(message: Message) -> list[Message]:
        if message.topic == TOPICS.model:
            return [finished]
        heard_by_devices = author(TOPICS, message.topic) == AGGREGATOR and message.topic not in SHOWN
        return [] if heard_by_devices else [message]

    broker.attack = held_back
    second = World(broker, NEXT_RUN, 2, first.outboxes)
    assert second.run(lambda: all(client.stopped for client in second.clients.values()))
    assert {client.stopped.code for client in second.clients.values() if client.stopped} == {0}
    # What SECURITY.md says to do: they are started again, and hear the later one once.
    second.run(lambda: False, seconds=10.0)
    models = [message for message in broker.seen if message.topic in (TOPICS.model, TOPICS.layout)]
    broker.attack = lambda message: [message]
    broker.plant(*models)
    for name in DEVICES:
        second.start_again(name)
    assert work(second)
    broker.attack = lambda message: [message, *held_back(message)]
    for name in DEVICES:
        second.start_again(name)
        broker.plant(finished)
    assert work(second)
    assert [client.stopped for client in second.clients.values()] == [None, None]


def test_an_aggregator_at_work_is_not_stopped_by_what_was_shown_before_it_or_never(second: World) -> None:
    broker, old = second.broker, [message for message in shown(second.broker) if _run(message) == RUN]
    broker.plant(*old, *forged(shown(broker)))
    second.run(lambda: False, seconds=2.0)
    for message in [*old[-12:], *forged(shown(broker)[-6:])]:
        second.cut(AGGREGATOR)
        broker.plant(message)
        second.run(lambda: False, seconds=3.0)
    assert second.aggregator.ended is None
    assert work(second)
    assert [client.stopped for client in second.clients.values()] == [None, None]


@pytest.mark.parametrize("kept", [True, False], ids=["the folder is there", "the folder is lost"])
def test_what_a_run_showed_that_was_replaced_keeps_an_aggregator_from_starting_only_without_its_folder(
    second: World, kept: bool
) -> None:
    second.end()
    second.broker.retained.clear()
    second.broker.plant(*(message for message in shown(second.broker) if _run(message) == RUN))
    at_work = second.at_work if kept else AtWork(None)
    third = World(
        second.broker, NEXT_RUN, 3, second.outboxes, at_work=at_work, replaces=frozenset(), state=second.core.state
    )
    assert work(third) is kept
    assert (third.aggregator.ended is None) is kept


def test_a_copy_is_still_kept_from_working(second: World) -> None:
    kept, state = AtWork(None), copy.deepcopy(second.core.state)
    kept.begin(2)
    assert work(second)
    second.end()
    third = World(second.broker, NEXT_RUN, 3, second.outboxes, at_work=kept, replaces=frozenset(), state=state)
    assert not work(third)
    assert third.aggregator.ended is not None
    assert "an older copy" in third.aggregator.ended.why


@pytest.mark.parametrize("names", [(AGGREGATOR,), DEVICES], ids=["aggregator", "devices"])
def test_a_last_will_of_those_who_live_is_contradicted(second: World, names: tuple[str, ...]) -> None:
    wills = [second.will_of(name) for name in names]
    second.resting = True  # so that no device has anything else to say
    second.run(lambda: False, seconds=5.0)
    for _ in range(2):
        second.broker.plant(*wills)
        second.run(lambda: False, seconds=11.0)
        for will in wills:
            said = split(memoryview(second.broker.retained[will.topic]))[0]
            assert said["state"] == "online"
    second.resting = False
    assert work(second)


def test_a_last_will_of_an_earlier_start_of_a_device_is_contradicted(second: World) -> None:
    old = [second.will_of(name) for name in DEVICES]
    second.end()
    third = World(second.broker, NEXT_RUN, 3, second.outboxes, at_work=second.at_work, state=second.core.state)
    assert work(third)
    third.resting = True
    third.run(lambda: False, seconds=5.0)
    for _ in range(2):
        second.broker.plant(*old)
        third.run(lambda: False, seconds=11.0)
        for will in old:
            assert decode(second.broker.retained[will.topic], ClientStatus)[0].state == "online"


def test_a_device_that_starts_again_has_nothing_to_complain_of(second: World, caplog: pytest.LogCaptureFixture) -> None:
    assert work(second)
    caplog.clear()
    second.start_again("dev-2")
    again = second.clients["dev-2"]
    assert second.run(lambda: again.accepted >= 2)
    assert again.complaint == ""
    assert not [line for line in caplog.messages if "refused" in line]


def test_the_last_will_of_an_earlier_aggregator_holds_nobody_back(second: World) -> None:
    old = second.will_of(AGGREGATOR)
    second.end()
    third = World(second.broker, NEXT_RUN, 3, second.outboxes, at_work=second.at_work, state=second.core.state)
    assert work(third)
    third.broker.attack = lambda message: [message, old]
    assert work(third, versions=20, seconds=20.0)


def test_offers_of_the_outboxes_that_a_device_had_before_cost_it_nothing_that_it_has_kept() -> None:
    """Its store was lost twice: that the aggregator remembers two outboxes only must not make a third one old."""
    broker = HostileBroker()
    world = World(broker, RUN, 1)
    assert work(world)
    for session in (2, 3):
        world.end()
        boxes = {**world.outboxes, "dev-1": Outbox(None)}
        world = World(broker, RUN, session, boxes, state=world.core.state, at_work=world.at_work)
        assert work(world)
    mine = TOPICS.update("dev-1")
    old: dict[str, Message] = {}
    for message in broker.seen:
        if message.topic == mine:
            old.setdefault(decode(message.payload, Offer)[0].update.outbox_id, message)
    assert len(old) == 3
    outbox, client = boxes["dev-1"], world.clients["dev-1"]
    world.end()
    broker.retained.clear()
    world = World(broker, NEXT_RUN, 4, world.outboxes, replaces=frozenset())  # its ledger knows no outbox
    assert work(world)
    broker.attack = lambda message: [] if message.topic == mine else [message]
    assert world.run(lambda: len(outbox.pending()) >= 2, 600.0)
    world.resting = True
    client = world.clients["dev-1"]
    accepted = client.accepted
    broker.attack = lambda message: [message]
    for message in old.values():
        broker.plant(message)
    assert world.run(lambda: not outbox.pending(), 300.0)
    assert client.accepted >= accepted + 2
    assert client.complaint == ""


def test_signing_is_turned_on_in_a_federation_at_work() -> None:
    broker = HostileBroker()
    plain = World(broker, RUN, 0, signing=())
    assert work(plain)
    backup = copy.deepcopy(plain.core.state)
    assert work(plain)
    plain.end()

    # What the run has shown without signatures keeps an old copy of it from working.
    old = World(broker, RUN, 1, plain.outboxes, state=backup, replaces=frozenset(), signing=(AGGREGATOR,))
    assert old.run(lambda: old.aggregator.ended is not None)
    assert old.aggregator.ended is not None
    assert "an older copy" in old.aggregator.ended.why
    old.end()

    # The aggregator signs first: devices without keys read what it says, but it does not hear them.
    half = World(broker, RUN, 2, plain.outboxes, state=plain.core.state, replaces=frozenset(), signing=(AGGREGATOR,))
    counted = half.accepted
    assert half.run(lambda: half.core.state.rejected["signature"] >= 6)
    assert half.accepted == counted
    half.end()

    whole = World(broker, RUN, 3, half.outboxes, state=half.core.state, replaces=frozenset(), at_work=half.at_work)
    assert work(whole, versions=12)
    assert whole.aggregator.ended is None
    assert [client.stopped for client in whole.clients.values()] == [None, None]
    assert whole.run(lambda: not any(box.pending() for box in whole.outboxes.values()))
    assert plain.trained + old.trained + half.trained + whole.trained == whole.accepted
    assert sum(client.rejected for client in whole.clients.values()) == 0


def test_once_it_was_let_in_with_signatures_an_aggregator_reads_nothing_without_them() -> None:
    broker = HostileBroker()
    first = World(broker, RUN, 1)
    assert work(first)
    first.end()
    for message in shown(broker):
        fields, end = split(memoryview(message.payload))
        del fields["session"], fields["signature"]
        broker.plant(Message(message.topic, pack(fields | {"run": NEXT_RUN}, memoryview(message.payload)[end:])))
    again = World(broker, RUN, 2, first.outboxes, state=first.core.state, at_work=first.at_work, replaces=frozenset())
    assert work(again)
    assert again.aggregator.ended is None


@pytest.mark.parametrize("topic", SHOWN)
def test_a_new_run_does_not_begin_beside_what_it_cannot_verify(topic: str) -> None:
    broker = HostileBroker()
    first = World(broker, RUN, 1)
    assert work(first)
    first.end()
    theirs = [one for one in forged(shown(broker)) if one.topic == topic and _signed(one)]
    broker.retained.clear()
    broker.plant(theirs[-1])
    second = World(broker, NEXT_RUN, 2, replaces=frozenset())
    assert not work(second)
    assert second.aggregator.ended is not None
    assert f"the broker shows on {topic} what is signed with no key" in second.aggregator.ended.why
    second.end()
    third = World(broker, NEXT_RUN, 3, replaces=None)
    assert work(third)
    # From then on, a broker can show whatever it likes.
    for message in theirs:
        third.cut(AGGREGATOR)
        broker.plant(message)
        third.run(lambda: False, seconds=3.0)
    assert work(third)
    third.end()
    state = third.core.state
    again = World(broker, NEXT_RUN, 4, third.outboxes, state=state, at_work=third.at_work, replaces=frozenset())
    broker.plant(theirs[-1])
    assert work(again)


@pytest.mark.parametrize("signing", [(), (AGGREGATOR, *DEVICES)], ids=["without keys", "with keys"])
def test_a_new_run_does_not_begin_beside_one_that_signs_or_not_as_it_does_not(signing: tuple[str, ...]) -> None:
    broker = HostileBroker()
    there = (AGGREGATOR, *DEVICES) if not signing else ()
    first = World(broker, RUN, 1, signing=there)
    assert work(first)
    first.end()
    second = World(broker, NEXT_RUN, 2, signing=signing, replaces=frozenset())
    assert not work(second)
    assert second.aggregator.ended is not None
    assert "the broker shows another run of this federation" in second.aggregator.ended.why


def _signed(message: Message) -> bool:
    return "signature" in split(memoryview(message.payload))[0]


def _run(message: Message) -> object:
    return split(memoryview(message.payload))[0]["run"]
