"""What an aggregator says fits into what its broker takes, however many there are to be named or answered."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.quarantine import Held
from fedmq.schemas.errors import Reason
from fedmq.schemas.messages import Progress, Receipt
from fedmq.schemas.wire import decode
from fedmq.transport.link import Message
from tests.aggregator.door import CLIENT, LAYOUT, TOPICS, Door
from tests.aggregator.small_run import RUN

LINK_BYTES = 4096
NAMES = [f"{number:064d}" for number in range(256)]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path, Rules(RUN, LAYOUT), link_bytes=LINK_BYTES)


def test_of_too_many_names_the_newest_are_shown(door: Door) -> None:
    for name in NAMES:
        door.state.quarantine.held[name] = Held("malformed", 0.0, 1e9)
    door.ask(door.offer())
    progress = door.progress()
    assert len(door.broker.retained[TOPICS.progress]) <= LINK_BYTES
    assert progress.quarantined == len(NAMES)
    shown = [held.client_id for held in progress.quarantine]
    assert shown
    assert shown == NAMES[-len(shown) :]
    assert progress.clients == (CLIENT,)


def test_a_progress_without_room_for_any_name_names_nobody(tmp_path: Path) -> None:
    door = Door(tmp_path, Rules(RUN, LAYOUT), link_bytes=560)
    door.state.quarantine.held[NAMES[0]] = Held("malformed", 0.0, 1e9)
    door.state.rejected.update(dict.fromkeys(get_args(Reason)[:10], 1 << 40))
    progress = door.progress()
    assert progress.quarantine == ()
    assert progress.quarantined == 1


@pytest.mark.timeout(60)
def test_what_fits_nowhere_is_encoded_all_the_same(door: Door) -> None:
    progress = door.progress()
    door._inner._limit = 10
    assert decode(door.service._publisher._fitting(progress), Progress)[0].clients == ()


def test_answers_that_do_not_fit_into_one_message_go_in_several(door: Door) -> None:
    sizes: list[int] = []
    hears = door.broker.link("hears")
    hears.open()
    hears.subscribe(TOPICS.replies)
    for payload in [door.offer(codec="x" * 64) for _ in range(32)]:
        door.service.handle(Message(TOPICS.update(CLIENT), payload))
    door.work()
    while hears.waiting:
        message = hears.poll(0.0)
        if isinstance(message, Message):
            sizes.append(len(message.payload))
    assert len(sizes) > 1
    assert max(sizes) <= LINK_BYTES
    answered = [answer.update.sequence for answer in door.answers if isinstance(answer, Receipt)]
    assert answered == list(range(1, 33))
