"""Every message of the protocol, as a frozen model. What is not here does not exist on the wire.

A field that a reader does not know is ignored, and new fields have defaults: so old and new speak with each other. What
changes the meaning of the old fields is a new `protocol` number. The one exception is the plan, see there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from fedmq.schemas.errors import LaterReason, Reason
from fedmq.schemas.plan import Plan
from fedmq.schemas.topics import ID_PATTERN

__all__ = [
    "PROTOCOL",
    "AggregatorPresence",
    "ClientStatus",
    "DeviceEvaluation",
    "Evaluation",
    "Head",
    "Later",
    "LayoutNotice",
    "Metrics",
    "Missing",
    "Need",
    "Offer",
    "Part",
    "Progress",
    "ProtocolMessage",
    "Quarantined",
    "Receipt",
    "Reply",
    "SnapshotPart",
    "UpdateId",
]

PROTOCOL = 1

Id = Annotated[str, Field(pattern=ID_PATTERN)]
Hex128 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, Field(max_length=2000)]
MetricName = Annotated[str, Field(min_length=1, max_length=64)]
Metrics = Annotated[dict[MetricName, FiniteFloat], Field(max_length=32)]
"""What an evaluation or a training measured, by name."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class ProtocolMessage(_Record):
    """What every message carries: the protocol's number and its own kind."""

    protocol: Literal[1] = 1
    kind: str


class Head(ProtocolMessage):
    """`model`, retained: the newest snapshot. Body: the weights, encoded; or nothing when they come in parts.

    Attributes:
        size, digest: of the encoded weights, in bytes and as SHA-256.
        slot: under which the parts lie; None if the weights are the body.
        part_bytes: of every part but the last.

    """

    kind: Literal["head"] = "head"
    run: Hex128
    version: Count
    state: Literal["training", "finished"] = "training"
    plan: Plan = Field(strict=False)
    layout: Sha256
    codec: Id
    size: Count
    digest: Sha256
    slot: Count | None = None
    part_bytes: Annotated[int, Field(ge=1, le=1 << 28)] | None = None


class SnapshotPart(ProtocolMessage):
    """`model/{slot}/{part}`, retained: a part of a snapshot. Body: its bytes, which begin at part x part_bytes."""

    kind: Literal["snapshot-part"] = "snapshot-part"
    run: Hex128
    version: Count


class LayoutNotice(ProtocolMessage):
    """`layout`, retained. Body: the layout's canonical form, whose SHA-256 `digest` is."""

    kind: Literal["layout"] = "layout"
    run: Hex128
    digest: Sha256


class Evaluation(_Record):
    """What weights scored on data that no one else sees.

    Attributes:
        num_samples: how many samples the metrics are means over.

    """

    num_samples: Count
    metrics: Metrics


class UpdateId(_Record):
    """Which update: with the client's id, which is the topic's, it is unique for ever."""

    outbox_id: Hex128
    sequence: Count


class Offer(ProtocolMessage):
    """`update/{client_id}`: here is an update. Body: the update, encoded; or nothing when it was sent before.

    Attributes:
        update: the update's id within the client.
        base_version: the version that it was trained from; staleness is counted from here.
        layout: digest of the layout that the update has.
        size, digest: of the encoded update, in bytes and as SHA-256.
        num_samples: training samples that went into it.
        metrics: what the training measured.
        evaluation: what the received weights, version `base_version`, scored on the device's own test data.
        task_version: which task file trained it.
        number: of a message about an update that does not fit into one; see `Part`.

    """

    kind: Literal["offer"] = "offer"
    run: Hex128
    client_id: Id
    update: UpdateId
    base_version: Count
    layout: Sha256
    codec: Id
    size: Count
    digest: Sha256
    num_samples: Annotated[int, Field(ge=1, le=(1 << 63) - 1)]
    metrics: Metrics = {}
    evaluation: Evaluation | None = None
    task_version: Annotated[str, Field(max_length=128)] = ""
    number: Count | None = None


class Part(ProtocolMessage):
    """`update/{client_id}`: a part of an update that was offered. Body: its bytes.

    Attributes:
        digest: of the whole update, as it was offered.
        offset: where the bytes lie in the encoded update.
        number: counts what this process has sent about the update, offers and parts: the answer says how far it is
            heard, so that nothing that is on its way is sent twice.

    """

    kind: Literal["part"] = "part"
    run: Hex128
    update: UpdateId
    digest: Sha256
    offset: Count
    number: Count


class Need(ProtocolMessage):
    """`update/{client_id}`: this device is taking a snapshot in parts.

    Attributes:
        version: of the snapshot; its slot is kept for as long as this is said again.
        parts: numbers of parts that did not come: publish them again.
        done: it is here, or given up: its slot need not be kept.

    """

    kind: Literal["need"] = "need"
    run: Hex128
    version: Count
    parts: Annotated[tuple[Count, ...], Field(max_length=64)] = ()
    done: bool = False


class Receipt(_Record):
    """The verdict on an update. Final.

    Attributes:
        digest: the beginning of the judged update's: a device whose disk was put back may have given the
            same id to other bytes, and then this receipt is not theirs.
        version: for an accepted update, the version that was current when it was folded in.
        staleness: for an accepted update, that version minus its base version.

    """

    update: UpdateId
    verdict: Literal["accepted", "rejected"]
    reason: Reason | None = None
    detail: Text = ""
    version: Count | None = None
    staleness: Count | None = None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")] | None = None


