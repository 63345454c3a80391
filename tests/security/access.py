"""Who can do what at a provisioned broker, found by trying: the table in SECURITY.md."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.security.ground import EYE, GONE, Ground, seen_between
from tests.security.peers import Login, Peer

ACCOUNTS = ("aggregator", "operator", "dev-1", "dev-2")

TOPICS = (
    "fedmq/f/aggregator",
    "fedmq/f/model",
    "fedmq/f/model/0",
    "fedmq/f/model/0/7",
    "fedmq/f/layout",
    "fedmq/f/progress",
    *(f"fedmq/f/{kind}/{device}" for kind in ("update", "reply", "status") for device in ("dev-1", "dev-2", GONE)),
    "fedmq/f",
    "fedmq/f/dev-1",
    "fedmq/f/update",
    "fedmq/f/update/dev-1/evil",
    "fedmq/f/update/evil/dev-1",
    "fedmq/f/status/dev-1/evil",
    "fedmq/f/model/0/7/evil",
    "fedmq/f/model/0/7/",
    "fedmq/f//update/dev-1",
    "/fedmq/f/update/dev-1",
    "fedmq/other/model",
    "fedmq/other/update/dev-1",
    "update/dev-1",
    "anything",
)
VERSION = "$SYS/broker/version"
"""The broker publishes it itself, retained."""

FENCE = "fedmq/f/progress"  # everybody reads it


@dataclass(frozen=True)
class Access:
    """What one login could do. Nothing at all if it did not come in.

    Attributes:
        refusal: why it did not come in.
        reads: topics that it was sent something of.
        writes: topics on which the eye saw what it published.

    """

    refusal: str | None
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


def logins(at: Ground) -> dict[str, Login]:
    """Everybody who tries, by the heading of the column."""
    one = at.login("dev-1")
    return {
        **{account: at.login(account) for account in ACCOUNTS},
        "revoked": at.login(GONE),
        "no login": replace(one, username=None, password=None, identity=None),
        "certificate, no password": replace(one, username=None, password=None),
        "password, no certificate": replace(one, identity=None),
        "wrong password": replace(one, password="wrong"),
        "revoked certificate": replace(one, identity=at.login(GONE).identity),
        "other authority": at.stranger("dev-1"),
    }


def access(at: Ground, login: Login, client_id: str = "whoever", version: str = "5", qos: int = 1) -> Access:
    """Try to publish and to subscribe to every topic, each as it is, and not retained."""
    with at.peer(EYE) as eye, Peer(login, at.port, client_id, version=version) as peer:
        if peer.refusal is not None:
            return Access(peer.refusal)
        eye.subscribe("#", VERSION)
        eye.waits_for(lambda got: got.topic == VERSION)

        def publish_all() -> None:
            peer.send(TOPICS, b"write", qos=qos)
            peer.publish(VERSION, b"write")

        seen = seen_between(eye, publish_all)
        writes = {got.topic for got in seen if got.payload == b"write"}
        peer.subscribe(*TOPICS, VERSION)
        eye.send(TOPICS, b"read")
        eye.publish(FENCE, b"fence")
        peer.waits_for(lambda got: got.payload == b"fence")
        reads = {got.topic for got in peer.got if got.payload == b"read" or got.topic == VERSION}
        return Access(None, frozenset(reads), frozenset(writes))


def measured(at: Ground, version: str = "5") -> dict[str, Access]:
    """What everybody could do."""
    return {name: access(at, login, version=version) for name, login in logins(at).items()}


def table(found: dict[str, Access]) -> str:
    """The tables, Markdown: R where something was received, W where something was published; and who came in."""
    inside = {name: one for name, one in found.items() if one.refusal is None}
    rows = ["| topic | " + " | ".join(inside) + " |", "| --- |" + " --- |" * len(inside)]
    for topic in (*TOPICS, VERSION):
        cells = ("R" * (topic in one.reads) + "W" * (topic in one.writes) for one in inside.values())
        rows.append(f"| `{_in_words(topic)}` | " + " | ".join(cell or "-" for cell in cells) + " |")
    rows += ["", "| who tries | comes in |", "| --- | --- |"]
    rows += [f"| {name} | {'no' if one.refusal else 'yes'} |" for name, one in found.items()]
    return "\n".join(rows) + "\n"


def _in_words(topic: str) -> str:
    levels = ({"f": "{federation}", GONE: "{revoked}"}.get(level, level) for level in topic.split("/"))
    return "/".join(levels)
