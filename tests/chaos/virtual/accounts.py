"""Whether the books are right: what was trained, what was answered, and what is in the weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from fedmq.aggregator.buffer import Buffer, Folded, step
from fedmq.aggregator.clipping import scaled
from fedmq.aggregator.state import State
from fedmq.aggregator.store import Store
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Receipt, UpdateId
from tests.chaos.virtual.one_hot import CAPACITY, LAYOUT, counts
from tests.chaos.virtual.server import FEDERATION
from tests.chaos.virtual.strategies import counts_in_weights
from tests.chaos.virtual.world import World

__all__ = ["violations"]

Id = tuple[str, str, int]  # client, outbox, sequence
_NO_VERDICT = ("id_reused", "expired")  # on other bytes; on what may have counted


class Books:
    """All that was offered and answered in a settled world, whose aggregator is dead and its disk at rest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.numbers = world.trainings.numbers
        self.offered: dict[Id, set[str]] = defaultdict(set)  # digests: more than one after a restored image
        self.receipts: dict[tuple[str, Id], list[Receipt]] = defaultdict(list)  # by run
        for _, offer, _ in world.broker.offers:
            self.offered[(offer.client_id, offer.update.outbox_id, offer.update.sequence)].add(offer.digest)
        for client_id, reply in world.broker.replies:
            for receipt in reply.receipts:
                update = (client_id, receipt.update.outbox_id, receipt.update.sequence)
                self.receipts[reply.run, update].append(receipt)


def violations(world: World) -> list[str]:
    """Every sentence is a broken promise. The world has settled; this ends its aggregator."""
    wrong = list(world.wrong)
    world.server.kill()
    state = world.server.state()
    if state is None:
        return [*wrong, "the run's folder holds no run"]
    books = Books(world)
    for receipts in books.receipts.values():
        world.seen.update((receipt.reason or receipt.verdict).replace("_", " ") for receipt in receipts)
    return [*wrong, *_changed(books), *_miscounted(books, state), *_lost(books), *_not_replayed(books, state)]


def _verdict(receipt: Receipt) -> tuple[Any, ...]:
    return receipt.verdict, receipt.reason, receipt.version, receipt.staleness


def _changed(books: Books) -> list[str]:
    wrong = []
    for (run, update), receipts in books.receipts.items():
        verdicts = {_verdict(receipt) for receipt in receipts if receipt.reason not in _NO_VERDICT}
        if len(verdicts) > 1:
            wrong.append(f"{update} has {len(verdicts)} verdicts in run {run[:4]}: {sorted(map(str, verdicts))}")
        if any(receipt.reason == "unknown_base" for receipt in receipts):
            wrong.append(f"{update} was trained on a version that run {run[:4]} does not have: what was shown is gone")
    return wrong


def _miscounted(books: Books, state: State) -> list[str]:
    in_weights = _counted(books, state)
    if in_weights is None:
        return []  # an id that a restored image used twice, and that the ledger has let go
    wrong = [f"training {n} counts {times}" for n, times in enumerate(in_weights.tolist()) if times not in (0.0, 1.0)]
    for (run, update), receipts in books.receipts.items():
        if run != state.run:
            continue
        times = [float(in_weights[books.numbers[digest]]) for digest in books.offered[update]]
        final = {receipt.verdict for receipt in receipts if receipt.reason not in _NO_VERDICT}
        if final == {"accepted"} and not any(times):
            wrong.append(f"{update} was accepted and is not in the weights")
        if final == {"rejected"} and len(times) == 1 and any(times) and not _renewed(books, state.run, update):
            wrong.append(f"{update} was rejected and is in the weights")
    return wrong


def _counted(books: Books, state: State) -> Vector | None:
    """How often each training counts in version and buffer, float32 [CAPACITY]; None if that cannot be known."""
    if counts_in_weights(books.world.strategy):
        return counts(state.weights) + counts(state.buffer.total) - counts(books.world.starts[state.run])
    times = np.zeros(CAPACITY, np.float32)
    for folded in [*(folded for record in _history(books) for folded in record[0]), *state.buffer.updates]:
        vector = _vector(books, state, folded)
        if vector is None:
            return None
        times += counts(vector)
    return times


def _renewed(books: Books, run: str, update: Id) -> bool:
    """Whether the same bytes were accepted under another id: the device was told that this one was in use."""
    others = [other for other, digests in books.offered.items() if other != update and digests & books.offered[update]]
    return any(receipt.verdict == "accepted" for other in others for receipt in books.receipts.get((run, other), ()))


def _lost(books: Books) -> list[str]:
    """Updates that were in an outbox and never had an answer; settled means that no outbox has them any more."""
    answered = {digest for (_, update) in books.receipts for digest in books.offered[update]}
    forgotten: set[str] = set().union(*(device.forgotten for device in books.world.devices))
    stored: set[str] = set().union(*(device.stored for device in books.world.devices))
    lost = sorted(books.numbers[digest] for digest in stored - answered - forgotten)
    return [f"trainings {lost} were in an outbox, and are gone without a verdict"] if lost else []


def _not_replayed(books: Books, state: State) -> list[str]:
    """Follow the history from version 0: it has to give the same bits."""
    strategy, history = books.world.strategy, _history(books)
    weights, buffer = books.world.starts[state.run], Buffer.empty(LAYOUT)
    seen: set[Id] = set()
    for updates, size in [*history, (state.buffer.updates, 0)]:
        for folded in updates:
            update = (folded.client_id, folded.update.outbox_id, folded.update.sequence)
            if update in seen:
                return [f"the history of run {state.run[:4]} has {update} twice"]
            seen.add(update)
            vector = _vector(books, state, folded)
            if vector is None:
                return []  # an id that a restored image used twice, and that the ledger has let go
            vector = scaled(vector, folded.scale, LAYOUT.parameter_size)
            (buffer.fold if strategy.rule is None else buffer.keep)(vector, folded, 1.0, 0.0)
        if size:
            rates = strategy.rates(buffer.batch(size))
            weights, _ = step(weights, buffer, rates, LAYOUT, None, 0.0, strategy.rule)
            buffer = Buffer.empty(LAYOUT)
    if weights.tobytes() != state.weights.tobytes() or len(history) != state.version:
        return [f"a replay of {len(history)} versions does not give version {state.version}"]
    kept = [[vector.tobytes() for vector in (each.total, *each.rows)] for each in (buffer, state.buffer)]
    return [] if kept[0] == kept[1] else ["what is in the buffer is not what was accepted since the newest version"]


def _history(books: Books) -> list[tuple[list[Folded], int]]:
    """Of each version, its updates and K."""
    store = Store(books.world.server.folder, FEDERATION)
    history = [(list(map(_folded, record["updates"])), int(record["buffer_size"])) for record in store.history()]
    store.close()
    return history


def _folded(row: dict[str, Any]) -> Folded:
    return Folded(**(row | {"update": UpdateId(**row["update"])}))


def _vector(books: Books, state: State, folded: Folded) -> Vector | None:
    digests = books.offered[folded.client_id, folded.update.outbox_id, folded.update.sequence]
    if len(digests) > 1 and folded.client_id in state.ledger.clients():
        outboxes = state.ledger.outboxes(folded.client_id)
        box = next((box for box in outboxes if box.outbox_id == folded.update.outbox_id), None)
        known = box.verdicts.get(folded.update.sequence) if box else None
        digests = {digest for digest in digests if known and bytes.fromhex(digest).startswith(known.digest)}
    return books.world.trainings.vectors[books.numbers[min(digests)]] if len(digests) == 1 else None
