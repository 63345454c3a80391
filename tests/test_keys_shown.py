"""What the commands say of keys, in a provisioned federation: `check`, `status` and a device at work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmq.broker_config.provision.decisions import Request
from fedmq.broker_config.provision.provisioning import provision
from fedmq.cli import main
from fedmq.connect import mqtt_link
from fedmq.keys import aggregator_keys, device_keys
from fedmq.schemas.messages import AggregatorPresence, ClientStatus, Progress, ProtocolMessage, Quarantined
from fedmq.schemas.signing import sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode
from fedmq.settings import Settings, load_settings
from fedmq.unheard import Unheard
from tests.brokers import PATIENCE, opened
from tests.security.ground import Ground, ground, settle
from tests.system.processes import until

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("beside_a_task")]

TOPICS = Topics("f")


@pytest.fixture(scope="module")
def made(mosquitto_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Its broker runs, and nobody else."""
    with ground(tmp_path_factory.mktemp("ground")) as federation:
        yield federation


@pytest.fixture(autouse=True)
def _empty(made: Ground) -> Iterator[None]:
    """Nothing stays on the broker."""
    yield
    for topic in (TOPICS.aggregator, TOPICS.progress):
        leave(made, "aggregator", topic, b"")
    for client_id in ("dev-1", "dev-2"):
        leave(made, client_id, TOPICS.status(client_id), b"")


def settings_of(made: Ground, account: str) -> Settings:
    bundle = made.folder / ("" if account in ("aggregator", "operator") else "devices") / account
    return load_settings(bundle / "federation.toml", environment={})


def leave(made: Ground, account: str, topic: str, payload: bytes) -> None:
    """With the login of this account, retained."""
    link = mqtt_link(settings_of(made, account).broker, f"f-{account}")
    try:
        opened(link).publish(topic, payload, retain=True)
        assert link.flush(PATIENCE)
    finally:
        link.close()


def leave_signed(made: Ground, account: str, message: ProtocolMessage, key_of: str = "") -> None:
    """What an account at work shows of itself, signed with its own key or another's."""
    signing = settings_of(made, key_of or account).signing
    keys = aggregator_keys(signing) if account == "aggregator" else device_keys(signing, key_of or account)
    assert keys is not None
    of_the_run = TOPICS.progress if isinstance(message, Progress) else TOPICS.aggregator
    topic = of_the_run if account == "aggregator" else TOPICS.status(account)
    leave(made, account, topic, sealed(topic, encode(message), 1, keys.sign))


def bundle_with(made: Ground, tmp_path: Path, name: str, source: Path) -> str:
    """dev-1's bundle with another file in place of its own; its configuration."""
    shutil.copytree(made.folder / "devices" / "dev-1", tmp_path / "dev-1")
    shutil.copy(source, tmp_path / "dev-1" / name)
    return str(tmp_path / "dev-1" / "federation.toml")


def presence() -> AggregatorPresence:
    return AggregatorPresence(state="online", run="a" * 32, incarnation="b" * 32, version=3)


def progress(*held: Quarantined) -> Progress:
    shown = {"run": "a" * 32, "version": 3, "state": "training", "strategy": "fedbuff", "updates": 3}
    return Progress.model_validate({**shown, "quarantine": held, "quarantined": len(held)})


def status(client_id: str, state: str = "online") -> ClientStatus:
    return ClientStatus(state=state, client_id=client_id, incarnation="c" * 32, connection=1)  # type: ignore[arg-type]


