"""Answers on their way to clients: one message per client and commit, or a few where one does not hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedmq.aggregator.judged import Judged
from fedmq.schemas.messages import PROTOCOL, Later, Missing
from fedmq.schemas.wire import pack

__all__ = ["Replies"]

_ANSWERS = 32  # in one message: with their sentences they fit into a header


class Replies:
    """What clients are to be told; nothing of it before it is committed."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[tuple[str, int, str | None], Judged | Missing | Later]] = {}

    def __len__(self) -> int:
        """How many clients wait."""
        return len(self._waiting)

    def add(self, client_id: str, answer: Judged | Missing | Later) -> None:
        """Tell this client that; an offer that is repeated while nothing can be told is answered once."""
        digest = answer.digest if isinstance(answer, Judged) else None
        key = (answer.update.outbox_id, answer.update.sequence, digest)
        self._waiting.setdefault(client_id, {})[key] = answer

    def take(self) -> Replies:
        """Everything that waits now; what comes from here on waits for the next time."""
        taken, self._waiting = self._waiting, {}
        replies = Replies()
        replies._waiting = taken
        return replies

    def messages(self, run: str, incarnation: str, most_bytes: int) -> Iterator[tuple[str, bytes]]:
        """Client ids, and the `Reply` to send to each, encoded; several where one would take more bytes than that."""
        for client_id, waiting in self._waiting.items():
            answers = list(waiting.values())
            for first in range(0, len(answers), _ANSWERS):
                for reply in _replies(run, incarnation, answers[first : first + _ANSWERS], most_bytes):
                    yield client_id, reply

    def clear(self) -> None:
        """Nobody is told: whoever waits will offer again."""
        self._waiting.clear()


def _replies(run: str, incarnation: str, answers: list[Judged | Missing | Later], most_bytes: int) -> Iterator[bytes]:
    reply = _encoded(run, incarnation, answers)
    if len(reply) <= most_bytes or len(answers) == 1:
        yield reply
        return
    half = len(answers) // 2
    yield from _replies(run, incarnation, answers[:half], most_bytes)
    yield from _replies(run, incarnation, answers[half:], most_bytes)


def _encoded(run: str, incarnation: str, answers: list[Judged | Missing | Later]) -> bytes:
    # A thousand clients may wait for one each: to build and dump models of it takes four times as long.
    receipts: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    for answer in answers:
        if isinstance(answer, Judged):
            receipts.append(_receipt(answer))
        else:
            (later if isinstance(answer, Later) else missing).append(answer.model_dump(exclude_none=True))
    return pack(
        {
            "protocol": PROTOCOL,
            "kind": "reply",
            "run": run,
            "incarnation": incarnation,
            "receipts": receipts,
            "later": later,
            "missing": missing,
        }
    )


def _receipt(judged: Judged) -> dict[str, Any]:
    update, reason, detail, version, staleness, digest = judged
    known = {"outbox_id": update.outbox_id, "sequence": update.sequence}
    if reason is None:
        return {
            "update": known,
            "verdict": "accepted",
            "detail": detail,
            "version": version,
            "staleness": staleness,
            "digest": digest,
        }
    fields = {"update": known, "verdict": "rejected", "reason": reason, "detail": detail}
    return fields if digest is None else fields | {"digest": digest}
