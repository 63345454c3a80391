"""When to commit: commits clock themselves by how long they take and by what waits to be read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]

# That wait for a commit at most; so many receipts are held in memory. A thousand busy clients have a few each by then,
# in one reply: with a quarter of it, an update of theirs cost a fifth more.
_VERDICTS = 4096
_SECONDS = 0.3  # that a verdict waits for others to share its commit, while there is more to read
_SHARE = 9  # times the length of the last commit that this becomes when commits are slow
_REST = 2  # times the length of the last commit that always passes before the next: a third of the time is theirs


@dataclass(slots=True)
class Pace:
    """What the rhythm of commits follows from; times are the caller's.

    Attributes:
        verdicts: that wait for a commit.
        since: when the first of them was given.
        ended: when the last commit was done.
        lasted: how long it took, with everything that was told after it: a thousand replies cost more than the disk.

    """

    verdicts: int = 0
    since: float = 0.0
    ended: float = float("-inf")
    lasted: float = 0.0
    _begun: float = 0.0

    def judged(self, now: float) -> None:
        """A verdict was given that has to be committed before it is told."""
        if not self.verdicts:
            self.since = now
        self.verdicts += 1

    def begun(self, now: float) -> None:
        """A commit of everything that waits begins."""
        self.verdicts, self._begun = 0, now

    def committed(self, now: float) -> None:
        """It is done, and its clients have their receipts."""
        self.ended, self.lasted = now, now - self._begun

    def due(self, now: float, *, idle: bool, wanted: bool) -> bool:
        """Whether to commit.

        Args:
            now: seconds.
            idle: nothing waits to be read.
            wanted: something is to be shown that is not committed yet.

        """
        if now < self.ended + _REST * self.lasted:
            return False
        if idle or self.verdicts >= _VERDICTS:
            return True
        age = now - self.since
        # What is to be shown waits too: commits of its own between those of the verdicts would be half as many again.
        return age >= _SECONDS if wanted else self.verdicts > 0 and age >= max(_SECONDS, _SHARE * self.lasted)

    def deadline(self) -> float:
        """When a commit that is wanted may begin."""
        return self.ended + _REST * self.lasted
