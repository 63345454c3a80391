"""Where messages go, and whose they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.topics import ID_PATTERN, Topics, check_id
from tests.generators import ids, unhurried

TOPICS = Topics("kitchen")


def test_the_topics_of_a_federation_are_these() -> None:
    assert TOPICS.aggregator == "fedmq/kitchen/aggregator"
    assert TOPICS.model == "fedmq/kitchen/model"
    assert TOPICS.layout == "fedmq/kitchen/layout"
    assert TOPICS.progress == "fedmq/kitchen/progress"
    assert TOPICS.updates == "fedmq/kitchen/update/+"
    assert TOPICS.statuses == "fedmq/kitchen/status/+"
    assert TOPICS.update("alice") == "fedmq/kitchen/update/alice"
    assert TOPICS.reply("alice") == "fedmq/kitchen/reply/alice"
    assert TOPICS.status("alice") == "fedmq/kitchen/status/alice"


@pytest.mark.parametrize("bad", ["", "a" * 65, "a/b", "+", "#", "a b", "é", "a\n", "$SYS", "a.b"])
def test_an_id_that_cannot_stand_in_a_topic_is_refused_everywhere(bad: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(bad))):
        check_id(bad, "client id")
    with pytest.raises(ConfigError, match="federation"):
        Topics(bad)
    for topic in (TOPICS.update, TOPICS.reply, TOPICS.status):
        with pytest.raises(ConfigError, match="client id"):
            topic(bad)


@unhurried
@given(ids)
def test_every_id_of_1_to_64_allowed_characters_is_taken(value: str) -> None:
    assert check_id(value, "client id") == value
    assert re.match(ID_PATTERN, value)


@unhurried
@given(ids)
def test_the_sender_of_an_update_or_a_status_is_in_its_topic(client_id: str) -> None:
    assert TOPICS.sender(TOPICS.update(client_id)) == client_id
    assert TOPICS.sender(TOPICS.status(client_id)) == client_id


@pytest.mark.parametrize(
    "topic",
    [
        "fedmq/kitchen/reply/alice",
        "fedmq/kitchen/model",
        "fedmq/garden/update/alice",
        "fedmq/kitchen/update/",
        "fedmq/kitchen/update/alice/more",
        "fedmq/kitchen/update/al ice",
        "fedmq/kitchen/update/alice\n",
        "update/alice",
        "",
    ],
)
def test_any_other_topic_has_no_sender(topic: str) -> None:
    assert TOPICS.sender(topic) is None
