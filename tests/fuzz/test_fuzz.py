"""The short form of `make fuzz`: a few thousand hostile inputs for each target, the same ones in every run.

A proof that cannot fail is none: on as many inputs each of the mistakes below has to be noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedmq.aggregator import core as aggregator_core
from fedmq.aggregator.ledger import Ledger
from fedmq.edge_client.core import ClientCore
from fedmq.schemas.messages import Receipt, Reply
from fedmq.signed_link import SignedLink
from fedmq.transport.mqtt_packets import PacketReader, Publish
from tests.fuzz.run import TARGETS, Found, fuzz, read_case, rerun

INPUTS = {"messages": 8_000, "aggregator": 6_000, "device": 5_000, "broker": 12_000}  # about a second each


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_breaks(target: str) -> None:
    inputs = INPUTS.get(target, 2_500)
    figures = fuzz(target, inputs, seed=1)
    assert figures.inputs == inputs
    assert figures.slowest[0] < 0.1


def _anything_is_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregator_core, "admit_header", lambda *_: None)


def _no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "find", lambda *_: None)


def _no_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignedLink, "_refusal", lambda *_: None)


def _sentences_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = SignedLink._refuse

    def counted(self: SignedLink, topic: str, why: str) -> None:
        self._said[f"{why} {self.refused}"] += 1
        refuse(self, topic, why)

    monkeypatch.setattr(SignedLink, "_refuse", counted)


def _later_is_taken_for_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = ClientCore.reply

    def misread(self: ClientCore, said: Reply, now: float) -> Any:
        receipts = tuple(Receipt(update=later.update, verdict="accepted") for later in said.later)
        return reply(self, said.model_copy(update={"receipts": (*said.receipts, *receipts)}), now)

    monkeypatch.setattr(ClientCore, "reply", misread)


def _two_messages_are_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = PacketReader._filled

    def cut(self: PacketReader, filling: Any) -> Publish | None:
        packet = filled(self, filling)
        return packet and packet._replace(payload=packet.payload[:-1] + b"x")

    monkeypatch.setattr(PacketReader, "_filled", cut)


@pytest.mark.parametrize(
    ("target", "mistake", "noticed"),
    [
        ("aggregator", _anything_is_admitted, "nobody has offered it in order|the aggregator failed"),
        ("aggregator", _no_ledger, "has two verdicts|receipts say"),
        ("aggregator-signed", _no_signatures, "nobody has offered it in order|without a key"),
        ("aggregator-signed", _sentences_are_kept, "_said holds"),
        ("device", _later_is_taken_for_accepted, "is gone without a receipt"),
        ("device-signed", _no_signatures, "without a receipt|never showed|without a key"),
        ("broker", _two_messages_are_mixed_up, "a message that is another"),
    ],
)
def test_a_mistake_is_noticed_written_down_and_shown_again(
    target: str,
    mistake: Callable[[pytest.MonkeyPatch], None],
    noticed: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    mistake(monkeypatch)
    with pytest.raises(Found, match=noticed) as found:
        fuzz(target, 20_000, seed=1)
    case = read_case(found.value.write(tmp_path))
    with pytest.raises(AssertionError, match=noticed):
        rerun(*case)
