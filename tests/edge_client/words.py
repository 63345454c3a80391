"""Messages as short as tests want them."""

from __future__ import annotations

import random
from typing import Any

from fedmq.edge_client.actions import Action, SendOffer, Train
from fedmq.edge_client.core import ClientCore
from fedmq.schemas.errors import LaterReason, Reason
from fedmq.schemas.messages import (
    AggregatorPresence,
    ClientStatus,
    Head,
    Later,
    Missing,
    Offer,
    Receipt,
    Reply,
    UpdateId,
)
from fedmq.schemas.plan import Plan

RUN = "a" * 32
OTHER_RUN = "b" * 32
OUTBOX = "c" * 32
DIGEST = "d" * 64


def head(version: int, run: str = RUN, finished: bool = False, **plan: Any) -> Head:
    return Head(
        run=run,
        version=version,
        state="finished" if finished else "training",
        plan=Plan(**plan),
        layout=DIGEST,
        codec="float32",
        size=4,
        digest=DIGEST,
    )


def update(sequence: int, outbox_id: str = OUTBOX) -> UpdateId:
    return UpdateId(outbox_id=outbox_id, sequence=sequence)


def offer(sequence: int, base_version: int = 0, size: int = 4, digest: str = DIGEST) -> Offer:
    return Offer(
        run=RUN,
        client_id="dev",
        update=update(sequence),
        base_version=base_version,
        layout=DIGEST,
        codec="float32",
        size=size,
        digest=digest,
        num_samples=1,
    )


def online(incarnation: str = "1" * 32) -> AggregatorPresence:
    return AggregatorPresence(state="online", run=RUN, incarnation=incarnation, version=0)


def offline(incarnation: str = "1" * 32) -> AggregatorPresence:
    return AggregatorPresence(state="offline", run=RUN, incarnation=incarnation, version=0)


def status(incarnation: str) -> ClientStatus:
    return ClientStatus(state="online", client_id="dev", incarnation=incarnation)


def accepted(*sequences: int) -> Reply:
    receipts = tuple(Receipt(update=update(s), verdict="accepted", version=0, staleness=0) for s in sequences)
    return Reply(run=RUN, incarnation="1" * 32, receipts=receipts)


def rejected(sequence: int, reason: Reason, outbox_id: str = OUTBOX) -> Reply:
    receipt = Receipt(update=update(sequence, outbox_id), verdict="rejected", reason=reason)
    return Reply(run=RUN, incarnation="1" * 32, receipts=(receipt,))


def later(sequence: int, seconds: float, reason: LaterReason = "busy") -> Reply:
    answer = Later(update=update(sequence), reason=reason, seconds=seconds)
    return Reply(run=RUN, incarnation="1" * 32, later=(answer,))


def missing(sequence: int, *ranges: tuple[int, int]) -> Reply:
    return Reply(run=RUN, incarnation="1" * 32, missing=(Missing(update=update(sequence), ranges=ranges),))


def connected_core(*pending: Offer, seed: int = 0) -> ClientCore:
    """A core at time 0, connected, the aggregator online, with these updates from before."""
    core = ClientCore("e" * 32, random.Random(seed), list(pending))
    core.connected(0.0)
    core.presence(online(), 0.0)
    return core


def trained_core(sequence: int = 0, version: int = 0, seed: int = 0, **plan: Any) -> tuple[ClientCore, list[Action]]:
    """A core at time 0 that has just trained on this version, and what it wants done then."""
    core = connected_core(seed=seed)
    assert Train(head(version, **plan)) in core.head(head(version, **plan), True, 0.0)
    return core, core.trained(offer(sequence, version), [], 0.0)


def offers(actions: list[Action]) -> list[SendOffer]:
    return [action for action in actions if isinstance(action, SendOffer)]
