"""From memory to the disk: what waits for a commit, what is told when it is done, and what is known to be there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fedmq.aggregator.committed import Committed
from fedmq.aggregator.core import AggregatorCore
from fedmq.aggregator.pace import Pace
from fedmq.aggregator.replies import Replies
from fedmq.aggregator.state import News
from fedmq.aggregator.store import Store
from fedmq.aggregator.writer import Writer
from fedmq.schemas.layout import Vector

__all__ = ["Commits", "Done"]

_MOST_VERDICTS = 8192  # that wait for a slow commit; then nothing more is read until it is done


class Done(NamedTuple):
    """A commit came through: who may be told what, and what is new."""

    replies: Replies
    news: News


class _Writing(NamedTuple):
    done: Done
    committed: Committed | None  # None if the live state is that until it is done
    version: int
    finished: str | None


class Commits:
    """One commit at a time, of all that is in memory when it begins.

    Args:
        store: where to; None keeps nothing.
        wake: called in another thread when a large commit has been written there.
        clock: seconds.

    Attributes:
        version: the newest that is on the disk; -1 before the first commit.
        finished: why the run had ended as of that commit; None while it trains.
        replies: that wait for the next commit.

    """

    def __init__(self, store: Store | None, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self.version = -1
        self.finished: str | None = None
        self.replies = Replies()
        self._clock = clock
        self._pace = Pace()
        self._writer = Writer(store, wake, clock)
        self._writing: _Writing | None = None
        self._committed: Committed | None = None  # what was committed last; None if the live state was it

    @property
    def busy(self) -> bool:
        """Whether a commit is still being written."""
        return self._writer.busy

    @property
    def holds(self) -> bool:
        """Whether the buffer is being written as it lies in memory: nothing may be folded into it until then."""
        return self._writer.holds

    @property
    def full(self) -> bool:
        """Whether so much waits for a slow commit that nothing more may be judged."""
        return self.busy and self._pace.verdicts >= _MOST_VERDICTS

    @property
    def lasted(self) -> float:
        """Seconds that the disk took for the last commit."""
        return self._writer.lasted

    def judged(self, now: float) -> None:
        """A verdict was given that has to be committed before it is told."""
        self._pace.judged(now)

    def is_news(self, core: AggregatorCore) -> bool:
        """Whether anything is in memory that is not on the disk."""
        news, finished = core.news, core.state.finished
        return bool(self._pace.verdicts or news.versions or news.measured or finished != self.finished)

    def is_all(self, core: AggregatorCore) -> bool:
        """Whether all that is in memory is on the disk."""
        return not self.busy and not self.is_news(core)

    def due(self, core: AggregatorCore, *, idle: bool, wanted: bool) -> bool:
        """Whether to begin one: `idle` says that nothing waits to be read, `wanted` that something is to be shown."""
        return self.is_news(core) and not self.busy and self._pace.due(self._clock(), idle=idle, wanted=wanted)

    def deadline(self, core: AggregatorCore) -> float | None:
        """When the next may begin, on the clock; None if none is needed, or one is being written."""
        return self._pace.deadline() if self.is_news(core) and not self.busy else None

    def begin(self, core: AggregatorCore) -> Done | None:
        """Commit what is in memory; what came of it if that is done at once.

        Raises:
            StoreError: nothing was committed.

        """
        state, news = core.state, core.take()
        self._pace.begun(self._clock())
        copy = None if self._writer.writes_at_once(state) else Committed.of(state)
        self._writing = _Writing(Done(self.replies.take(), news), copy, state.version, state.finished)
        return self._done() if self._writer.begin(state, news) else None

    def take(self, timeout: float | None) -> Done | None:
        """What came of the one that is being written, if it is done within `timeout` seconds; None waits for it.

        Raises:
            StoreError: it failed.

        """
        return self._done() if self._writer.take(timeout) else None

    def told(self) -> None:
        """What was to be told after the last one is told: that time is a part of it."""
        self._pace.committed(self._clock())

    def forget(self) -> None:
        """It failed: whoever waits for a verdict will offer again."""
        self.replies.clear()
        self._writing, self._pace.verdicts = None, 0

    def may_show(self, core: AggregatorCore) -> bool:
        """Whether what was committed last is at hand as a whole."""
        return self._committed is not None or self.is_all(core)

    def committed(self, core: AggregatorCore) -> Committed:
        """What was committed last; only if `may_show`."""
        known = None if self.is_all(core) else self._committed
        return known or Committed.of(core.state)

    def weights(self, core: AggregatorCore) -> Vector | None:
        """Of the version that was committed last, float32 [layout.size]; None if they have moved since."""
        if self._committed is not None:
            return self._committed.weights
        return core.state.weights if core.state.version == self.version else None

    def _done(self) -> Done:
        assert self._writing is not None
        done, self._committed, self.version, self.finished = self._writing
        self._writing = None
        return done