class Later(_Record):
    """No verdict yet: offer it again after `seconds`."""

    update: UpdateId
    reason: LaterReason
    seconds: Annotated[float, Field(ge=0, le=86_400)]


class Missing(_Record):
    """The offer is known, its bytes are not, or not all.

    Attributes:
        ranges: the first byte ranges [start, end) that are missing.
        window: how many parts may be on their way at a time.
        heard: the greatest `number` that was heard since the last offer; parts up to it that are missing were lost.

    """

    update: UpdateId
    ranges: Annotated[tuple[tuple[Count, Count], ...], Field(max_length=64)]
    window: Annotated[int, Field(ge=1, le=64)] = 1
    heard: Count | None = None


class Reply(ProtocolMessage):
    """`reply/{client_id}`: what became of this client's offers."""

    kind: Literal["reply"] = "reply"
    run: Hex128
    incarnation: Hex128
    receipts: Annotated[tuple[Receipt, ...], Field(max_length=64)] = ()
    later: Annotated[tuple[Later, ...], Field(max_length=64)] = ()
    missing: Annotated[tuple[Missing, ...], Field(max_length=64)] = ()


class AggregatorPresence(ProtocolMessage):
    """`aggregator`, retained: whether offers are heard. The last will says offline.

    Attributes:
        state: `starting` is not retained: an aggregator that looks first what is there; no offer is heard yet.
        version: the newest that is committed.
        detail: what is wrong, as a sentence, such as a full disk: every offer is answered with *later* until it is not.

    """

    kind: Literal["aggregator"] = "aggregator"
    state: Literal["starting", "online", "offline"]
    run: Hex128
    incarnation: Hex128
    version: Count
    detail: Text = ""


class ClientStatus(ProtocolMessage):
    """`status/{client_id}`, retained: for people to look at. Nothing is decided from it.

    Attributes:
        connection: counts this incarnation's connections, so that an old last will is told from news.
        activity: what the client does now.
        detail: one sentence more, such as the error that it met.
        base_version: the newest version that it trained from.
        waiting: updates in its outbox.
        accepted, rejected: verdicts that this incarnation has read.
        uplink_bytes, downlink_bytes: payload of messages sent and received by this incarnation.
        uplink_today, downlink_today: of a device with a daily budget: bytes of all its MQTT packets since 00:00 UTC.

    """

    kind: Literal["status"] = "status"
    state: Literal["online", "offline"]
    client_id: Id
    incarnation: Hex128
    connection: Count = 0
    activity: Literal["connecting", "waiting", "training", "error", "stopped", "finished"] = "waiting"
    detail: Text = ""
    run: Hex128 | None = None
    base_version: Count | None = None
    waiting: Count = 0
    accepted: Count = 0
    rejected: Count = 0
    metrics: Metrics = {}
    task_version: Annotated[str, Field(max_length=128)] = ""
    uplink_bytes: Count = 0
    downlink_bytes: Count = 0
    uplink_today: Count | None = None
    downlink_today: Count | None = None


class DeviceEvaluation(_Record):
    """What devices measured: means weighted by sample counts, and the spread (standard deviation) between devices."""

    clients: Count
    num_samples: Count
    mean: Metrics
    spread: Metrics


class Quarantined(_Record):
    """A client that the aggregator does not listen to.

    Attributes:
        reason: of the last of what it did.
        since, until: seconds since 1970 by the aggregator's clock.

    """

    client_id: Id
    reason: Reason
    since: Count
    until: Count


class Progress(ProtocolMessage):
    """`progress`, retained: the committed state, for any MQTT tool to watch.

    Attributes:
        updates: accepted updates, ever.
        verdicts: on updates, ever; those on messages that could not be read are none.
        rejected: refused updates by reason, and messages that could not be read.
        later: offers that were put off, by reason, and messages that were not read, because their client sent too many.
        updates_per_second: over the last half minute or so.
        mean_staleness: of all accepted updates, in versions.
        buffer_size, buffered: K and how many updates wait in the buffer.
        devices: over each device's newest evaluation; `devices_version` is the newest version that any measured.
        aggregator: what the aggregator measured itself, of `aggregator_version`.
        limits: what is taken and what not, as a sentence.
        waits: which clients the next version waits for and what to do, if that takes long, as a sentence.
        clients: the ids heard last, at most 100.
        quarantine: clients that are not listened to, at most 100.
        quarantined: how many there are.
        uplink_bytes: of accepted updates, encoded.

    """

    kind: Literal["progress"] = "progress"
    run: Hex128
    version: Count
    state: Literal["training", "finished"]
    strategy: str
    updates: Count
    verdicts: Count = 0
    rejected: Annotated[dict[Reason, Count], Field(max_length=64)] = {}
    later: Annotated[dict[LaterReason, Count], Field(max_length=64)] = {}
    updates_per_second: Annotated[float, Field(ge=0)] = 0.0
    mean_staleness: Annotated[float, Field(ge=0)] = 0.0
    buffer_size: Count = 1
    buffered: Count = 0
    goal: Text = ""
    limits: Text = ""
    waits: Text = ""
    devices: DeviceEvaluation | None = None
    devices_version: Count | None = None
    aggregator: Metrics | None = None
    aggregator_version: Count | None = None
    clients: Annotated[tuple[Id, ...], Field(max_length=100)] = ()
    quarantine: Annotated[tuple[Quarantined, ...], Field(max_length=100)] = ()
    quarantined: Count = 0
    uplink_bytes: Count = 0
