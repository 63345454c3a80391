"""Hostile bytes for whatever reads bytes: every message type, layouts, the signed envelope, the codecs."""

from __future__ import annotations

import numpy as np

from fedmq.schemas.codecs import codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Layout
from fedmq.schemas.messages import Offer, ProtocolMessage
from fedmq.schemas.signing import opened
from fedmq.schemas.wire import decode, encode
from tests.fuzz.choices import Choices
from tests.fuzz.codecs import NAMES
from tests.fuzz.mutation import altered_bytes, altered_fields, payload
from tests.fuzz.seeds import seeds
from tests.fuzz.updates import GOOD, LAYOUT
from tests.fuzz.world import require

__all__ = ["MessagesWorld"]

_TYPES = tuple(ProtocolMessage.__subclasses__())
_LAYOUTS = (LAYOUT.encoded, Layout.of(LAYOUT.entries[:1]).encoded)
_ENCODED = {body.codec: body.data for body in GOOD}
_LONGEST = 600  # characters of a sentence about what was wrong, whatever it was


class MessagesWorld:
    """Nothing that stays: each input is read and forgotten."""

    def __init__(self, *, number: int) -> None:
        del number
        self.over = False
        self._seeds = seeds("dev-1")
        self._fields = [fields for _, fields, _ in self._seeds]

    def step(self, choices: Choices) -> None:
        """One input for one reader."""
        kind = choices.byte()
        try:
            if kind < 160:
                self._message(choices)
            elif kind < 190:
                data = self._bytes(choices.pick(_LAYOUTS), choices)
                layout = Layout.decode(data)
                require(Layout.decode(layout.encoded) == layout, "a layout that does not come back")
            elif kind < 220:
                self._envelope(choices)
            else:
                name = choices.pick(NAMES)
                vector = codec_named(name).decode(self._bytes(_ENCODED[name], choices), LAYOUT)
                require(vector.shape == (LAYOUT.size,) and vector.dtype == np.float32, f"{name}: {vector.shape}")
        except ProtocolError as error:
            require(error.reason in ("malformed", "schema", "layout"), f"{error.reason}: {error}")
            require(len(str(error)) <= _LONGEST, f"a sentence of {len(str(error))} characters")

    def check(self) -> None:
        """Nothing stays."""

    def close(self) -> None:
        """Nothing stays."""

    def _message(self, choices: Choices) -> None:
        _, fields, body = choices.pick(self._seeds)
        how = choices.byte()
        if how < 150:
            fields = altered_fields(fields, choices, self._fields)
        data = payload(fields, body)
        if how >= 120:
            data = self._bytes(data, choices)
        expected = choices.pick(_TYPES) if choices.chance(80) else _type_of(fields)
        message, rest = decode(data, expected)
        again, _ = decode(encode(message), expected)
        require(again == message, f"a message that does not come back: {message!r}")
        require(len(rest) <= len(data), "a body longer than its message")
        if isinstance(message, Offer):
            require(0 <= message.base_version < 1 << 63 and message.num_samples > 0, "an offer out of bounds")

    def _envelope(self, choices: Choices) -> None:
        topic, fields, body = choices.pick(self._seeds)
        session, signature = choices.number(8), choices.bytes(64)
        data = payload({**fields, "session": session, "signature": signature}, body)
        if choices.below(8):
            data = self._bytes(data, choices)
        signed = opened(topic, data)
        if signed is not None:
            require(0 <= signed.session < 1 << 64 and len(signed.signature) == 64, "an envelope out of bounds")

    def _bytes(self, data: bytes, choices: Choices) -> bytes:
        return choices.bytes(choices.below(64)) if choices.chance(8) else altered_bytes(data, choices)


def _type_of(fields: object) -> type[ProtocolMessage]:
    kind = fields.get("kind") if isinstance(fields, dict) else None
    for one in _TYPES:
        if one.model_fields["kind"].default == kind:
            return one
    return Offer
