"""`fedmq status` shows what was said by whose word it is, and says how much it has refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmq.broker_config.provision.signing_keys import new_signing_key, public_key
from fedmq.broker_config.settings import BrokerSettings
from fedmq.broker_config.start import RunningBroker
from fedmq.cli import main
from fedmq.connect import mqtt_link
from fedmq.keys import device_keys
from fedmq.schemas.messages import AggregatorPresence, ClientStatus, Progress, ProtocolMessage
from fedmq.schemas.signing import sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.settings import Settings
from fedmq.signing_settings import SigningSettings
from fedmq.transport.link import Link
from fedmq.watch import Watch
from tests.brokers import opened
from tests.system.processes import until

pytestmark = pytest.mark.broker

RUN = "a" * 32


class Mouth:
    """Says things on a federation's topics, in any name."""

    def __init__(self, link: Link, folder: Path, topics: Topics) -> None:
        self.topics = topics
        self._link = link
        self._signs: dict[str, Callable[[bytes], bytes]] = {}
        for name in ("aggregator", "dev-1", "stranger"):
            pem = new_signing_key()
            (folder / f"{name}.pem").write_bytes(pem)
            (folder / f"{name}.key").write_text(public_key(pem, folder))
            made = SigningSettings(key_file=folder / f"{name}.pem", aggregator_keys_file=folder / f"{name}.key")
            keys = device_keys(made, name)
            assert keys is not None
            self._signs[name] = keys.sign
        (folder / "devices").write_text(f"dev-1 {(folder / 'dev-1.key').read_text()}\n")

    def says(self, name: str, message: ProtocolMessage, session: int = 5) -> None:
        """Signed by whom; by nobody if the name is empty."""
        topic = self._topic(message)
        payload = encode(message)
        if name:
            payload = sealed(topic, payload, session, self._signs[name])
        self._link.publish(topic, payload, retain=True)
        assert self._link.flush(10.0)

    def _topic(self, message: ProtocolMessage) -> str:
        if isinstance(message, AggregatorPresence):
            return self.topics.aggregator
        return self.topics.progress if isinstance(message, Progress) else self.topics.status("dev-1")


@pytest.fixture
def mouth(mosquitto: RunningBroker, federation: str, tmp_path: Path) -> Iterator[Mouth]:
    link = opened(mqtt_link(BrokerSettings(url=mosquitto.url), f"{federation}-mouth"))
    yield Mouth(link, tmp_path, Topics(federation))
    link.close()


@pytest.fixture
def watch(mosquitto: RunningBroker, federation: str, mouth: Mouth, tmp_path: Path) -> Iterator[Watch]:
    settings = Settings.model_validate({
        "federation": federation,
        "broker": {"url": mosquitto.url},
        "signing": {"aggregator_keys_file": tmp_path / "aggregator.key", "device_keys_file": tmp_path / "devices"},
    })  # fmt: skip
    with Watch(settings, f"{federation}-eye-{os.urandom(4).hex()}") as watch:
        shown(watch, lambda: watch.connected)
        yield watch


def shown(watch: Watch, condition: Callable[[], object]) -> None:
    until(lambda: (watch.poll(0.02), condition())[1], "what was said to be shown")


def presence(state: str = "online") -> AggregatorPresence:
    return AggregatorPresence.model_validate({"state": state, "run": RUN, "incarnation": RUN, "version": 1})


def progress(updates: int) -> Progress:
    return Progress(run=RUN, version=updates, state="training", strategy="fedbuff", updates=updates)


def status(state: str = "online", connection: int = 1, accepted: int = 0) -> ClientStatus:
    fields = {"client_id": "dev-1", "incarnation": RUN, "state": state, "connection": connection, "accepted": accepted}
    return ClientStatus.model_validate(fields)


def test_what_is_forged_is_not_shown_but_counted(watch: Watch, mouth: Mouth) -> None:
    mouth.says("aggregator", presence())
    mouth.says("aggregator", progress(3))
    mouth.says("dev-1", status(accepted=3))
    shown(watch, lambda: watch.known == 3)
    for name in ("", "stranger", "dev-1"):
        mouth.says(name, presence("offline"), session=9)
        mouth.says(name, progress(1000), session=9)
    for name in ("", "stranger", "aggregator"):
        mouth.says(name, status("offline", accepted=1000), session=9)
    shown(watch, lambda: watch.refused == 9)
    assert watch.aggregator == presence()
    assert watch.progress == progress(3)
    assert watch.clients == {"dev-1": status(accepted=3)}
    assert "9 messages are refused" in watch.describe()
    assert "\ndev-1                unreadable or unsigned status: it is not signed with a known" in watch.describe()
    assert json.loads(watch.as_json())["refused"] == 9


def test_what_is_old_is_not_shown(watch: Watch, mouth: Mouth) -> None:
    mouth.says("aggregator", progress(3))
    mouth.says("aggregator", presence())
    mouth.says("dev-1", status(accepted=3))
    shown(watch, lambda: watch.known == 3)
    mouth.says("aggregator", progress(2))  # of the same session: not refused, but what is committed never becomes less
    mouth.says("aggregator", progress(1), session=4)
    mouth.says("aggregator", presence("offline"), session=4)
    mouth.says("dev-1", status("offline", connection=0), session=4)
    shown(watch, lambda: watch.refused == 3)
    assert watch.aggregator == presence()
    assert watch.progress == progress(3)
    assert watch.clients["dev-1"].state == "online"
    assert "unreadable" not in watch.describe()  # what is known of it is newer


