"""What devices would say to the aggregator right now, in order for the most part, for an enemy to begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.fuzz.choices import Choices
from tests.fuzz.mutation import Fields
from tests.fuzz.seeds import Seed, seeds
from tests.fuzz.updates import BAD, GOOD, LAYOUT, PART, RUN, TOPICS

__all__ = ["Devices"]


class Devices:
    """Devices of these names, and what they have sent."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sequences: Counter[str] = Counter()
        self._outboxes: Counter[str] = Counter()
        self._parts: list[Seed] = []  # of the update whose upload was begun last

    def message(self, kind: int, choices: Choices, version: int) -> Seed:
        """One message; `kind` is below 256, and `version` the present one."""
        if kind < 150:
            return self._offer(choices, version)
        if kind < 185 and self._parts:
            place = 0 if choices.below(4) else choices.below(len(self._parts))
            return self._parts.pop(place) if choices.below(8) else self._parts[place]
        if kind < 190:
            parts = list(choices.bytes(choices.below(3)))
            need: Fields = {"protocol": 1, "kind": "need", "run": RUN, "version": version, "parts": parts}
            return TOPICS.update(choices.pick(self._names)), need, b""
        if kind < 195:
            return TOPICS.part(choices.below(3), choices.below(3)), {}, choices.bytes(choices.below(40))
        topic, fields, body = choices.pick(seeds(choices.pick(self._names)))
        if fields["kind"] == "aggregator" and choices.below(64):  # another one that is online ends it, as it should
            state = choices.pick(("starting", "offline"))
            fields = {**fields, "incarnation": choices.bytes(16).hex(), "state": state}
        return topic, fields, body

    def other_topic(self, choices: Choices) -> str:
        """Where the aggregator listens, or not."""
        name = choices.pick(self._names)
        known = (TOPICS.update(name), TOPICS.status(name), TOPICS.aggregator, TOPICS.model, TOPICS.progress)
        more = (TOPICS.layout, TOPICS.updates, f"{TOPICS.update(name)}/x", "fedmq/g/update/a", "", "\0")
        return choices.pick((*known, *more, TOPICS.part(0, 0)))

    def _offer(self, choices: Choices, version: int) -> Seed:
        name = choices.pick(self._names)
        body = choices.pick(BAD if choices.chance(30) else GOOD)
        fields: Fields = {
            "protocol": 1,
            "kind": "offer",
            "run": RUN,
            "client_id": name,
            "update": self._update(name, choices),
            "base_version": max(0, version - choices.below(30)) if choices.chance(60) else version,
            "layout": LAYOUT.digest,
            "codec": body.codec,
            "size": len(body.data),
            "digest": body.digest,
            "num_samples": 1 + choices.number(choices.below(4)),
        }
        if choices.chance(20):
            fields["evaluation"] = {"num_samples": 5, "metrics": {f"m{choices.below(40)}": choices.byte() / 7}}
        topic = TOPICS.update(name)
        if not choices.chance(60):
            return topic, fields, body.data
        fields["number"] = 1
        if not self._parts or choices.below(4) == 0:
            known = {key: fields[key] for key in ("protocol", "run", "update", "digest")}
            self._parts = [
                (topic, {**known, "kind": "part", "offset": at, "number": 2 + at // PART}, body.data[at : at + PART])
                for at in range(0, len(body.data), PART)
            ]
        return topic, fields, b""

    def _update(self, name: str, choices: Choices) -> Fields:
        """The next one of this device, or one from before; an outbox is seldom a new one."""
        sequence = self._sequences[name]
        if choices.chance(40):
            sequence = max(0, sequence - 1 - choices.below(70))
        else:
            self._sequences[name] += 1
        self._outboxes[name] += choices.chance(1)
        outbox = self._outboxes[name]
        if choices.chance(5):
            outbox = max(0, outbox - 1 - choices.below(3))
        return {"outbox_id": f"{outbox:032x}", "sequence": sequence}
