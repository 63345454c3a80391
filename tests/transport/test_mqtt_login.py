"""Passwords, access rules, TLS and certificates, with a Mosquitto that asks for them."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedmq.broker_config.child import start_child
from fedmq.broker_config.mosquitto import find_mosquitto
from fedmq.broker_config.settings import BrokerSettings
from fedmq.transport.link import Connected, Disconnected, Message, Refused
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_reasons import connection_said, is_of_login, network_said
from fedmq.transport.mqtt_settings import MqttSettings
from tests.brokers import PATIENCE, expect, fence, opened, read_packet, scripted_broker, subscribed

pytestmark = pytest.mark.broker


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 that is its own authority."""

    cert: Path
    key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Certificate]:
    """The broker's, and one that it does not know."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("certificates")
    made = []
    for name in ("known", "unknown"):
        certificate = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
        command += ["-keyout", str(certificate.key), "-out", str(certificate.cert)]
        subprocess.run(command, check=True, capture_output=True)
        made.append(certificate)
    return made[0], made[1]


@pytest.fixture
def run_mosquitto(mosquitto_installed: None, tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Starts a Mosquitto with these lines after its listener; returns its port."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(lines: str) -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        configuration = tmp_path / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        configuration.write_text(f"listener {port} 127.0.0.1\n{user}{lines}\n")
        binary = find_mosquitto()
        assert binary is not None
        processes.append(start_child([binary, "-c", str(configuration)], tmp_path / "log"))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
            except OSError:
                assert processes[-1].poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return port

    yield run
    for process in processes:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def connect() -> Iterator[Callable[[MqttSettings], MqttLink]]:
    links: list[MqttLink] = []

    def make(settings: MqttSettings) -> MqttLink:
        links.append(MqttLink(replace(settings, reconnect_max_seconds=0.2), "ada"))
        return links[-1]

    yield make
    for link in links:
        link.close()


def password_line(user: str, password: str) -> str:
    """As Mosquitto stores it; 12 bytes of salt, because 2.0.11 takes no others."""
    salt = bytes(range(12))
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


RunMosquitto = Callable[[str], int]
Connect = Callable[[MqttSettings], MqttLink]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_wrong_password_is_refused_with_advice_and_the_right_one_is_let_in(
    run_mosquitto: RunMosquitto, connect: Connect, tmp_path: Path, version: str
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(password_line("ada", "right"))
    passwords.chmod(0o600)
    port = run_mosquitto(f"allow_anonymous false\npassword_file {passwords}")
    settings = replace(MqttSettings(port=port), username="ada", mqtt_version=version)  # type: ignore[arg-type]
    for wrong in (replace(settings, password="wrong"), replace(settings, username=None)):
        link = connect(wrong)
        link.open()
        ended = expect(link, Disconnected)
        assert ended.login_refused
        assert "refused the connection" in ended.reason
        assert "check username" in ended.reason
    subscribed(opened(connect(replace(settings, password="right"))), "ada/a")


def test_a_publish_against_the_access_rules_is_refused_on_mqtt_5(
    run_mosquitto: RunMosquitto, connect: Connect, tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite ada/#\n")
    port = run_mosquitto(f"allow_anonymous true\nacl_file {rules}")
    link = opened(connect(MqttSettings(port=port)))
    link.publish("bob/a", b"may I")
    assert expect(link, Refused).topic == "bob/a"
    assert fence(link, "ada/fence") == []


def test_tls_carries_large_messages_both_ways(
    run_mosquitto: RunMosquitto, connect: Connect, certificates: tuple[Certificate, Certificate]
) -> None:
    known, _ = certificates
    port = run_mosquitto(f"allow_anonymous true\ncertfile {known.cert}\nkeyfile {known.key}")
    link = opened(connect(MqttSettings(port=port, tls=True, ca_file=known.cert)))
    subscribed(link, "ada/a")
    payload = os.urandom(3_000_000)
    for _ in range(3):
        link.publish("ada/a", payload)
    for _ in range(3):
        assert expect(link, Message).payload == payload


def test_messages_that_share_a_tls_record_all_come_at_once(
    connect: Connect, certificates: tuple[Certificate, Certificate]
) -> None:
    known, _ = certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known.cert, known.key)

    def script(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as encrypted:
            read_packet(encrypted)
            # An acknowledgement before every message.
            encrypted.sendall(bytes([0x20, 2, 0, 0]) + b"\x40\x02\x00\x01\x30\x04\x00\x01ax" * 100)
            while encrypted.recv(4096):
                pass

    with scripted_broker(script) as port:
        link = opened(connect(MqttSettings(port=port, tls=True, ca_file=known.cert, mqtt_version="3.1.1")))
        started = time.monotonic()
        for wait in [PATIENCE] * 50 + [0.0] * 50:
            assert link.poll(wait) == Message("a", b"x")
        assert time.monotonic() - started < PATIENCE / 4
        link.close()


def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    run_mosquitto: RunMosquitto, connect: Connect, certificates: tuple[Certificate, Certificate]
) -> None:
    known, unknown = certificates
    port = run_mosquitto(f"allow_anonymous true\ncertfile {known.cert}\nkeyfile {known.key}")
    for ca_file in (unknown.cert, None):
        link = connect(MqttSettings(port=port, tls=True, ca_file=ca_file))
        link.open()
        assert "is not trusted" in expect(link, Disconnected).reason


def test_a_certificate_for_another_name_is_not_trusted(
    run_mosquitto: RunMosquitto, connect: Connect, certificates: tuple[Certificate, Certificate]
) -> None:
    known, _ = certificates
    port = run_mosquitto(f"allow_anonymous true\ncertfile {known.cert}\nkeyfile {known.key}")
    link = connect(MqttSettings(host="localhost", port=port, tls=True, ca_file=known.cert))
    link.open()
    assert "not valid for 'localhost'" in expect(link, Disconnected).reason


def test_a_broker_that_asks_for_a_certificate_gets_it(
    run_mosquitto: RunMosquitto, connect: Connect, certificates: tuple[Certificate, Certificate]
) -> None:
    known, _ = certificates
    lines = f"allow_anonymous true\ncafile {known.cert}\ncertfile {known.cert}\nkeyfile {known.key}"
    port = run_mosquitto(f"{lines}\nrequire_certificate true")
    settings = MqttSettings(port=port, tls=True, ca_file=known.cert)
    stranger = connect(settings)
    stranger.open()
    assert expect(stranger, Disconnected).reason
    subscribed(opened(connect(replace(settings, cert_file=known.cert, key_file=known.key))), "ada/a")


def until_it_says(link: MqttLink, words: str) -> None:
    """Wait until an attempt to connect ends with these words."""
    deadline = time.monotonic() + PATIENCE
    while words not in (reason := expect(link, Disconnected).reason):
        assert time.monotonic() < deadline, reason


def test_files_that_change_count_for_the_next_connection_and_bad_ones_for_none(
    run_mosquitto: RunMosquitto,
    connect: Connect,
    certificates: tuple[Certificate, Certificate],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fedmq.login")
    known, unknown = certificates
    passwords, word = tmp_path / "passwords", tmp_path / "password"
    passwords.write_text(password_line("ada", "right"))
    passwords.chmod(0o600)
    lines = f"allow_anonymous false\npassword_file {passwords}\ncafile {known.cert}\nrequire_certificate true"
    port = run_mosquitto(f"{lines}\ncertfile {known.cert}\nkeyfile {known.key}")
    ca_file, own = tmp_path / "ca.pem", Certificate(tmp_path / "own.pem", tmp_path / "own.key")

    def put(certificate: Certificate) -> None:
        shutil.copy(certificate.key, own.key)
        shutil.copy(certificate.cert, own.cert)

    shutil.copy(unknown.cert, ca_file)
    put(unknown)
    word.write_text("wrong")
    settings = MqttSettings(port=port, tls=True, ca_file=ca_file, cert_file=own.cert, key_file=own.key, username="ada")
    read = BrokerSettings(username="ada", password_file=word).read_password
    link = connect(replace(settings, read_password=read))
    link.open()
    until_it_says(link, "is not trusted")
    shutil.copy(known.cert, ca_file)
    until_it_says(link, "unknown ca")
    put(known)
    until_it_says(link, "refused the connection")
    word.write_text("right")
    expect(link, Connected)
    for path in (ca_file, own.cert, own.key, word):
        path.write_text("")
    rival = replace(settings, ca_file=known.cert, cert_file=known.cert, key_file=known.key, password="right")
    opened(connect(rival)).close()  # which has the same name, and so ends the connection
    expect(link, Disconnected)
    expect(link, Connected)
    said = " ".join(caplog.messages)
    assert f"certificates read again ca_file={ca_file} cert_file={own.cert}" in said
    assert "password read again username=ada" in said
    assert "right" not in said
    assert "certificates from before are used: ca_file" in said
    assert "the password from before is used: broker.password_file" in said


def test_plain_tcp_and_tls_do_not_mix_and_the_reasons_say_so(
    run_mosquitto: RunMosquitto, connect: Connect, certificates: tuple[Certificate, Certificate]
) -> None:
    known, _ = certificates
    plain = run_mosquitto("allow_anonymous true")
    link = connect(MqttSettings(port=plain, tls=True, ca_file=known.cert, connect_timeout_seconds=1.0))
    link.open()
    reason = expect(link, Disconnected).reason
    assert "TLS" in reason or "in time" in reason
    encrypted = run_mosquitto(f"allow_anonymous true\ncertfile {known.cert}\nkeyfile {known.key}")
    link = connect(MqttSettings(port=encrypted, connect_timeout_seconds=1.0))
    link.open()
    assert "is it an MQTT broker" in expect(link, Disconnected).reason


def test_a_handshake_that_breaks_off_is_said_without_a_place_in_the_source() -> None:
    error = ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:2427)")
    said = "TLS with b:1 failed: eof occurred in violation of protocol; is it a TLS port, "
    assert network_said(error, "b:1").startswith(said)


def test_a_name_that_the_certificate_lacks_is_said_with_one_stop() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 64, "IP address mismatch, certificate is not valid for '127.0.0.1'."
    assert "is not valid for '127.0.0.1'; set ca_file" in network_said(error, "b:1")


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", "the broker at b:1 says that this certificate is revoked"),
        ("WRONG_VERSION_NUMBER", "TLS with b:1 failed: wrong version number; is it a TLS port"),
        (
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "the broker at b:1 says that this certificate has ended, by its clock; put",
        ),
        (None, "TLS with b:1 failed: the peer hung up; is it a TLS port"),
    ],
)
def test_what_a_failed_handshake_means(reason: str | None, says: str) -> None:
    error = ssl.SSLError(1, "the peer hung up")
    if reason is not None:
        error.reason = reason
    assert network_said(error, "b:1").startswith(says)
    assert is_of_login(error) is ("revoked" in says)
    assert connection_said(error, "b:1", accepted=True).startswith(says)


@pytest.mark.parametrize(("code", "says"), [(9, "is not valid yet"), (10, "has ended")])
def test_of_a_certificate_of_another_time_the_clock_is_to_be_looked_at(code: int, says: str) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    said = network_said(error, "b:1")
    assert f"of b:1, or of its authority, {says} by this machine's clock, on which it is 2" in said
    assert "ca_file" not in said
