"""Answers on their way to clients: one message per client and commit."""

from __future__ import annotations

from collections.abc import Iterator

from fedmq.schemas.messages import Later, Missing, Receipt, Reply

__all__ = ["Replies"]

_ANSWERS = 32  # in one message: with their sentences they fit into a header


class Replies:
    """What clients are to be told; nothing of it before it is committed."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[tuple[str, int, str | None], Receipt | Missing | Later]] = {}

    def __len__(self) -> int:
        """How many clients wait."""
        return len(self._waiting)

    def add(self, client_id: str, answer: Receipt | Missing | Later) -> None:
        """Tell this client that; an offer that is repeated while nothing can be told is answered once."""
        digest = answer.digest if isinstance(answer, Receipt) else None
        key = (answer.update.outbox_id, answer.update.sequence, digest)
        self._waiting.setdefault(client_id, {})[key] = answer

    def take(self) -> Replies:
        """Everything that waits now; what comes from here on waits for the next time."""
        taken, self._waiting = self._waiting, {}
        replies = Replies()
        replies._waiting = taken
        return replies

    def messages(self, run: str, incarnation: str) -> Iterator[tuple[str, Reply]]:
        """Client ids, and what to send them."""
        for client_id, waiting in self._waiting.items():
            answers = list(waiting.values())
            for first in range(0, len(answers), _ANSWERS):
                part = answers[first : first + _ANSWERS]
                yield (
                    client_id,
                    Reply(
                        run=run,
                        incarnation=incarnation,
                        receipts=tuple(answer for answer in part if isinstance(answer, Receipt)),
                        missing=tuple(answer for answer in part if isinstance(answer, Missing)),
                        later=tuple(answer for answer in part if isinstance(answer, Later)),
                    ),
                )

    def clear(self) -> None:
        """Nobody is told: whoever waits will offer again."""
        self._waiting.clear()
