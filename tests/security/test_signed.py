"""Nothing is believed that was not sent: a broker that forges, alters, moves and repeats every kind of message."""

from __future__ import annotations

import random
from pathlib import Path

import msgpack
import pytest

from fedmq.schemas.messages import AggregatorPresence, Head, Offer, Receipt, Reply
from fedmq.schemas.plan import Plan
from fedmq.schemas.signing import author, opened, sealed
from fedmq.schemas.wire import decode, encode, pack, split
from fedmq.signed_link import SignedLink
from fedmq.transport.link import Message
from tests.security.signed_world import DEVICES, PRIVATE, TOPICS, Attack, HostileBroker, World

RUN, NEXT_RUN = "a" * 32, "b" * 32
_random = random.Random(7)


def altered(message: Message) -> list[Message]:
    """Each once with a bit turned, then as it was; or with the body cut."""
    place, bit = _random.randrange(len(message.payload)), 1 << _random.randrange(8)
    payload = bytearray(message.payload)
    payload[place] ^= bit
    return [Message(message.topic, bytes(payload)), Message(message.topic, message.payload[:-1]), message]


def without_its_body(message: Message) -> list[Message]:
    _, end = split(memoryview(message.payload))
    return [Message(message.topic, message.payload[:end]), message] if end < len(message.payload) else [message]


def unsigned(message: Message) -> list[Message]:
    fields, end = split(memoryview(message.payload))
    fields.pop("signature")
    return [Message(message.topic, pack(fields, memoryview(message.payload)[end:])), message]


def signed_by_others(message: Message) -> list[Message]:
    """The same with more samples or as it is, signed by everyone who is not its author."""
    fields, end = split(memoryview(message.payload))
    session = fields.pop("session")
    fields.pop("signature")
    plain = pack(fields, memoryview(message.payload)[end:])
    keys = [key for name, key in PRIVATE.items() if name != author(TOPICS, message.topic)]
    return [*(Message(message.topic, sealed(message.topic, plain, session, key.sign)) for key in keys), message]


def on_other_topics(message: Message) -> list[Message]:
    others = [TOPICS.model, TOPICS.aggregator, TOPICS.layout]
    others += [topic(name) for topic in (TOPICS.update, TOPICS.reply, TOPICS.status) for name in DEVICES]
    return [*(Message(topic, message.payload) for topic in others if topic != message.topic), message]


ATTACKS: tuple[Attack, ...] = (altered, without_its_body, unsigned, signed_by_others, on_other_topics)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_what_was_not_sent_like_this_is_not_there(attack: Attack, parts: bool) -> None:
    broker = HostileBroker()
    broker.attack = attack
    entries, most = (20_000, 40_000) if parts else (1, 1 << 28)
    world = World(broker, RUN, 1, entries=entries, max_message_bytes=most)
    assert world.run(lambda: world.accepted >= 20)
    world.nothing_is_lost()
    assert world.refused >= 20
    assert world.core.state.rejected["signature"] > 0
    broker.attack = lambda message: [message]
    assert world.run(lambda: not any(box.pending() for box in world.outboxes.values()))
    world.nothing_is_lost()


def test_nothing_of_an_earlier_run_takes_a_fleet_back_or_ends_it() -> None:
    broker = HostileBroker()
    first = World(broker, RUN, 1)
    assert first.run(lambda: first.accepted >= 5)
    first.core.finish("enough", broker.time.now)
    assert first.run(lambda: all(client.stopped is not None for client in first.clients.values()))
    first.end()
    old = [message for message in broker.seen if author(TOPICS, message.topic) == "aggregator"]
    heads = [decode(message.payload, Head)[0].state for message in old if message.topic == TOPICS.model]
    assert heads[-1] == "finished"
    broker.retained.clear()

    second = World(broker, NEXT_RUN, 2, first.outboxes)
    assert second.run(lambda: second.accepted >= 2)
    broker.attack = lambda message: [message, *old[-12:], message]
    assert second.run(lambda: second.accepted >= 12)
    second.nothing_is_lost()
    assert second.refused > 20
    second.end()
    # Nor a device that starts anew, and hears nothing else than what is old.
    broker.retained = {message.topic: message.payload for message in old}
    broker.attack = lambda message: [] if author(TOPICS, message.topic) == "aggregator" else [message]
    third = World(broker, NEXT_RUN, 3, first.outboxes)
    third.run(lambda: False, seconds=60.0)
    assert [client.stopped for client in third.clients.values()] == [None, None]
    assert third.trained == 0
    assert sum(client.accepted + client.rejected for client in third.clients.values()) == 0


