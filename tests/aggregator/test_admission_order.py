"""Each step of the admission, with a message that breaks this step and all later ones: the first is the reason.

It is counted, it is answered as it should be, and nothing else of the state is another.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from fedmq.aggregator.admission import Rules
from fedmq.aggregator.allowance import Allowance
from fedmq.aggregator.clipping import Bound
from fedmq.aggregator.state import State
from fedmq.schemas.messages import Later, Missing
from fedmq.schemas.wire import encode
from tests.aggregator.door import CLIENT, LAYOUT, MOST_BYTES, VERSION, Door, header_of
from tests.aggregator.small_run import RUN, offer_of

# What breaks each step, from the first to the last; fields of the header, or what is done to the whole.
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("signature", {}),
    ("too_large", {}),
    ("malformed", {}),
    ("schema", {"num_samples": 0}),
    ("revoked", {}),
    ("wrong_client", {"client_id": "bob"}),
    ("id_reused", {"update": {"outbox_id": f"{1:032x}", "sequence": 0}}),
    ("wrong_run", {"run": "f" * 32}),
    ("task_version", {"task_version": "2"}),
    ("layout", {"layout": "0" * 64}),
    ("unknown_base", {"base_version": VERSION + 1}),
    ("too_stale", {"base_version": 9}),
    ("too_large", {"size": 1 << 40}),
    ("malformed", {"codec": "gzip"}),
    ("quota", {}),  # it has no verdict yet, and costs nothing until its turn comes; then the rest of them
    ("rate", {}),
    ("malformed", {"digest": "0" * 64}),
    ("not_finite", {}),
    ("norm_bound", {}),
]
NO_ANSWER = {"signature", "too_large", "malformed", "schema"}  # in the first four
NOT_REMEMBERED = {"wrong_client", "id_reused", "quota", "rate"}


def rules_of(allowance: Allowance) -> Rules:
    return Rules(RUN, LAYOUT, frozenset({"1"}), 10, Bound(norm=10.0), allowance)


def payload_of(step: int) -> bytes:
    """A message that breaks this step and every later one, as far as they do not exclude each other."""
    values = np.full(4, 1e6, np.float32)
    if step <= _index("not_finite"):
        values[1] = np.nan
    offer, body = offer_of(values, LAYOUT, client_id=CLIENT, base_version=VERSION, sequence=7, task_version="1")
    header = offer.model_dump(exclude_none=True)
    for name, broken in reversed(STEPS[step:]):
        if (name, STEPS[step][0]) != ("id_reused", "revoked"):  # what was judged before keeps its verdict
            header |= broken
    payload = b"".join((msgpack.packb(header), body))
    first = STEPS[step][0]
    if first == "malformed" and step < _index("schema"):
        return b"\xc1" + payload
    if first == "too_large" and step < _index("schema"):
        return b"\xc1" + payload + bytes(MOST_BYTES)
    return payload


def _index(name: str) -> int:
    return next(n for n, (step, _) in enumerate(STEPS) if step == name)


def seen(state: State) -> Any:
    """What a refusal must leave as it is."""
    buffer, tempo = state.buffer, state.tempo
    kept = (state.version, state.accepted, state.staleness_sum, state.uplink_bytes, buffer.updates, buffer.weight)
    return deepcopy(
        (kept, state.weights.tolist(), buffer.total.tolist(), state.allowances.today, list(tempo.samples),
         state.norms.newest, state.scores.newest, state.ledger.clients())
    )  # fmt: skip


@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"{n}-{name}" for n, (name, _) in enumerate(STEPS)])
def test_the_first_step_that_fails_is_the_reason_and_nothing_else_changes(tmp_path: Path, step: int) -> None:
    name = STEPS[step][0]
    allowance = Allowance(
        per_minute=1.0 if step <= _index("rate") else None, per_day=1 if step <= _index("quota") else None
    )
    door = Door(tmp_path, rules_of(allowance), signed=name == "signature")
    state = door.core.state
    first, body = offer_of([1.0] * 4, LAYOUT, client_id=CLIENT, base_version=VERSION, task_version="1")
    good = encode(first, body)
    door.say(good)
    assert state.accepted == 1
    door.answers.clear()
    if step <= _index("revoked"):
        (tmp_path / "revoked").write_text(f"{CLIENT}\n")
    before, rejected, later = seen(state), Counter(state.rejected), Counter(state.later)

    payload = payload_of(step)
    door.signed = False  # if it was, this message breaks that too
    door.say(payload)

    assert seen(state) == before
    counted = (Counter(state.rejected) - rejected, Counter(state.later) - later)
    assert counted == ((Counter(), Counter([name])) if name in ("quota", "rate") else (Counter([name]), Counter()))
    if name in NO_ANSWER and step <= _index("schema"):
        assert door.answers == []
        return
    (answer,) = door.answers
    assert not isinstance(answer, Missing)
    assert answer.reason == name
    if isinstance(answer, Later):
        assert 1.0 <= answer.seconds <= 3600.0
    header = header_of(payload)
    remembered = state.ledger.find(CLIENT, header.update, header.digest, header.base_version)
    if name in NOT_REMEMBERED:
        if name != "id_reused":
            assert remembered is None or remembered.reason == "id_reused"
    else:
        assert remembered is not None
        assert remembered.reason == name
        # Said again, it has the same verdict, and is not counted again.
        door.say(payload)
        assert len(door.answers) == 2
        assert getattr(door.answers[1], "reason", None) == name
        assert Counter(state.rejected) - rejected == Counter([name])
