"""The aggregator's decisions: updates in, verdicts and versions out. No clock, thread, socket, disk, log or randomness.

`now` is seconds of the run: it goes on after a restart from where it was committed, so timers survive one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from fedmq.aggregator.admission import Rules, admit_body, admit_header
from fedmq.aggregator.base_snapshots import nearest, to_drop
from fedmq.aggregator.buffer import Buffer, Folded, step
from fedmq.aggregator.clipping import norm as norm_of
from fedmq.aggregator.clipping import scaled
from fedmq.aggregator.cohort import CohortState
from fedmq.aggregator.folding import whole
from fedmq.aggregator.goal import Goal
from fedmq.aggregator.judged import Judged, short
from fedmq.aggregator.kept_updates import KeptUpdates, kept_updates
from fedmq.aggregator.slots import fewest, seconds_until_a_slot, taken, waits_at_least
from fedmq.aggregator.state import News, State, VersionRecord
from fedmq.aggregator.strategies.strategy import Arrival, Strategy
from fedmq.schemas.errors import LaterReason, ProtocolError, Reason
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Later, Metrics, Missing, Offer

__all__ = ["AggregatorCore"]

_DETAIL = 400  # characters of a verdict's sentence
_MEDIAN_CLIENTS = 3  # of whom norms are known, until their median is a bound: of two, either may be the odd one

Pieces = Iterable[tuple[int, Vector]]


class OthersBoundError(ProtocolError):
    """A bound was passed that other clients' updates made, which is no offence: whoever did that may be hostile."""