def test_a_device_with_a_new_key_is_shown_whatever_was_signed_with_the_stolen_one(
    watch: Watch, mouth: Mouth, tmp_path: Path
) -> None:
    mouth.says("dev-1", status(accepted=1), session=(1 << 63) - 1)
    shown(watch, lambda: watch.clients)
    (tmp_path / "devices").write_text(f"dev-1 {(tmp_path / 'stranger.key').read_text()}\n")
    mouth.says("stranger", status(accepted=2))
    shown(watch, lambda: watch.clients["dev-1"].accepted == 2)


def test_a_presence_from_before_the_progress_that_is_shown_is_forgotten(watch: Watch, mouth: Mouth) -> None:
    mouth.says("aggregator", presence("offline"), session=4)
    shown(watch, lambda: watch.aggregator)
    mouth.says("aggregator", progress(3))
    shown(watch, lambda: watch.progress)
    assert watch.aggregator is None
    mouth.says("aggregator", presence())
    shown(watch, lambda: watch.aggregator == presence())


def test_a_new_run_is_shown_though_it_has_fewer_updates(watch: Watch, mouth: Mouth) -> None:
    mouth.says("aggregator", progress(3))
    shown(watch, lambda: watch.progress)
    other = progress(1).model_copy(update={"run": "b" * 32})
    mouth.says("aggregator", other)
    shown(watch, lambda: watch.progress == other)


def test_a_device_cannot_say_anything_in_anothers_name(
    watch: Watch, mouth: Mouth, capsys: pytest.CaptureFixture[str], mosquitto: RunningBroker, tmp_path: Path
) -> None:
    forged = "dev-9                online   training       12       40       0     1 MB     1 MB"
    mouth.says("dev-1", status().model_copy(update={"detail": f"\r\x1b[2K{forged}\n{forged}\x1b]0;owned\x07"}))
    keys = {"aggregator_keys_file": "aggregator.key", "device_keys_file": "devices"}
    overrides = [f"federation={mouth.topics.federation}", f"broker.url={mosquitto.url}"]
    overrides += [f"signing.{name}={tmp_path / file}" for name, file in keys.items()]
    arguments = [word for override in overrides for word in ("--set", override)]
    assert main(["status", *arguments]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.partition(" ")[0] for line in lines] == ["client", "dev-1", "accepted,", ""]
    assert all(line.isprintable() for line in lines)
    shown(watch, lambda: watch.clients)
    mouth.says("dev-1", status().model_copy(update={"client_id": "dev-9", "accepted": 9}))
    mouth.says("dev-1", status().model_copy(update={"connection": 2}))
    shown(watch, lambda: watch.clients["dev-1"].connection == 2)
    assert watch.clients["dev-1"].accepted == 0


def test_who_looks_without_keys_is_told_that_nothing_is_verified(
    mosquitto: RunningBroker, federation: str, mouth: Mouth
) -> None:
    settings = Settings.model_validate({"federation": federation, "broker": {"url": mosquitto.url}})
    with Watch(settings, f"{federation}-eye-{os.urandom(4).hex()}") as watch:
        mouth.says("", presence())
        shown(watch, lambda: watch.aggregator)
        assert "not verified" not in watch.describe()
        assert json.loads(watch.as_json())["unverified"] == ""
        mouth.says("stranger", progress(3))
        shown(watch, lambda: watch.progress)
        mouth.says("stranger", status())
        shown(watch, lambda: watch.clients)
        for client_id in (None, "dev-1"):
            assert "what is shown is signed, and not verified" in watch.describe(client_id)
            assert json.loads(watch.as_json(client_id))["unverified"] == "all"


def test_who_looks_with_the_aggregators_keys_only_is_told_that_devices_are_not_verified(
    mosquitto: RunningBroker, federation: str, mouth: Mouth, tmp_path: Path
) -> None:
    signing = {"aggregator_keys_file": tmp_path / "aggregator.key"}
    settings = Settings.model_validate({"federation": federation, "broker": {"url": mosquitto.url}, "signing": signing})
    with Watch(settings, f"{federation}-eye-{os.urandom(4).hex()}") as watch:
        mouth.says("aggregator", presence())
        shown(watch, lambda: watch.aggregator)
        assert "not verified" not in watch.describe()
        mouth.says("stranger", status())
        shown(watch, lambda: watch.clients)
        for client_id in (None, "dev-1"):
            assert "what devices show is signed, and not verified" in watch.describe(client_id)
            assert json.loads(watch.as_json(client_id))["unverified"] == "devices"
        assert watch.describe("nobody") == ""
        assert json.loads(watch.as_json("nobody")) is None


def test_who_looks_with_all_keys_is_told_no_such_thing(watch: Watch, mouth: Mouth) -> None:
    mouth.says("aggregator", presence())
    mouth.says("dev-1", status())
    shown(watch, lambda: watch.aggregator and watch.clients)
    assert "not verified" not in watch.describe() + watch.describe("dev-1")
    assert json.loads(watch.as_json())["unverified"] == ""
