"""What an aggregator would say to a device right now, in order for the most part, for an enemy to begin with."""

from __future__ import annotations

from collections.abc import Sequence

from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.messages import Head, Offer
from tests.fuzz.choices import Choices
from tests.fuzz.mutation import Fields
from tests.fuzz.seeds import Seed, seeds
from tests.fuzz.updates import LAYOUT, PART, RUN, TOPICS, WEIGHTS

__all__ = ["Voice"]

_OTHER_LAYOUT = Layout.of([Entry("w", (40, 50)), Entry("c", (50,))])
_REASONS = ("id_reused", "expired", "layout", "too_stale", "not_finite", "late", "internal", "malformed")
_PLANS: tuple[Fields, ...] = (
    {"retrain_after": 5.0},
    {"retrain_after": 0.5, "codec": "float32", "zstd": False},
    {"continuous": True, "codec": "int8"},
    {"codec": "top_k", "local_parameters": ["w"]},  # which a device without torch refuses, and stops
)


class Voice:
    """One aggregator, and what it has said to a device.

    Args:
        client_id: of the device.
        honest: nothing that makes a device stop, but that the run is finished.

    """

    def __init__(self, client_id: str, *, honest: bool) -> None:
        self._client_id = client_id
        self._honest = honest
        self._run = RUN
        self._version = 0
        self._incarnation = 0
        self._parts: list[Seed] = []  # of the snapshot that was announced last

    def message(self, kind: int, choices: Choices, waiting: Sequence[Offer], newest: Head | None) -> Seed:
        """One message; `kind` is below 256, `waiting` are the device's updates, `newest` is the head that it heard."""
        if kind < 60:
            return self._head(choices, newest)
        if kind < 90 and self._parts:
            place = 0 if choices.below(4) else choices.below(len(self._parts))
            return self._parts.pop(place) if choices.below(4) else self._parts[place]
        if kind < 160:
            return TOPICS.reply(self._client_id), self._reply(choices, waiting), b""
        if kind < 185:
            return TOPICS.aggregator, self._presence(choices), b""
        if kind < 200:
            layout = _OTHER_LAYOUT if not self._honest and choices.chance(4) else LAYOUT
            notice: Fields = {"protocol": 1, "kind": "layout", "run": RUN, "digest": layout.digest}
            return TOPICS.layout, notice, layout.encoded
        if kind < 215:
            slot = choices.below(2)
            return TOPICS.slot(slot), {**self._head(choices, newest)[1], "slot": slot, "part_bytes": PART}, b""
        if self._honest:
            return self._head(choices, newest)
        topic, fields, body = choices.pick(seeds(self._client_id))
        if fields.get("state") == "finished" and choices.below(32):
            fields = {**fields, "state": "training"}
        return topic, fields, body

    def other_topic(self, choices: Choices) -> str:
        """Where the device listens, or not."""
        me = self._client_id
        known = (TOPICS.model, TOPICS.aggregator, TOPICS.layout, TOPICS.reply(me), TOPICS.status(me))
        more = (TOPICS.slot(0), TOPICS.slot(7), TOPICS.part(0, 0), TOPICS.part(1, 10**8), TOPICS.reply("x"), "", "\0")
        return choices.pick((*known, *more))

    def _head(self, choices: Choices, newest: Head | None) -> Seed:
        self._version += choices.chance(90)
        if newest is not None and newest.version > self._version:  # altered: it would hear of nothing new any more
            self._version = newest.version + 1
            if self._version >= 1 << 62:
                self._run, self._version = f"{int(self._run, 16) + 1:032x}", 0
        weights = choices.pick(WEIGHTS)
        version = max(0, self._version - choices.below(4)) if choices.chance(30) else self._version
        head: Fields = {
            "protocol": 1,
            "kind": "head",
            "run": self._run,
            "version": version,
            "state": "finished" if choices.chance(1) and choices.chance(30) else "training",
            "plan": _PLANS[choices.below(3 if self._honest else len(_PLANS))],
            "layout": LAYOUT.digest,
            "codec": weights.codec,
            "size": len(weights.data),
            "digest": weights.digest,
        }
        if not choices.chance(80):
            return TOPICS.model, head, weights.data
        slot, data = choices.below(2), weights.data
        part: Fields = {
            "protocol": 1,
            "kind": "snapshot-part",
            "run": self._run,
            "version": version + choices.chance(30),  # it is overwritten
        }
        starts = range(0, len(data), PART)
        self._parts = [(TOPICS.part(slot, start // PART), part, data[start : start + PART]) for start in starts]
        return TOPICS.model, {**head, "slot": slot, "part_bytes": PART}, b""

    def _presence(self, choices: Choices) -> Fields:
        self._incarnation += choices.chance(10)
        return {
            "protocol": 1,
            "kind": "aggregator",
            "state": choices.pick(("online", "online", "online", "offline", "starting")),
            "run": RUN,
            "incarnation": f"{self._incarnation:032x}",
            "version": self._version if self._version < 1 << 63 else 0,
        }

    def _reply(self, choices: Choices, waiting: Sequence[Offer]) -> Fields:
        receipts: list[Fields] = []
        later: list[Fields] = []
        missing: list[Fields] = []
        for _ in range(min(1 + choices.below(3), len(waiting))):
            offer = choices.pick(waiting)
            update = offer.update.model_dump()
            match choices.below(4):
                case 0:
                    receipts.append({"update": update, "verdict": "accepted", "version": 3, "staleness": 0})
                    if choices.below(2):
                        receipts[-1]["digest"] = offer.digest[:16]
                case 1:
                    reason = choices.pick(_REASONS)
                    receipts.append({"update": update, "verdict": "rejected", "reason": reason, "detail": "so it is"})
                case 2:
                    later.append({"update": update, "reason": "busy", "seconds": choices.byte() / 10})
                case _:
                    ranges, window = [[choices.below(3) * PART, offer.size]], 1 + choices.below(8)
                    missing.append({"update": update, "ranges": ranges, "window": window, "heard": choices.below(20)})
        head: Fields = {"protocol": 1, "kind": "reply", "run": RUN, "incarnation": f"{self._incarnation:032x}"}
        return {**head, "receipts": receipts, "later": later, "missing": missing}
