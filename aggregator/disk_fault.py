"""What keeps updates from being taken, mostly a disk that does not take a commit, and when to try again."""

from __future__ import annotations

__all__ = ["DiskFault"]

_FIRST_SECONDS = 1.0  # until it is tried again; doubled each time
_LONGEST_SECONDS = 30.0


class DiskFault:
    """The state of the run's disk.

    Attributes:
        why: what is wrong, as a sentence; None while all is well.
        retry_at: when to try it again, in seconds of the run.

    """

    def __init__(self) -> None:
        self.why: str | None = None
        self.retry_at = 0.0
        self._pause = _FIRST_SECONDS

    def failed(self, why: str, now: float) -> float:
        """It failed, perhaps again; in how many seconds to try it."""
        pause = self._pause
        self.why, self.retry_at = why, now + pause
        self._pause = min(2 * pause, _LONGEST_SECONDS)
        return pause

    def doubted(self, why: str, now: float) -> None:
        """What is in memory may be half done: the last commit is read again at once, unless the disk has failed."""
        if self.why is None:
            self.why, self.retry_at = why, now

    def over(self) -> None:
        """It took a commit of everything."""
        self.why, self._pause = None, _FIRST_SECONDS

    def offer_again(self, now: float) -> float:
        """Seconds after which a client may offer again."""
        return max(self.retry_at - now, 0.0) + _FIRST_SECONDS