class AggregatorCore:
    """One run's aggregator.

    Attributes:
        state: the durable state; the service commits it before anything of it is shown.
        news: what happened since `take`, for the store.
        judged: verdicts that it has given, those that it only repeated not counted.

    """

    def __init__(self, state: State, strategy: Strategy, rules: Rules, goal: Goal) -> None:
        self.state = state
        self.strategy = strategy
        self.rules = rules
        self.goal = goal
        self.cohort = CohortState()
        self.news = News()
        self.judged = 0
        bounds = (rules.longest, strategy.clip)
        self._follows_norms = any(bound is not None and bound.medians is not None for bound in bounds)
        self._kept: KeptUpdates | None = None
        self._own_metrics: Metrics | None = None
        self._devices_reach: float | None = None  # as of the last time that they were asked
        self._last_accepted: tuple[str, float] | None = None  # whose update, and when
        state.scores.always = goal.metric
        if strategy.momentum and state.velocity is None:
            state.velocity = np.zeros(state.layout.parameter_size, np.float32)
        if strategy.buffer_size is not None:
            state.tempo.buffer_size = strategy.buffer_size
        if strategy.rule is None:
            state.buffer.sum_rows()
        else:
            self._kept = kept_updates(strategy, strategy.rule, state.layout)
            state.tempo.buffer_size = self._kept.size(state.tempo.buffer_size)

    @property
    def next_bytes(self) -> int:
        """Bytes that judging the next update goes over: a model's; with a rule whose buffer it fills, all of them."""
        buffer, size = self.state.buffer, self.state.weights.nbytes
        fills = self._kept is not None and len(buffer.updates) + 1 >= self.state.tempo.buffer_size
        return size * (len(buffer.rows) + 1) if fills else size

    def closing_bytes(self, now: float) -> int:
        """Bytes of updates that a rule makes a version of at a `tick` now; 0 if it makes none."""
        if self._kept is None or not (self._why_closed(now) or self._why_ended(now)):
            return 0
        return len(self.state.buffer.rows) * self.state.weights.nbytes

    def judge(
        self, client_id: str, offer: Offer, body: memoryview, now: float, *, digest: str | None = None
    ) -> Judged | Missing | Later:
        """The verdict on an offer from this client's topic, the same however often it is asked for.

        Or what it takes to have one: the bytes, or a slot in the buffer. Neither leaves a trace.

        Args:
            client_id: whose topic it came on.
            offer: the header.
            body: the encoded update; empty if the client thinks that it was sent before.
            now: seconds of the run.
            digest: of the body, where it is known already.

        """
        if offer.client_id != client_id:
            return self._refuse_foreign(client_id, offer, now)
        known = self._known(client_id, offer)
        if known is not None:
            if known.reason in ("id_reused", "expired"):  # never entered in the ledger, so counted here
                self.state.rejected[known.reason] += 1
                self.judged += 1
            return known
        try:
            self._admit_header(client_id, offer)
            if self.strategy.one_per_client and taken(self.state.buffer, client_id):
                seconds = seconds_until_a_slot(self.state.buffer, self.state.tempo, self._timer(), now)
                return _later(offer, "slot", seconds)
            wait = self.state.allowances.wait(self.rules.allowance, client_id, now)
            if wait:  # before anything is decoded: a few bytes may be millions of numbers
                return _later(offer, *wait)
            if not body and offer.size:
                return Missing(update=offer.update, ranges=((0, offer.size),))
            pieces, norm = self._admit_body(client_id, offer, body, digest)
            judged = self._accept(client_id, offer, pieces, norm, now)
        except OthersBoundError as refusal:
            judged = self._refuse(client_id, offer, refusal, None)
        except ProtocolError as refusal:
            judged = self._refuse(client_id, offer, refusal, now)
        self._remember(client_id, judged)
        # A timer is `tick`'s: to ask for it after each update takes longer than to add a small one.
        if len(self.state.buffer.updates) >= self.state.tempo.buffer_size:
            self._close_if_due(now)
        return judged

    def refuse(self, client_id: str, offer: Offer, refusal: ProtocolError) -> Judged:
        """A committed rejection of an offer that could not be judged; the same verdict again if it has one."""
        known = self._known(client_id, offer)
        if known is not None:
            return known
        judged = self._refuse(client_id, offer, refusal, None)
        self._remember(client_id, judged)
        return judged

    def unreadable(self, client_id: str, reason: Reason, now: float, times: int) -> bool:
        """Messages that have no verdict, since there is nothing to name; whether their client is in quarantine now."""
        self.state.rejected[reason] += times
        quarantine = self.state.quarantine
        return quarantine.offence(self.rules.quarantine, client_id, reason, now, times)

    def presence(self, client_id: str, online: bool, now: float) -> None:
        """A client came or went; only a cohort minds."""
        self.cohort.presence(client_id, online)
        self._freeze(now)
        self._close_if_due(now)

    def published(self, version: int, received: Callable[[], Vector], now: float) -> None:
        """A snapshot went out; `received` says what devices decode from it."""
        if self.strategy.mixes:
            self.state.bases[version] = received()
            gone = to_drop(self.state.bases)
            if gone is not None:
                del self.state.bases[gone]
        self._freeze(now)

    def measured(self, version: int, metrics: Metrics) -> None:
        """The aggregator's own evaluation of a version came in; if it reaches the goal, the next tick ends the run."""
        self.news.measured[version] = metrics
        self._own_metrics = metrics

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._close_if_due(now)
        self._end_if_reached(now)

    def deadline(self) -> float | None:
        """When `tick` is due even if nothing happens."""
        if self.state.finished:
            return None
        # A cohort of which nothing came is not closed by its deadline, but by its first update after it.
        rule = self.strategy.cohort if self.state.buffer.updates else None
        asks_devices = self.goal.target is not None and self.goal.source == "devices"
        scores = self.state.scores.deadline() if asks_devices else None
        times = [self._timer(), self.goal.seconds, scores, self.cohort.deadline(rule) if rule else None]
        return min((time for time in times if time is not None), default=None)

    def finish(self, why: str, now: float) -> None:
        """End the run: what is in the buffer makes a last version."""
        if self.state.finished is None:
            if self.state.buffer.updates:
                self._make_version("goal", now)
            self.state.finished = why

    def take(self) -> News:
        """What happened since the last time: what the store has not seen."""
        news, self.news = self.news, News()
        return news

    def _admit_header(self, client_id: str, offer: Offer) -> None:
        state, strategy = self.state, self.strategy
        if state.finished is not None:
            raise ProtocolError("late", f"the run is finished: {state.finished}")
        admit_header(offer, self.rules, state.version, state.bases if strategy.mixes else None)
        if strategy.cohort:
            delivered = self._delivered()
            self.cohort.heard(client_id)
            stale = f"trained from version {offer.base_version}, the cohort's is {state.version}"
            late = stale if offer.base_version != state.version else self.cohort.refusal(client_id, delivered)
            if late:
                raise ProtocolError("late", late)

    def _admit_body(self, client_id: str, offer: Offer, body: memoryview, digest: str | None) -> tuple[Pieces, float]:
        """An update that may touch the model: its pieces, and the norm of its delta where a bound asks for it."""
        norms, longest, clip = self.state.norms, self.rules.longest, self.strategy.clip
        pieces = admit_body(offer, body, self.rules, digest)
        if longest is None and clip is None:
            return pieces, 0.0
        vector = whole(pieces, self.state.layout.size)
        found = norm_of(vector[: self.state.layout.parameter_size])
        limit = math.inf if longest is None else norms.limit(longest, client_id, found, _MEDIAN_CLIENTS)
        if found > limit:
            # It counts all the same: else a first client with a tiny norm would have all others refused for ever.
            self._count_norm(client_id, found)
            fixed = longest is not None and longest.norm is not None and found > longest.norm
            refusal = ProtocolError if fixed else OthersBoundError
            raise refusal("norm_bound", f"the norm of the delta is {found:.6g}, the bound is {limit:.6g} now")
        return [(0, vector)], found

    def _count_norm(self, client_id: str, found: float) -> None:
        if self._follows_norms:
            self.state.norms.count(client_id, found)

    def _accept(self, client_id: str, offer: Offer, pieces: Pieces, norm: float, now: float) -> Judged:
        state, strategy, update, rules = self.state, self.strategy, offer.update, self.rules
        base, samples, tempo = offer.base_version, offer.num_samples, state.tempo
        staleness = state.version - base
        weight, mass = strategy.weigh(Arrival(staleness, samples, tempo.median_samples()))
        scale = 1.0
        if strategy.clip is not None:
            scale = state.norms.scale(strategy.clip, client_id, norm)
            vector = whole(pieces, state.layout.size)
            pieces = [(0, scaled(vector, scale, state.layout.parameter_size))]
        self._count_norm(client_id, norm)
        held = nearest(state.bases, base) if strategy.mixes else None
        folded = Folded(client_id, update, base, staleness, weight, samples, scale, held)
        if strategy.rule is None:
            state.buffer.fold_pieces(pieces, folded, mass, now)
        else:
            state.buffer.keep(whole(pieces, state.layout.size), folded, mass, now)
        if held is not None:  # y - x = D + x_base - x
            size = state.layout.parameter_size
            state.buffer.fold_parameters(weight, 1.0, state.bases[held], size)
            state.buffer.fold_parameters(weight, -1.0, state.weights, size)
        since_last = now - self._last_accepted[1] if self._last_accepted is not None else None
        if strategy.one_per_client and self._last_accepted is not None and self._last_accepted[0] == client_id:
            since_last = None  # it had no slot until there was a version: that says nothing of how quick clients are
        tempo.update(base, state.accepted, samples, since_last, max(1, len(state.ledger)))
        state.allowances.count(rules.allowance, client_id, now)
        self._last_accepted = client_id, now
        state.accepted += 1
        self.judged += 1
        if strategy.cohort:
            self.cohort.delivery(self._delivered(), now)
        state.staleness_sum += staleness
        state.uplink_bytes += offer.size
        if offer.evaluation is not None:
            state.scores.add(client_id, base, offer.evaluation)
            self.news.scored.add(client_id)
            self.news.scored_versions.add(base)
        return Judged(update, None, "", state.version, staleness, short(offer.digest))

    def _refuse_foreign(self, client_id: str, offer: Offer, now: float) -> Judged:
        """An offer that names another client than its topic; the verdict is one on an update of the topic's."""
        known = self._known(client_id, offer)
        if known is not None and known.reason not in ("id_reused", "expired"):
            return known
        detail = f"the offer names client {offer.client_id!r}, its topic {client_id!r}"
        judged = self._refuse(client_id, offer, ProtocolError("wrong_client", detail), now)
        if known is None:
            self._remember(client_id, judged)
        return judged

    def _refuse(self, client_id: str, offer: Offer, refusal: ProtocolError, now: float | None) -> Judged:
        self.state.rejected[refusal.reason] += 1
        of_this_version = offer.run == self.rules.run and offer.base_version == self.state.version
        if offer.client_id == client_id and of_this_version:
            self.cohort.refuse(client_id)
        if now is not None:
            self.state.quarantine.offence(self.rules.quarantine, client_id, refusal.reason, now)
        self.judged += 1
        return Judged(offer.update, refusal.reason, str(refusal)[:_DETAIL], digest=short(offer.digest))

    def _known(self, client_id: str, offer: Offer) -> Judged | None:
        return self.state.ledger.find(client_id, offer.update, offer.digest, offer.base_version)

    def _remember(self, client_id: str, judged: Judged) -> None:
        record, begins = self.state.ledger.enter(client_id, judged)
        self.state.verdicts += 1
        if begins:
            self.news.renewed.add(client_id)
        self.news.judged.append((client_id, judged.update, record))

    def _delivered(self) -> set[str]:
        return {folded.client_id for folded in self.state.buffer.updates}

    def _freeze(self, now: float) -> None:
        if self.strategy.cohort:
            self.cohort.freeze(self.strategy.cohort, self._delivered(), now)

    def _timer(self) -> float | None:
        opened = self.state.buffer.opened
        if not self.strategy.timed or opened is None:
            return None
        if self._kept is not None and len(self.state.buffer.updates) < self._kept.least:
            return None
        after = self.state.tempo.flush_after()
        if self.strategy.one_per_client:
            after = waits_at_least(self.state.buffer, after)
        return None if after is None else opened + after

    def _why_closed(self, now: float) -> str | None:
        """Why the buffer becomes a version now; None if it does not."""
        buffer = self.state.buffer
        if not buffer.updates or self.state.finished is not None:
            return None
        if self.strategy.cohort:
            return self.cohort.closes(self.strategy.cohort, self._delivered(), now)
        if len(buffer.updates) >= self.state.tempo.buffer_size:
            return "full"
        timer = self._timer()
        return "timer" if timer is not None and now >= timer else None

    def _close_if_due(self, now: float) -> None:
        why = self._why_closed(now)
        if why:
            self._make_version(why, now)
            self._end_if_reached(now)

    def _make_version(self, why: str, now: float) -> None:
        state, strategy = self.state, self.strategy
        size = len(state.buffer.updates) if strategy.cohort else state.tempo.buffer_size
        rates = strategy.rates(state.buffer.batch(size))
        empty = Buffer.empty(state.layout)  # what may fail comes before anything has moved
        moved = step(state.weights, state.buffer, rates, state.layout, state.velocity, strategy.momentum, strategy.rule)
        state.weights, state.velocity = moved
        state.version += 1
        self.news.versions.append(VersionRecord(state.version, tuple(state.buffer.updates), size, why, now))
        state.buffer = empty
        least = fewest(len(state.ledger)) if strategy.one_per_client else 1
        state.tempo.version(state.version, state.accepted, strategy.buffer_size, least)
        if self._kept is not None:
            state.tempo.buffer_size = self._kept.size(state.tempo.buffer_size)
        if why == "deadline":
            self.cohort.missed({folded.client_id for folded in self.news.versions[-1].updates})
        self.cohort.open()

    def _why_ended(self, now: float) -> str | None:
        """Which part of the goal is reached now; None if the run goes on, or has ended before."""
        if self.state.finished is not None:
            return None
        goal, scores = self.goal, self.state.scores
        if goal.target is not None and goal.source == "devices" and scores.ask_again(now):
            self._devices_reach = scores.reached_by_most(goal.metric, higher_is_better=goal.higher_is_better)
        return goal.reached(self.state.version, now, self._devices_reach, self._own_metrics)

    def _end_if_reached(self, now: float) -> None:
        reached = self._why_ended(now)
        if reached:
            self.finish(reached, now)


def _later(offer: Offer, reason: LaterReason, seconds: float) -> Later:
    return Later(update=offer.update, reason=reason, seconds=seconds)
