"""`fedmq check` with a broker on which others are at work: nobody notices it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.broker_config.start import RunningBroker
from fedmq.cli import main
from fedmq.connect import mqtt_link
from fedmq.edge_client.outbox import Outbox
from fedmq.schemas.messages import ClientStatus, Need
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.settings import load_settings
from fedmq.transport.link import Message
from tests.brokers import PATIENCE, expect, fence, opened, subscribed, take

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("beside_a_task")]


def test_check_leaves_a_device_alone_that_is_online(
    mosquitto: RunningBroker, federation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its connection, its retained status, and what is heard in its name."""
    settings = load_settings(None, [f"federation={federation}", f"broker.url={mosquitto.url}"], {})
    topics = Topics(federation)
    status = ClientStatus(state="online", client_id="dev-7", incarnation="a" * 32)
    device, eye = mqtt_link(settings.broker, f"{federation}-dev-7"), mqtt_link(settings.broker, f"{federation}-eye")
    try:
        opened(device).publish(topics.status("dev-7"), encode(status), retain=True)
        assert device.flush(PATIENCE)
        subscribed(opened(eye), topics.update("dev-7"), topics.statuses)
        options = ["--federation", federation, "--broker", mosquitto.url]
        assert main(["check", "task.py", "--client-id", "dev-7", *options]) == 0
        assert "dev-7 is online elsewhere, so nothing was sent in its name" in capsys.readouterr().out
        assert fence(eye, "fence") == []
        device.publish(topics.status("dev-7"), b"", retain=True)
        assert device.flush(PATIENCE)  # its connection is the one that it had
        assert expect(eye, Message).payload == b""
    finally:
        device.close()
        eye.close()


def test_check_does_not_connect_as_a_device_that_works_on_this_machine(
    mosquitto: RunningBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("devices/dev-7")
    outbox = Outbox(folder)
    options = ["--federation", "f", "--broker", mosquitto.url, "--set", "device.folder=devices"]
    assert main(["check", "task.py", "--client-id", "dev-7", *options]) == 0
    said = capsys.readouterr().out
    assert "not tried, because dev-7 is at work on this machine" in said
    assert "logged in" not in said
    outbox.close()


def test_what_check_sends_is_understood_by_everybody_and_retained_by_nobody(
    mosquitto: RunningBroker, federation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(None, [f"federation={federation}", f"broker.url={mosquitto.url}"], {})
    topics = Topics(federation)
    eye = mqtt_link(settings.broker, f"{federation}-eye")
    try:
        subscribed(opened(eye), topics.update("dev-7"), topics.status("dev-7"))
        options = ["--federation", federation, "--broker", mosquitto.url]
        assert main(["check", "task.py", "--client-id", "dev-7", *options]) == 0
        sent = {message.topic: message.payload for message in take(eye, 2)}
        need, _ = decode(sent[topics.update("dev-7")], Need)
        status, _ = decode(sent[topics.status("dev-7")], ClientStatus)
        assert (need.run, need.done, status.state, status.connection) == ("0" * 32, True, "offline", 0)
        eye.unsubscribe(topics.status("dev-7"))
        eye.subscribe(topics.status("dev-7"))
        assert fence(eye, "fence") == []
    finally:
        eye.close()


def test_check_says_that_nothing_is_encrypted_on_the_way_to_another_machine(
    mosquitto: RunningBroker, federation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for host, times in (("127.0.0.1", 0), ("127.1", 1)):  # the second is a name to FedMQ, and reaches the same broker
        url = f"mqtt://{host}:{mosquitto.ports['5']}"
        assert main(["check", "task.py", "--client-id", "dev-7", "--federation", federation, "--broker", url]) == 0
        assert capsys.readouterr().out.count(f"\nwarning    nothing is encrypted on the way to {url}: ") == times
