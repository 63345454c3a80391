"""Whatever is heard, in whatever order: the core never raises, never spins, and never waits for ever."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmq.edge_client.actions import Action, Delete, Follow, Renew, SendOffer, Stop, Train
from fedmq.edge_client.core import ClientCore
from tests.edge_client.words import (
    OTHER_RUN,
    RUN,
    accepted,
    head,
    later,
    missing,
    offer,
    offline,
    online,
    rejected,
    update,
)
from tests.edge_client.words import status as status_of

sequences = st.integers(0, 12)
runs = st.sampled_from([RUN, OTHER_RUN])
incarnations = st.sampled_from(["1" * 32, "2" * 32])
fits = st.sampled_from([True, True, True, False, None])
events = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.001, 1.0, 3.0, 40.0, 5000.0])),
    st.just(("deadline",)),
    st.just(("connected",)),
    st.just(("disconnected",)),
    st.tuples(st.just("presence"), st.builds(online, incarnations) | st.builds(offline, incarnations)),
    st.tuples(st.just("head"), st.builds(head, st.integers(0, 3), runs, continuous=st.booleans()), fits),
    st.just(("job done",)),
    st.just(("job failed",)),
    st.tuples(st.just("reply"), st.lists(sequences, max_size=3).map(lambda some: accepted(*some))),
    st.tuples(st.just("reply"), st.builds(rejected, sequences, st.sampled_from(["id_reused", "layout", "late"]))),
    st.tuples(st.just("reply"), st.builds(later, sequences, st.floats(0, 100))),
    st.tuples(st.just("reply"), st.builds(missing, sequences, st.just((0, 4)))),
    st.tuples(st.just("status"), st.builds(status_of, incarnations)),
)


class Device:
    """Does what the core wants, as the service would, and checks that it makes sense."""

    def __init__(self, before: int) -> None:
        self.now = 0.0
        self.outbox = dict.fromkeys(range(before), f"{0:032x}")
        self.next = before
        self.renewals = 0
        self.following = False
        self.training = False
        self.trainings = 0
        self.offered: set[int] = set()
        self.stopped = False
        pending = [offer(s).model_copy(update={"update": update(s, outbox_id)}) for s, outbox_id in self.outbox.items()]
        self.core = ClientCore("5" * 32, random.Random(0), pending)

    def feed(self, event: tuple[Any, ...]) -> None:
        core = self.core
        match event:
            case ("pass", seconds):
                self.now += seconds
                self.perform(core.tick(self.now))
            case ("deadline",):
                self.tick_at_deadline()
            case ("connected",):
                self.following = False
                self.perform(core.connected(self.now))
            case ("disconnected",):
                core.disconnected()
            case ("presence", presence):
                self.perform(core.presence(presence, self.now))
            case ("head", heard, fits):
                self.perform(core.head(heard, fits, self.now))
            case ("job done",) if self.training:
                self.training = False
                made, self.next = self.next, self.next + 1
                self.outbox[made] = f"{self.renewals:032x}"
                dropped = sorted(self.outbox)[:-10]
                for sequence in dropped:
                    del self.outbox[sequence]
                made_offer = offer(made).model_copy(update={"update": update(made, self.outbox[made])})
                self.perform(core.trained(made_offer, dropped, self.now))
            case ("job failed",) if self.training:
                self.training = False
                self.perform(core.failed(self.now))
            case ("reply", reply):
                self.perform(core.reply(reply, self.now))
            case ("status", status):
                self.perform(core.own_status(status, self.now))

    def tick_at_deadline(self) -> None:
        due = self.core.deadline()
        if due is None:
            return
        self.now = max(self.now, due)
        actions = self.core.tick(self.now)
        self.perform(actions)
        after = self.core.deadline()
        assert actions or after is None or after > due, "a deadline at which nothing happens would spin"

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Follow(on):
                    assert not (on and self.training), "subscribed while it trains"
                    self.following = on
                case Train():
                    assert not self.training, "two jobs at a time"
                    assert not self.following
                    self.training = True
                    self.trainings += 1
                case SendOffer(sequence):
                    assert sequence in self.outbox, "an update that is gone"
                    self.offered.add(sequence)
                case Delete(sequence):
                    del self.outbox[sequence]
                case Renew(sequence):
                    self.renewals += 1
                    self.outbox[sequence] = f"{self.renewals:032x}"
                    self.perform(self.core.renewed(update(sequence, self.outbox[sequence]), self.now))
                case Stop():
                    self.stopped = True
            if self.stopped:
                return


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(before=st.integers(0, 10), happenings=st.lists(events, max_size=40))
def test_in_any_order_of_events_time_goes_on_and_in_the_end_all_is_offered_and_it_trains(
    before: int, happenings: list[tuple[Any, ...]]
) -> None:
    device = Device(before)
    for event in happenings:
        device.feed(event)
        if device.stopped:
            return

    # Then the world is well: a connection, an aggregator, a newer snapshot.
    device.feed(("disconnected",))
    device.feed(("connected",))
    device.feed(("presence", online("3" * 32)))
    device.feed(("job done",))
    device.feed(("head", head(4, run=OTHER_RUN), True))
    waiting, trainings, begun = set(device.outbox), device.trainings, device.now
    device.offered.clear()
    while not (waiting <= device.offered and (device.training or device.trainings > trainings)):
        assert device.core.deadline() is not None, "it waits for nothing"
        device.tick_at_deadline()
        assert device.now < begun + 600 * 1.25 + 120, "longer than the longest wait after failures"
