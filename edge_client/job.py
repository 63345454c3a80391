"""One job, all of it beside the connection: received weights in, an update in the outbox's files out.

A gigabyte takes seconds to encode and to write; a broker would have cut a connection whose thread did that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from fedmq.edge_client.ahead import Ahead
from fedmq.edge_client.feedback import Residual, encoded
from fedmq.edge_client.freed_memory import give_back_freed_memory
from fedmq.edge_client.training import Outcome, Training
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Layout, Vector
from fedmq.schemas.mapped import let_go
from fedmq.schemas.messages import Head

__all__ = ["Made", "make"]

_LARGE_BYTES = 16 << 20  # of an update


@dataclass(frozen=True, slots=True)
class Made:
    """What a job made.

    Attributes:
        outcome: of the training; its update's memory is gone.
        codec: of the encoded update.
        size: of it, in bytes.
        digest: SHA-256 of it, in hex.
        ahead: where it lies.

    """

    outcome: Outcome
    codec: str
    size: int
    digest: str
    ahead: Ahead


def make(
    head: Head,
    body: memoryview,
    layout: Layout,
    training: Training,
    residual: Residual | None,
    seed: int,
    ahead: Ahead,
) -> Made:
    """Train on a snapshot, encode what came of it, and have it written.

    Args:
        head: of the snapshot.
        body: its encoded weights.
        layout: of them.
        training: what trains.
        residual: what earlier updates left out, as of the beginning of the job.
        seed: of what is random in the codec.
        ahead: where to write.

    Raises:
        StoreError: the disk refuses. Whatever else the training raises.

    """
    weights = codec_named(head.codec).decode(body, layout)
    let_go(body)  # what is a view of it is read anew, a block at a time
    outcome = training.train(weights, layout, head.plan)
    del weights
    let_go(body)
    sent = encoded(outcome.update, layout, head.run, head.plan, residual, seed)
    ahead.write(sent.body, sent.residual)
    nothing: Vector = np.empty(0, np.float32)
    digest = hashlib.sha256(sent.body).hexdigest()
    made = Made(replace(outcome, update=nothing), sent.codec.name, len(sent.body), digest, ahead)
    if outcome.update.nbytes > _LARGE_BYTES:
        del outcome, sent, residual
        give_back_freed_memory()
    return made
