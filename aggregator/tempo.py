"""How many updates make a version, and how long to wait for them: both follow the fleet."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from fedmq.aggregator.recent import Recent

__all__ = ["TARGET_STALENESS", "Tempo"]

TARGET_STALENESS = 4
"""Mean staleness, in versions, that the automatic buffer size aims at."""

_INTERVALS = 31  # times between updates that the timer's median is taken over
_FEWEST_INTERVALS = 5  # below this the timer has nothing to go by and is off
_VERSIONS = 1024  # of which it is remembered how many updates had been accepted when they were made
_PER_CLIENT = 1.5  # of the clients that are known, at work at most: fleets that tell the truth were seen at up to 1.4
_SAMPLES = 101  # sample counts that their median is taken over


@dataclass(slots=True)
class Tempo:
    """Running figures of a run; each is bounded, and all are part of the durable state.

    Attributes:
        clients_at_work: M, smoothed: how many clients have work in flight.
        buffer_size: K as of the newest version; it changes only when a version is made.

    """

    clients_at_work: float = 1.0
    buffer_size: int = 1
    intervals: deque[float] = field(default_factory=lambda: deque(maxlen=_INTERVALS))
    samples: Recent = field(default_factory=lambda: Recent(_SAMPLES))
    made_at: deque[tuple[int, int]] = field(default_factory=lambda: deque([(0, 0)], maxlen=_VERSIONS))

    def update(
        self,
        base_version: int,
        accepted: int,
        num_samples: int,
        since_last: float | None,
        clients: float = math.inf,
    ) -> None:
        """Count an accepted update.

        M is measured without clocks and without state per client: the updates that were accepted while this one was in
        the making are the work of the others, M - 1 of them in the mean over arrivals, however the devices differ.

        Args:
            base_version: of the update.
            accepted: updates accepted before this one.
            num_samples: of the update.
            since_last: seconds since the update before, None for the first since a start.
            clients: that are known, at least 1: many more cannot be at work, whatever they say of their bases.

        """
        self.samples.append(num_samples)
        if since_last is not None:
            self.intervals.append(since_last)
        made_at, at_work = self.made_at, self.clients_at_work
        place = base_version - made_at[0][0]  # each version follows the one before
        at_base = made_at[min(max(place, 0), len(made_at) - 1)][1]
        # A device that slept for a day saw a fleet's work go by; it is one client, so its word is bounded.
        seen = min(1.0 + accepted - at_base, 4 * at_work + 4)
        at_work += (seen - at_work) / max(10.0, at_work)
        self.clients_at_work = min(at_work, _PER_CLIENT * clients)

    def version(self, version: int, accepted: int, buffer_size: int | None, least: int = 1) -> None:
        """A version was made after `accepted` updates; set K for the next, to `buffer_size` or automatically.

        Args:
            version: that was made.
            accepted: updates, ever.
            buffer_size: K where it is given.
            least: of an automatic K.

        """
        self.made_at.append((version, accepted))
        self.buffer_size = buffer_size or max(least, round((self.clients_at_work - 1) / TARGET_STALENESS))

    def median_samples(self) -> float:
        """Of the last 101 updates; infinite before the first, so that it caps nothing.

        It is the lower of the middle two if there are two: up to half of the counts may be made up.
        """
        return self.samples.median_low(math.inf)

    def flush_after(self) -> float | None:
        """Seconds that a buffer may wait for K updates: twice what they usually take. None while that is unknown."""
        if len(self.intervals) < _FEWEST_INTERVALS:
            return None
        return 2.0 * median(self.intervals) * self.buffer_size
