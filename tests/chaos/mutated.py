"""The `fedmq` command with one promise broken on purpose: `python -m tests.chaos.mutated MUTATION aggregator …`.

The chaos has to find each of these; else it would not find the same mistake made by accident either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.service import AggregatorService
from fedmq.cli import main
from fedmq.edge_client.service import ClientService

__all__ = ["MUTATIONS"]


def receipt_before_commit() -> None:
    """Receipts go out, and reach the broker, before what they say is on the disk."""
    commit = AggregatorService._commit

    def answer_and_commit(self: AggregatorService, now: float) -> None:
        self._verdicts.answer(self._commits.replies.take())
        if self._gate.online:
            self._link.flush(1.0)
        commit(self, now)

    AggregatorService._commit = answer_and_commit  # type: ignore[method-assign]


def no_ledger() -> None:
    """No verdict is remembered: an update that is offered again is judged again."""
    AggregatorCore._remember = lambda self, client_id, judged: None  # type: ignore[method-assign]


def cleared_when_sent() -> None:
    """An update leaves the outbox when the broker has acknowledged it, without waiting for its receipt."""
    send = ClientService._send

    def send_and_forget(self: ClientService, sequence: int, *more: Any) -> None:
        send(self, sequence, *more)
        if self._link.flush(1.0):
            self._core.offers._pending.pop(sequence)
            self._outbox.delete(sequence)

    ClientService._send = send_and_forget  # type: ignore[assignment,method-assign]


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation for mutation in (receipt_before_commit, no_ledger, cleared_when_sent)
}

if __name__ == "__main__":
    MUTATIONS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
