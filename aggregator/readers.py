"""Who reads which slot, and whether one is kept for them while newer snapshots come.

Nobody can see how far a reader is, or whether it reads at all. So a slot is kept for a long time where that harms no
one; where others lose one snapshot after the other because of it, it is kept for a turn. Most turns are short, so that
nobody is far behind whoever claims to read; some are long, so that who is very slow has one now and then. Which are is
drawn: who counts along could take those.
"""

from __future__ import annotations

from random import Random

__all__ = ["Readers", "Turns"]

_LEASE_SECONDS = 60.0  # that a slot is kept after somebody said that they read it
_LONGEST_SECONDS = 3600.0  # that it is kept in all, or longer if it is large: its version grows old
_SLOWEST_BYTES = 16 << 10  # a second, at which a snapshot is taken within that
_TURN = 1 / 12  # of the longest, the usual turn
_LONGER = 4  # of so many turns one is twice as long, of so many of those one is twice as long again, and so on
_MOST = 1024  # readers of a slot that are remembered


class Readers:
    """Who reads one slot."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}  # when, the newest word last
        self._began: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anybody has ever said so, and has not left."""
        return bool(self._said)

    def reads(self, client_id: str, now: float, *, is_newest: bool) -> None:
        """A client says that it reads the slot, which was the newest or not when the client said so."""
        self._said.pop(client_id, None)
        self._said[client_id] = now
        if is_newest:
            self._began.add(client_id)
        if len(self._said) > _MOST:
            self.leaves(next(iter(self._said)))

    def leaves(self, client_id: str) -> None:
        """A client is done with the slot, or reads the other one."""
        self._said.pop(client_id, None)
        self._began.discard(client_id)

    def now(self, now: float) -> set[str]:
        """Who has said so lately."""
        return {client_id for client_id, said in self._said.items() if now < said + _LEASE_SECONDS}

    def from_the_beginning(self, now: float) -> set[str]:
        """Those of them who said so first while the slot was the newest."""
        return self.now(now) & self._began


class Turns:
    """Decides which of two slots a snapshot overwrites.

    Args:
        random: draws how long turns are.

    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._turn = self._drawn()
        self._lost: set[str] = set()  # whose slot was overwritten by the last snapshot

    def keeps(self, older: Readers, newest: Readers, size: int, age: float, now: float) -> bool:
        """Whether the older slot is kept, and the newest overwritten in its place.

        Args:
            older: its readers.
            newest: those of the newest slot.
            size: of the older snapshot, in bytes.
            age: since it was out, in seconds.
            now: seconds.

        """
        longest = max(_LONGEST_SECONDS, size / _SLOWEST_BYTES)
        readers = older.now(now)
        if newest.now(now) & self._lost:  # they would lose the second one in a row
            longest = min(longest, longest * self._turn)
            readers = older.from_the_beginning(now)
        if age >= longest:
            self._turn = self._drawn()
        kept = bool(readers) and age < longest
        self._lost = newest.now(now) if kept else older.now(now)
        return kept

    def _drawn(self) -> float:
        """How long a turn is, as a part of the longest."""
        turn = _TURN
        while turn < 1.0 and self._random.randrange(_LONGER) == 0:
            turn *= 2
        return turn