def test_check_verifies_what_the_aggregator_shows_and_says_what_it_cannot_see(
    made: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(made.folder / "devices" / "dev-1" / "federation.toml")
    assert main(["check", "task.py", "--config", config]) == 0
    said = capsys.readouterr().out
    assert "fedmq/f/aggregator                       not refused\n" in said
    assert "no signature of the aggregator was seen" in said
    leave_signed(made, "aggregator", presence())
    assert main(["check", "task.py", "--config", config]) == 0
    said = capsys.readouterr().out
    assert "fedmq/f/aggregator                       works\n" in said
    assert "whether the aggregator has this device's key does not show here" in said


def test_check_finds_aggregator_keys_that_are_not_the_aggregators(
    made: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_signed(made, "aggregator", presence())
    config = bundle_with(made, tmp_path, "aggregator-keys", made.other / "devices" / "dev-1" / "aggregator-keys")
    assert main(["check", "task.py", "--config", config]) == 2
    said = capsys.readouterr()
    assert "heard, but it is not signed with a known key of the aggregator\n" in said.out
    assert "fedmq check: no key in signing.aggregator_keys_file has signed what" in said.err


def test_check_says_that_what_a_device_has_left_is_not_signed_with_its_key(
    made: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_signed(made, "dev-1", status("dev-1", "offline"))
    assert main(["check", "task.py", "--config", str(made.folder / "devices" / "dev-1" / "federation.toml")]) == 0
    assert "is not signed with this device's key" not in capsys.readouterr().out
    config = bundle_with(made, tmp_path, "signing.pem", made.folder / "devices" / "dev-2" / "signing.pem")
    assert main(["check", "task.py", "--config", config]) == 0
    assert "what is left on fedmq/f/status/dev-1 is not signed with this device's key" in capsys.readouterr().out


def shown_by_status(made: Ground, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["status", "--config", str(made.folder / "operator" / "federation.toml"), *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("hidden", "why"),
    [
        ("evil", "its header cannot be read"),
        (
            "with another's key",
            "it is not signed with a known key of its client, whose newest ones have to be in signing.device_keys_file",
        ),
        ("unsigned", "it is not signed"),
    ],
)
def test_a_device_cannot_hide_from_status(
    made: Ground, capsys: pytest.CaptureFixture[str], hidden: str, why: str
) -> None:
    leave_signed(made, "aggregator", presence())
    leave_signed(made, "dev-1", status("dev-1"))
    if hidden == "with another's key":
        leave_signed(made, "dev-2", status("dev-2"), key_of="dev-1")
    else:
        leave(made, "dev-2", TOPICS.status("dev-2"), b"evil" if hidden == "evil" else encode(status("dev-2")))
    code, out, err = shown_by_status(made, capsys)
    assert (code, err) == (0, "")
    rows = {line.partition(" ")[0]: line for line in out.splitlines()}
    assert rows["dev-1"].startswith("dev-1                online")
    assert rows["dev-2"] == f"dev-2                unreadable or unsigned status: {why}"
    code, out, err = shown_by_status(made, capsys, "dev-2")
    assert (code, out, err) == (
        0, f"dev-2: its last status is unreadable or unsigned, and not shown: {why}\n", ""
    )  # fmt: skip
    code, out, _ = shown_by_status(made, capsys, "dev-2", "--json")
    assert (code, json.loads(out)) == (0, {"unheard": why})


def test_status_of_one_client_says_both_that_it_hides_and_that_it_is_in_quarantine(
    made: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Quarantined(client_id="dev-2", reason="not_finite", since=0, until=4_000_000_000)
    leave_signed(made, "aggregator", progress(held))
    code, out, _ = shown_by_status(made, capsys, "dev-2")
    assert (code, out.count("\n")) == (0, 1)
    assert out.startswith("in quarantine: dev-2 (not_finite), since ")
    leave(made, "dev-2", TOPICS.status("dev-2"), b"evil")
    code, out, _ = shown_by_status(made, capsys, "dev-2")
    first, second = out.splitlines()
    assert first == "dev-2: its last status is unreadable or unsigned, and not shown: its header cannot be read"
    assert second.startswith("in quarantine: dev-2 (not_finite), since ")
    assert "until 2096-" in second
    code, out, _ = shown_by_status(made, capsys, "dev-9")
    assert (code, "clients there: dev-2;" in out) == (1, True)


def test_what_a_stranger_has_left_on_the_aggregators_topics_is_named(
    made: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(made, "aggregator", TOPICS.progress, b"\x1b[2Jevil")
    _, out, _ = shown_by_status(made, capsys)
    assert "what is on fedmq/f/progress is not shown: its header cannot be read\n" in out


def test_a_reason_that_quotes_what_came_is_short_and_printable_and_names_are_bounded() -> None:
    unheard = Unheard(TOPICS)
    for number in range(5000):
        unheard.refused(TOPICS.status(f"dev-{number}"), "\x1b[2J\nonline " * 100)
    assert len(unheard) == len(unheard.clients) == 1000
    assert all(why.isprintable() and len(why) < 1000 for why in unheard.clients.values())
    unheard.heard(TOPICS.status("dev-7"))
    assert "dev-7" not in unheard.clients


def test_check_and_status_say_when_certificates_end(
    tmp_path: Path, mosquitto_installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with ground(tmp_path / "ground") as other:
        task, config = "task.py", str(other.folder / "devices" / "dev-1" / "federation.toml")
        assert main(["check", task, "--config", config]) == 0
        said = capsys.readouterr().out
        for name, days in (("in .*/dev-1/identity.pem", 730), ("of the broker at localhost:[0-9]+", 397)):
            date = f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}"
            assert re.search(rf"\n +the certificate {name} ends on {date}, in {days} days\n", said), said
        assert "warning" not in said
        assert shown_by_status(other, capsys)[2] == ""

        ends_soon = Request(renew_all=True, changes={"device_days": 20, "server_days": 20})
        provision(other.folder, ends_soon, datetime.now(UTC) - timedelta(days=18))
        settle(other.broker)
        until(lambda: "broker at" in shown_by_status(other, capsys)[2], "the broker to show its new certificate")
        assert main(["check", task, "--config", config]) == 0
        said = capsys.readouterr().out
        assert re.search(r"\nwarning +the certificate in .*identity.pem ends on .*provision --renew", said), said
        assert re.search(r"\nwarning +the certificate of the broker at .* ends on .* nobody can connect", said), said
        own, of_the_broker = shown_by_status(other, capsys)[2].splitlines()
        assert own.startswith("fedmq status: warning: the certificate in ")
        assert of_the_broker.startswith("fedmq status: warning: the certificate of the broker at ")