def test_an_old_status_of_its_own_is_no_rival_of_a_device() -> None:
    broker = HostileBroker()
    first = World(broker, RUN, 1)
    assert first.run(lambda: first.accepted >= 2)
    first.end()
    old = [message for message in broker.seen if message.topic == TOPICS.status("dev-1")]
    second = World(broker, RUN, 2, first.outboxes)
    for _ in range(8):
        second.run(lambda: False, seconds=3.0)
        second.cut("dev-1")
        broker.retained[TOPICS.status("dev-1")] = old[-2].payload
    assert second.clients["dev-1"].stopped is None
    assert second.refused >= 6


def test_a_forged_receipt_deletes_nothing_and_a_forged_end_ends_nobody() -> None:
    broker = HostileBroker()
    world = World(broker, RUN, 1)
    assert world.run(lambda: world.accepted >= 2)
    forged = PRIVATE["stranger"]

    def attack(message: Message) -> list[Message]:
        fields, _ = split(memoryview(message.payload))
        said = []
        if fields["kind"] == "offer":
            offer = decode(message.payload, Offer)[0]
            receipt = Receipt(update=offer.update, verdict="rejected", reason="layout", digest=offer.digest)
            reply = encode(Reply(run=RUN, incarnation="f" * 32, receipts=(receipt,)))
            said.append((TOPICS.reply(offer.client_id), reply))
            end = Head(run=RUN, version=10**9, state="finished", plan=Plan(), layout="0" * 64, codec="float32",
                       size=0, digest="0" * 64)  # fmt: skip
            said.append((TOPICS.model, encode(end)))
            other = AggregatorPresence(state="online", run=RUN, incarnation="f" * 32, version=9)
            said.append((TOPICS.aggregator, encode(other)))
        signed = [Message(topic, sealed(topic, payload, 9, forged.sign)) for topic, payload in said]
        return [*signed, *(Message(topic, payload) for topic, payload in said), message]

    broker.attack = attack
    assert world.run(lambda: world.accepted >= 20)
    world.nothing_is_lost()
    assert world.refused >= 50


def test_what_a_revoked_device_offers_is_refused_from_the_moment_that_it_is_listed(tmp_path: Path) -> None:
    listed = tmp_path / "revoked"
    listed.write_text("")
    world = World(HostileBroker(), RUN, 1, revoked=listed)
    one, two = (world.clients[name] for name in DEVICES)
    assert world.run(lambda: one.accepted >= 2 and two.accepted >= 2)
    listed.write_text("dev-2\n")
    assert world.run(lambda: two.rejected >= 1)
    assert two.stopped is not None
    assert "ask its operator for a new bundle" in two.stopped.why
    counted = two.accepted
    goal = one.accepted + 5
    assert world.run(lambda: one.accepted >= goal)
    assert (two.accepted, one.rejected) == (counted, 0)
    assert world.core.state.rejected["revoked"] >= 1
    listed.unlink()  # whoever was out is so still
    world.start_again("dev-2")
    again = world.clients["dev-2"]
    assert world.run(lambda: again.stopped is not None)
    assert (again.accepted, again.rejected) == (0, 1)


def test_a_signature_covers_every_byte_and_the_topic() -> None:
    fields = Head(run=RUN, version=1, plan=Plan(), layout="0" * 64, codec="float32", size=3, digest="1" * 64)
    for message, body in (
        (fields, b""),
        (Reply(run=RUN, incarnation=RUN), b""),
        (Reply(run=RUN, incarnation=RUN), b"x"),
    ):
        payload = sealed(TOPICS.model, encode(message, body), 5, PRIVATE["aggregator"].sign)
        public = PRIVATE["aggregator"].public_key()
        signed = opened(TOPICS.model, payload)
        assert signed is not None
        public.verify(signed.signature, signed.content)
        assert decode(payload, type(message))[0] == message
        other = opened(TOPICS.layout, payload)
        assert other is not None
        assert other.content != signed.content


def test_what_strangers_write_does_not_become_a_line_of_the_log_each(caplog: pytest.LogCaptureFixture) -> None:
    world = World(HostileBroker(), RUN, 1)
    link = world.links[1]
    assert isinstance(link, SignedLink)
    for number in range(120):
        world._inner[1].receive(Message(TOPICS.model, msgpack.packb(msgpack.ExtType(number, b"unlike any other"))))
    assert world.run(lambda: link.refused >= 120)
    said = [record.getMessage() for record in caplog.records if "refused topic" in record.getMessage()]
    assert len(said) == 7  # the first, the second, the fourth and so on
    assert len(link._said) == 1
