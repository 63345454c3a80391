from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedmq.broker_config import start
from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import find_mosquitto
from fedmq.broker_config.start import RunningBroker, start_broker
from fedmq.schemas.errors import ConfigError, TransportError
from fedmq.transport.link import Connected, Message
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import PATIENCE, expect, opened, subscribed

linux = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and the parent-death signal")
ENGINES = [pytest.param("mosquitto", marks=pytest.mark.broker), "embedded"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "mosquitto":
        request.getfixturevalue("mosquitto_installed")
    return str(request.param)


@pytest.fixture
def broker(engine: str, request: pytest.FixtureRequest) -> RunningBroker:
    """The one that all tests share."""
    found = request.getfixturevalue(engine)
    assert isinstance(found, RunningBroker)
    return found


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def gone(port: int) -> bool:
    """Whether the port falls silent before the deadline."""
    deadline = time.monotonic() + PATIENCE
    while answers(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_broker_answers_both_versions_at_the_urls_that_it_names(broker: RunningBroker, federation: str) -> None:
    assert broker.url == broker.urls["5"]
    for version, url in broker.urls.items():
        port = int(url.removeprefix("mqtt://127.0.0.1:"))
        link = opened(MqttLink(MqttSettings(port=port, mqtt_version=version), federation))  # type: ignore[arg-type]
        link.close()


@linux
def test_a_broker_listens_on_loopback_only(broker: RunningBroker) -> None:
    # Inodes of the process's sockets, then the local addresses of those that listen (state 0A).
    links = [os.readlink(entry) for entry in Path(f"/proc/{broker.pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    addresses = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[9] in inodes and (table.startswith("udp") or fields[3] == "0A"):
                addresses.append(fields[1].split(":")[0])
    assert addresses
    assert set(addresses) == {"0100007F"}


@linux
def test_ctrl_c_in_the_terminal_passes_a_broker_by(broker: RunningBroker) -> None:
    assert os.getsid(broker.pid) == broker.pid != os.getsid(0)


def test_the_largest_message_passes(engine: str, tmp_path: Path) -> None:
    with start_broker(engine, folder=tmp_path, max_message_bytes=1_000_000) as broker:  # type: ignore[arg-type]
        for version, port in broker.ports.items():
            link = opened(MqttLink(MqttSettings(port=port, mqtt_version=version), "ada"))  # type: ignore[arg-type]
            subscribed(link, "ada/a")
            link.publish("ada/a", bytes(1_000_000))
            assert expect(link, Message).payload == bytes(1_000_000)
            link.close()


def test_a_broker_ends_with_its_context_and_twice_does_no_harm(engine: str, tmp_path: Path) -> None:
    with start_broker(engine, folder=tmp_path / "new" / "folder") as broker:  # type: ignore[arg-type]
        assert broker.engine == engine
        assert broker.running
    assert not broker.running
    assert not answers(broker.ports["5"])
    broker.stop()
    broker.kill()


@linux
def test_a_broker_dies_with_its_parent(engine: str, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from fedmq.broker_config.start import start_broker\n"
        "broker = start_broker(sys.argv[1], folder=Path(sys.argv[2]))\n"
        "print(*broker.ports.values(), flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, engine, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        ports = [int(word) for word in parent.stdout.readline().split()]
        assert ports
        assert all(answers(port) for port in ports)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert all(gone(port) for port in ports)


def test_a_port_that_is_taken_is_not_taken_for_the_broker(engine: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=f"port {port} of this machine is in use"):
            start_broker(engine, folder=tmp_path, port=port)  # type: ignore[arg-type]


@pytest.mark.broker
def test_a_broker_that_does_not_start_is_an_error_with_its_own_words(mosquitto_installed: None, tmp_path: Path) -> None:
    (tmp_path / "mosquitto.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TransportError, match="ended while starting") as caught:
        start_broker("mosquitto", folder=tmp_path, persistent=True)
    assert str(tmp_path / "broker.log") in str(caught.value)
    assert "Couldn't open database" in str(caught.value)


def test_the_port_can_be_chosen(engine: str, tmp_path: Path) -> None:
    with start_broker(engine, folder=tmp_path) as broker:  # type: ignore[arg-type]
        port = broker.ports["5"]
    with start_broker(engine, folder=tmp_path, port=port) as broker:  # type: ignore[arg-type]
        assert broker.url == f"mqtt://127.0.0.1:{port}"


def test_a_folder_that_cannot_be_used_is_a_config_error(engine: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        start_broker(engine, folder=tmp_path / "file")  # type: ignore[arg-type]
    said = f"a broker cannot be started in {tmp_path}/file: it is a file and no folder; choose another folder"
    assert str(caught.value) == said


@pytest.mark.broker
def test_a_persistent_mosquitto_keeps_retained_messages_and_sessions(mosquitto_installed: None, tmp_path: Path) -> None:
    def sleeper(port: int) -> MqttLink:
        return MqttLink(MqttSettings(port=port), "sleeper", durable=True)

    with start_broker("mosquitto", folder=tmp_path, persistent=True) as running:
        link = opened(sleeper(running.ports["5"]))
        subscribed(link, "a/b")
        link.publish("a/model", b"retained", retain=True)
        assert link.flush(PATIENCE)
        link.close()
    with start_broker("mosquitto", folder=tmp_path, persistent=True) as running:
        link = sleeper(running.ports["5"])
        link.open()
        assert expect(link, Connected).session_present
        link.subscribe("a/model")
        assert expect(link, Message) == Message("a/model", b"retained")
        link.close()


def test_persistence_is_not_promised_by_the_embedded_broker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keeps nothing"):
        start_broker("embedded", folder=tmp_path, persistent=True)


@pytest.mark.broker
def test_auto_prefers_mosquitto_then_the_embedded_one_then_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, mosquitto_installed: None, tmp_path: Path
) -> None:
    with start_broker(folder=tmp_path) as broker:
        assert broker.engine == "mosquitto"
    monkeypatch.setattr(start, "find_mosquitto", lambda: None)
    with start_broker(folder=tmp_path) as broker:
        assert broker.engine == "embedded"
    monkeypatch.setattr(start, "has_embedded", lambda: False)
    with pytest.raises(ConfigError, match=r"apt install mosquitto.*pip install fedmq\[embedded\]"):
        start_broker(folder=tmp_path)


@pytest.mark.broker
def test_mosquitto_is_found_where_a_users_path_does_not_lead(
    monkeypatch: pytest.MonkeyPatch, mosquitto_installed: None, tmp_path: Path
) -> None:
    binary = find_mosquitto()
    assert binary is not None
    if Path(binary).parent != Path("/usr/sbin"):
        pytest.skip("it is installed somewhere else")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mosquitto() == binary


@pytest.mark.broker
def test_the_configuration_for_docker_compose_starts(
    mosquitto_installed: None, tmp_path: Path, federation: str
) -> None:
    binary = find_mosquitto()
    assert binary is not None
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    text = Path(start.__file__).with_name("mosquitto.conf").read_text(encoding="utf-8")
    for here, there in (("listener 1883\n", f"listener {port} 127.0.0.1\n"), ("/mosquitto/data/", f"{tmp_path}/")):
        assert text.count(here) == 1
        text = text.replace(here, there)
    if os.geteuid() == 0:
        text += "\nuser root\n"  # the image has a mosquitto user, this folder is not his
    configuration, log = tmp_path / "mosquitto.conf", tmp_path / "log"
    configuration.write_text(text, encoding="utf-8")
    process = start_child([binary, "-c", str(configuration)], log)
    try:
        link = MqttLink(MqttSettings(port=port, reconnect_max_seconds=0.1), federation)
        link.open()
        assert expect(link, Connected).max_packet_bytes == 16842752
        link.publish("a/model", bytes(16 << 20), retain=True)
        assert link.flush(PATIENCE)
        link.close()
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert "Error" not in log.read_text(encoding="utf-8")
    assert (tmp_path / "mosquitto.db").stat().st_size > 16 << 20
