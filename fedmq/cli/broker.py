"""Run an MQTT broker on this machine: a private one for trying things out, or with --secure a provisioned one.

The private one is open to everyone who reaches it, so it listens on 127.0.0.1 unless --insecure is said too. A
provisioned one is Mosquitto with the rules, passwords and certificates that `fedmq provision` has made; it follows
their changes, and is started again when it ends by itself. Where root starts it, it runs as the user to whom the folder
with its files belongs.

Exit codes: 0 when it was stopped, 1 when it could not be started, or ended by itself (a provisioned one: five times,
each within a minute of its start), 2 when its configuration or an argument is wrong.
"""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from fedmq.broker_config.certificate_end import CertificateEnd
from fedmq.broker_config.provision.host_names import broker_url
from fedmq.broker_config.provision.record import Record
from fedmq.broker_config.secure import SecureBroker, other_port
from fedmq.broker_config.start import is_loopback, openness, start_broker
from fedmq.schemas.errors import ConfigError

EXAMPLE = "fedmq broker --port 1883"

_LOOK_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--engine",
        choices=("auto", "mosquitto", "embedded"),
        default="auto",
        help="auto: Mosquitto where it is installed, else the embedded broker",
    )
    parser.add_argument("--port", type=int, help="0 takes a free one (default: 1883)")
    parser.add_argument("--folder", type=Path, help="for its configuration and log (default: a temporary one)")
    parser.add_argument("--max-message-bytes", type=int, help="the largest message (default: 16 MiB)")
    parser.add_argument("--listen", metavar="ADDRESS", help="of this machine (default: 127.0.0.1)")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="with --listen: let whoever reaches the address read and write all; with --secure: run it also with a"
        " configuration that is not the provisioned one",
    )
    parser.add_argument("--secure", type=Path, metavar="DIR", help="the folder that `fedmq provision` has made")


def run(options: argparse.Namespace) -> int:
    """Do it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.secure is not None:
            _run_secure(options)
        return _run_open(options)
    except KeyboardInterrupt:
        return 0


def _run_open(options: argparse.Namespace) -> int:
    port = 1883 if options.port is None else options.port
    if not 0 <= port < 65536:
        raise ConfigError(f"--port {port}: expected a port from 1 to 65535, or 0 for a free one")
    listen = "127.0.0.1" if options.listen is None else options.listen
    with tempfile.TemporaryDirectory(prefix="fedmq-broker-") as temporary:
        folder = options.folder or Path(temporary)
        with start_broker(
            options.engine,
            folder=folder,
            port=port,
            max_message_bytes=options.max_message_bytes or 16 << 20,
            listen=listen,
            insecure=options.insecure,
        ) as broker:
            if not is_loopback(listen):
                _warn(openness(broker.engine, listen))
            at = f"{broker.url}{_from_elsewhere(listen, broker.ports['5'])}"
            print(f"{broker.engine} broker at {at} (log: {broker.log}); Ctrl-C stops it", flush=True)
            while broker.running:
                time.sleep(_LOOK_SECONDS)
        print(f"the broker ended by itself; see {broker.log}", flush=True)
    return 1


def _run_secure(options: argparse.Namespace) -> NoReturn:
    if options.engine == "embedded":
        raise ConfigError("the embedded broker has no rules for topics; --secure needs Mosquitto")
    for name in ("port", "folder", "max_message_bytes", "listen"):
        if getattr(options, name) is not None:
            option = "--" + name.replace("_", "-")
            how = f"; {other_port(options.secure)}" if name == "port" else ""
            raise ConfigError(f"{option} does not go with --secure: the provisioned configuration decides it{how}")
    with SecureBroker(options.secure, insecure=options.insecure) as broker:
        at = f"mosquitto at {_named(broker.record) or broker.running.url}, with the rules in {options.secure}"
        print(f"{at} (log: {broker.running.log}); Ctrl-C stops it", flush=True)
        for line in broker.warnings:
            _warn(line)
        end = _end_of_certificate(broker, options.secure)
        while True:
            if ending := end.look(datetime.now(UTC)):
                _warn(ending)
            time.sleep(_LOOK_SECONDS)
            if said := broker.follow():
                print(said, flush=True)


def _from_elsewhere(listen: str, port: int) -> str:
    """How others reach a broker that listens on every address: the one that is shown is this machine's own."""
    if not ipaddress.ip_address(listen).is_unspecified:
        return ""
    return f" on this machine, and for others at mqtt://HOST:{port}, where HOST is this machine's name or address"


def _named(record: Record | None) -> str | None:
    """The url that devices use, whose name the broker's certificate has; None where only the broker's files are."""
    return None if record is None else broker_url(record.hosts[0], record.port)


def _end_of_certificate(broker: SecureBroker, folder: Path) -> CertificateEnd:
    record = broker.record
    if record is None:
        return CertificateEnd(broker.certificate, Record.model_fields["renew_days"].default, "DIR")
    return CertificateEnd(broker.certificate, record.renew_days, str(folder))


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)
