"""What an aggregator may have accepted, by a reading of what was sent that shares no code with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from tests.fuzz.mutation import Fields, digest
from tests.fuzz.updates import GOOD, LAYOUT, RUN, TOPICS, Body, is_good
from tests.fuzz.world import require
from tests.security.signed_world import DEVICES, keys_of

__all__ = ["Accounts", "header"]

_NOT_OF_THIS_UPDATE = ("wrong_client", "id_reused", "expired")  # said again and again, and never remembered
_UPDATES = TOPICS.updates.removesuffix("+")
_REPLIES = TOPICS.replies.removesuffix("+")

_Update = tuple[str, str, int]
"""Client, outbox id, sequence number."""


class _Offered(NamedTuple):
    base_version: int
    digest: str


class Accounts:
    """Offers that were in order, and receipts.

    Args:
        signed: only what the owner of a topic has signed is in order.

    Attributes:
        accepted: updates whose receipt says so.

    """

    def __init__(self, *, signed: bool) -> None:
        self.accepted = 0
        self._signed = signed
        self._offered: dict[_Update, list[_Offered]] = {}
        self._bodies: dict[tuple[str, str], bytes] = {}  # by codec and digest, as they were announced
        self._verdicts: dict[_Update, tuple[str, str | None]] = {}

    def sent(self, topic: str, data: bytes) -> None:
        """A message goes to the aggregator."""
        client_id = topic.removeprefix(_UPDATES)
        try:
            found, body = header(data)
            update = (client_id, found["update"]["outbox_id"], found["update"]["sequence"])
            belongs = (found["client_id"], found["run"], found["layout"]) == (client_id, RUN, LAYOUT.digest)
            if found["kind"] != "offer" or not belongs or not found["num_samples"] > 0:
                return
            if self._signed and not _is_signed(client_id, topic, data, found, body):
                return
            offered = _Offered(found["base_version"], found["digest"] + "")
            if body:
                self._bodies.setdefault((found["codec"] + "", found["digest"]), body)
            self._offered.setdefault(update, []).append(offered)
        except Exception:
            return  # whatever is wrong with it, it is no offer

    def said(self, topic: str, data: bytes) -> None:
        """The aggregator says something. Raises AssertionError: it accepts what it must not."""
        client_id = topic.removeprefix(_REPLIES)
        if client_id != topic:
            for receipt in header(data)[0]["receipts"]:
                self._receipt(client_id, receipt)

    def _receipt(self, client_id: str, receipt: Fields) -> None:
        update = (client_id, receipt["update"]["outbox_id"], receipt["update"]["sequence"])
        reason = receipt.get("reason")
        require(reason != "internal", f"{update}: {receipt.get('detail')}")
        if reason in _NOT_OF_THIS_UPDATE:
            return
        verdict = (receipt["verdict"], receipt.get("digest"))
        known = self._verdicts.get(update)
        require(known in (None, verdict), f"{update} has two verdicts: {known} and {verdict}")
        self._verdicts[update] = verdict
        if known is not None or receipt["verdict"] != "accepted":
            return
        self.accepted += 1
        base = receipt["version"] - receipt["staleness"]
        offers = [
            offered
            for offered in self._offered.get(update, [])
            if offered.base_version == base and offered.digest.startswith(receipt["digest"])
        ]
        require(offers, f"{update} was accepted, and nobody has offered it in order")
        require(self._is_an_update(offers[0].digest), f"{update} was accepted, and its bytes are no update")

    def _is_an_update(self, wanted: str) -> bool:
        """Whether bytes of this digest have come that are one. What came in parts is among the good ones."""
        came = [Body.of(codec, data) for (codec, announced), data in self._bodies.items() if announced == wanted]
        return any(body.digest == wanted and is_good(body) for body in (*came, *GOOD))


def header(data: bytes) -> tuple[Any, bytes]:
    """What a message says, and its body. Raises whatever msgpack does."""
    reader = msgpack.Unpacker(strict_map_key=False)
    reader.feed(data)
    return reader.unpack(), data[reader.tell() :]


def _is_signed(client_id: str, topic: str, data: bytes, found: Fields, body: bytes) -> bool:
    """By the owner of the topic, over all of it: the signature is the last thing in its header."""
    before = data[: len(data) - len(body) - 64]
    content = b"fedmq-signed-1\0" + topic.encode() + b"\0" + before + bytes.fromhex(digest(body))
    return client_id in DEVICES and keys_of(client_id).verify(client_id, content, found["signature"]) is not None
