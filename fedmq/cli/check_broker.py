"""What `fedmq check` tries with the broker: login, rights and packet size, without disturbing who is at work.

Nothing that it sends is retained, and all of it is a message of the protocol that changes nothing.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import time
from pathlib import Path

from fedmq.broker_config.plain_text import in_plain_text
from fedmq.cli.check_signing import CheckedSignatures
from fedmq.connect import mqtt_link
from fedmq.edge_client.turned_away import of_a_login, of_an_id
from fedmq.keys import device_keys
from fedmq.schemas.errors import ProtocolError, TransportError
from fedmq.schemas.messages import ClientStatus, Need
from fedmq.schemas.parts import part_bytes
from fedmq.schemas.signing import SIGNATURE_BYTES, Keys, sealed
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import decode, encode
from fedmq.settings import Settings
from fedmq.transport.link import Connected, Disconnected, Event, Link, Message, Refused
from fedmq.transport.mqtt import MqttLink
from fedmq.transport.mqtt_reasons import CUT_AGAIN

__all__ = ["check_broker"]

_SECONDS = 10.0
_RETAINED_SECONDS = 1.0
_ECHO_SECONDS = 2.0


def check_broker(settings: Settings, client_id: str, update_size: int) -> None:
    """Try what this client will do; prints what came of it.

    A device at work is left alone. Its connection would be taken away where the broker decides a client's id by its
    login, so one at work on this machine is not even asked for; one elsewhere is heard before anything is sent.

    Raises:
        ConfigError: a key cannot be read, or none that it has is the aggregator's.
        TransportError: the broker does not let this client do its work.

    """
    where = settings.broker.url
    if _works_here(settings.device_folder(client_id)):
        print(
            f"broker     {where}: not tried, because {client_id} is at work on this machine, and uses it; stop it first"
        )
        return
    topics = Topics(settings.federation)
    keys = device_keys(settings.signing, client_id)
    link, limit = _connected(settings, client_id)
    try:
        print(f"broker     {where}: logged in")
        _show_certificates(link, settings)
        if readable := in_plain_text(settings.broker):
            print(f"warning    {readable}")
        _try(link, topics, client_id, keys, where, limit, update_size)
    finally:
        link.close()


def _show_certificates(link: MqttLink, settings: Settings) -> None:
    now = time.time()
    for certificate in link.certificates:
        print(f"           {certificate.name} ends on {certificate.ends(now)}")
    if settings.broker.cert_file is not None and importlib.util.find_spec("cryptography") is None:
        print(f"           when {settings.broker.cert_file} ends is not known here: it takes the package cryptography")
    for certificate in link.certificates:
        if certificate.ends_soon(now):
            print(f"warning    {certificate.warning(now)}")


def _try(
    link: Link, topics: Topics, client_id: str, keys: Keys | None, where: str, limit: int | None, update_size: int
) -> None:
    own, update = topics.status(client_id), topics.update(client_id)
    reads = (topics.model, topics.aggregator, topics.reply(client_id), own)
    link.subscribe(*reads)
    refused: dict[str, str] = {}
    # What is retained comes first: whoever is online there must hear of nobody else under its id.
    until, online = time.monotonic() + _RETAINED_SECONDS, False
    signatures = CheckedSignatures(topics, client_id, keys)
    while not online and (event := link.poll(max(0.0, until - time.monotonic()))):
        _note(event, refused, where, client_id)
        if isinstance(event, Message):
            online = event.topic == own and _is_online(event.payload)
            signatures.heard(event)
    if online:
        for topic in reads:
            print(f"  {topic:<40} {_said(refused.get(topic), signatures.of(topic))}")
        print(f"  {client_id} is online elsewhere, so nothing was sent in its name; to try sending, stop it first")
        if refused:
            raise _not_allowed(client_id)
        signatures.conclude()
        return
    size = part_bytes(link.max_message_bytes - (SIGNATURE_BYTES + 2 if keys is not None else 0))
    nobodys = encode(Need(run="0" * 32, version=0, done=True))  # about a run that there is not
    probe = _probe(client_id, min(update_size, size))
    if keys is not None:
        nobodys, probe = sealed(update, nobodys, 0, keys.sign), sealed(own, probe, 0, keys.sign)
    link.publish(update, nobodys)
    link.publish(own, probe)
    taken = link.flush(_SECONDS)
    heard = False
    until = time.monotonic() + _ECHO_SECONDS
    while event := link.poll(0.0 if heard else max(0.0, until - time.monotonic())):
        _note(event, refused, f"{where}: cut the connection at {len(probe):,} bytes", client_id, f"; {CUT_AGAIN}")
        heard = heard or (isinstance(event, Message) and event.topic == own and event.payload == probe)
    if not heard:
        # Brokers often say yes and do nothing; this is the one topic where that shows.
        refused.setdefault(own, "what was published there did not come back")
    for topic in (*reads, update):
        seen = "works" if topic == own and heard else signatures.of(topic)
        print(f"  {topic:<40} {_said(refused.get(topic), seen)}")
    announced = "not announced" if limit is None else f"{limit:,} bytes"
    passed = "passed" if taken else "was not answered"
    print(f"messages   an update takes {max(1, -(-update_size // size)):,} of at most {size:,} bytes")
    print(f"packets    a message of {len(probe):,} bytes {passed}; the broker's limit: {announced}")
    if refused or not taken:
        raise _not_allowed(client_id)
    signatures.conclude()


def _works_here(folder: Path) -> bool:
    try:
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _connected(settings: Settings, client_id: str) -> tuple[MqttLink, int | None]:
    """A link that is connected, and the largest packet that the broker announces."""
    name = f"{settings.federation}-{client_id}"
    # Beside the device's own connection; but there are brokers that let a login use one client id only.
    for mqtt_client_id in (f"{name}-check-{os.urandom(4).hex()}", name):
        link = mqtt_link(settings.broker, mqtt_client_id)
        link.open()
        try:
            return link, _connect(link, settings.broker.url)
        except TransportError:
            link.close()
            if mqtt_client_id == name:
                raise
        except BaseException:
            link.close()
            raise
    raise AssertionError("the last one returns or raises")


def _connect(link: Link, where: str) -> int | None:
    """Wait for the connection; the largest packet that the broker announces."""
    deadline = time.monotonic() + _SECONDS
    failures = 0
    while True:
        event = link.poll(max(0.0, deadline - time.monotonic()))
        if isinstance(event, Connected):
            return event.max_packet_bytes
        if isinstance(event, Disconnected):
            failures += 1
            if failures > 1:  # the first may only be about the version of MQTT
                reason = of_a_login(event.reason) if event.login_refused else event.reason
                raise TransportError(f"{where}: {reason}")
        elif event is None and time.monotonic() >= deadline:
            raise TransportError(f"{where}: no answer within {_SECONDS:g} s")


def _note(event: Event, refused: dict[str, str], where: str, client_id: str, advice: str = "") -> None:
    """Remember what the broker refuses; raises TransportError, with `advice`, when it ends the connection."""
    if isinstance(event, Refused):
        refused[event.topic] = event.reason
    elif isinstance(event, Disconnected) and event.taken_over:
        raise TransportError(f"{where}: {client_id} is at work elsewhere and took its connection back; stop it first")
    elif isinstance(event, Disconnected):
        raise TransportError(f"{where}: {event.reason}{advice}")


def _is_online(payload: bytes) -> bool:
    try:
        return bool(payload) and decode(payload, ClientStatus)[0].state == "online"
    except ProtocolError:
        return False


def _probe(client_id: str, size: int) -> bytes:
    """A last will, which is what everyone knows of a client that is not there, made as large as a message may be."""
    status = encode(ClientStatus(state="offline", client_id=client_id, incarnation=os.urandom(16).hex()))
    return status + os.urandom(max(0, size - len(status)))


def _said(refusal: str | None, seen: str | None) -> str:
    return f"refused: {refusal}" if refusal is not None else seen or "not refused"


def _not_allowed(client_id: str) -> TransportError:
    return TransportError(
        f"the broker does not let this client do its work: {of_an_id(client_id)}; see its access rules and limits"
    )
