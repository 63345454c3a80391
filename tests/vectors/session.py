"""One short federation, message by message, and then the messages that are rarer."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np

from fedmq.schemas.codecs import CODECS
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    DeviceEvaluation,
    Evaluation,
    Head,
    Later,
    LayoutNotice,
    Missing,
    Need,
    Offer,
    Part,
    Progress,
    ProtocolMessage,
    Receipt,
    Reply,
    SnapshotPart,
    UpdateId,
)
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import Topics
from fedmq.schemas.wire import encode

RUN = "8d1f0c9b7a6e5d4c3b2a190807f6e5d4"
AGGREGATOR, DEVICE = "a0" * 16, "d7" * 16  # incarnations
OUTBOX = "0b" * 16
CLIENT = "dev-7"
TOPICS = Topics("orchard")
SMALL = Layout.of(
    [Entry("linear.weight", (2, 3)), Entry("linear.bias", (2,)), Entry("norm.running_var", (2,), kind="statistic")]
)
WEIGHTS = [0.5, -0.25, 1.0, 0.0, 2.0, -1.5, 0.125, -0.125, 1.0, 0.75]
UPDATE = [0.0625, -0.5, 0.25, 1.0, -1.0, 0.03125, 0.5, 0.0, 1.5, 0.5]

ONLINE = AggregatorPresence(state="online", run=RUN, incarnation=AGGREGATOR, version=0)


def head(version: int, state: Literal["training", "finished"], plan: Plan) -> tuple[Head, bytes]:
    """A snapshot, always with the same weights."""
    body = _encoded(WEIGHTS, "float32")
    said: dict[str, Any] = {"run": RUN, "version": version, "state": state, "plan": plan, "layout": SMALL.digest}
    return Head(**said, codec="float32", **_measured(body)), body


def offer(sequence: int, base_version: int, codec: str, **more: Any) -> tuple[Offer, bytes]:
    """An offer of the one update that there is."""
    body = _encoded(UPDATE, codec)
    said: dict[str, Any] = {"run": RUN, "client_id": CLIENT, "update": _id(sequence), "base_version": base_version}
    return Offer(**said, layout=SMALL.digest, codec=codec, **_measured(body), **more), body


def session() -> list[dict[str, Any]]:
    """Rows of name, topic, whether it is retained, message, body and payload."""
    evaluation = Evaluation(num_samples=40, metrics={"accuracy": 0.625, "loss": 0.9})
    measured = {"metrics": {"loss": 0.75}, "evaluation": evaluation, "task_version": "1"}
    first, first_body = offer(0, 0, "float16", num_samples=200, **measured)
    later_on, later_body = offer(300, 70_000, "float32", num_samples=1 << 40)
    other_plan = Plan(
        local_steps=10,
        batch_size=8,
        learning_rate=0.01,
        optimizer="adamw",
        weight_decay=0.1,
        proximal=0.005,
        codec="float16",
        max_staleness=50,
        local_parameters=("head.*",),
        continuous=True,
    )
    training = ClientStatus(
        state="online",
        client_id=CLIENT,
        incarnation=DEVICE,
        connection=1,
        activity="training",
        run=RUN,
        task_version="1",
        downlink_bytes=725,
        uplink_today=61_440,
        downlink_today=102_400,
    )
    progress = Progress(
        run=RUN,
        version=7,
        state="training",
        strategy="fedbuff",
        updates=20,
        rejected={"not_finite": 1},
        updates_per_second=0.5,
        mean_staleness=2.25,
        buffer_size=2,
        buffered=1,
        goal="until stopped",
        devices=DeviceEvaluation(clients=2, num_samples=80, mean={"accuracy": 0.5}, spread={"accuracy": 0.125}),
        devices_version=7,
        clients=(CLIENT,),
        uplink_bytes=480,
    )
    accepted = Receipt(update=_id(0), verdict="accepted", version=0, staleness=0, digest=first.digest[:16])
    two = (
        Receipt(update=_id(1), verdict="accepted", version=7, staleness=3),
        Receipt(update=_id(2), verdict="rejected", reason="not_finite", detail="the update has a NaN or an infinity"),
    )
    in_parts, weights = head(8, "training", Plan())
    in_parts = in_parts.model_copy(update={"slot": 0, "part_bytes": 24})
    large = later_on.model_copy(update={"update": _id(3), "number": 1})
    part = Part(run=RUN, update=_id(3), digest=large.digest, offset=24, number=2)
    missing = Missing(update=_id(3), ranges=((24, 40),), window=8, heard=1)
    starting = ONLINE.model_copy(update={"state": "starting"})
    gone = ONLINE.model_copy(update={"state": "offline"})
    dead = ClientStatus(state="offline", client_id=CLIENT, incarnation=DEVICE)
    update, status = TOPICS.update(CLIENT), TOPICS.status(CLIENT)
    return [
        _row("aggregator starting", TOPICS.aggregator, starting),
        _retained("aggregator online", TOPICS.aggregator, ONLINE),
        _retained("layout", TOPICS.layout, LayoutNotice(run=RUN, digest=SMALL.digest), SMALL.encoded),
        _retained("head of version 0", TOPICS.model, *head(0, "training", Plan(codec="float16"))),
        _retained("status of a client that trains", status, training),
        _row("first offer of an update, with its bytes", update, first, first_body),
        _row("the same offer again, without", update, first),
        _reply("missing: send the bytes", missing=(Missing(update=_id(0), ranges=((0, first.size),)),)),
        _reply("later: no verdict yet", later=(Later(update=_id(0), reason="busy", seconds=12.5),)),
        _reply("accepted", receipts=(accepted,)),
        _reply("two verdicts in one reply", receipts=two),
        _row("an offer with large numbers and nothing measured", update, later_on, later_body),
        _retained("head with another plan, finished", TOPICS.model, *head(71_000, "finished", other_plan)),
        _retained("a part of a snapshot", TOPICS.part(0, 0), SnapshotPart(run=RUN, version=8), weights[:24]),
        _retained("head of a slot", TOPICS.slot(0), in_parts),
        _retained("head of a snapshot in parts", TOPICS.model, in_parts),
        _row("taking a snapshot in parts", update, Need(run=RUN, version=8)),
        _row("a part of it did not come", update, Need(run=RUN, version=8, parts=(1,))),
        _row("offer of an update that goes in parts", update, large),
        _reply("missing: send these parts", missing=(missing,)),
        _row("a part of an update", update, part, later_body[24:]),
        _retained("progress", TOPICS.progress, progress),
        _retained("aggregator's last will", TOPICS.aggregator, gone),
        _retained("client's last will", status, dead),
    ]


def _row(name: str, topic: str, message: ProtocolMessage, body: bytes = b"", retained: bool = False) -> dict[str, Any]:
    said = message.model_dump(mode="json", exclude_none=True)
    payload = encode(message, body).hex()
    return {"name": name, "topic": topic, "retained": retained, "message": said, "body": body.hex(), "payload": payload}


def _retained(name: str, topic: str, message: ProtocolMessage, body: bytes = b"") -> dict[str, Any]:
    return _row(name, topic, message, body, retained=True)


def _reply(name: str, **lists: Any) -> dict[str, Any]:
    return _row(name, TOPICS.reply(CLIENT), Reply(run=RUN, incarnation=AGGREGATOR, **lists))


def _encoded(values: list[float], codec: str) -> bytes:
    return bytes(CODECS[codec].encode(np.array(values, np.float32), SMALL))


def _measured(body: bytes) -> dict[str, Any]:
    return {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}


def _id(sequence: int) -> UpdateId:
    return UpdateId(outbox_id=OUTBOX, sequence=sequence)
