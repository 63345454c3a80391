"""Each refusal has its own reason, and they come in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmq.aggregator.admission import Rules, admit_body, admit_header
from fedmq.schemas.codecs.codec import joined
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Vector
from fedmq.schemas.messages import Offer
from tests.aggregator.small_run import RUN, layout_of, offer_of, vector

LAYOUT = layout_of(2, 1)
RULES = Rules(RUN, LAYOUT, task_versions=frozenset({"v1", "v2"}), max_staleness=10)
VERSION, HELD = 20, {15, 18}

GOOD: dict[str, Any] = {"base_version": 18, "task_version": "v1"}


def admit(offer: Offer, body: memoryview, rules: Rules, version: int, held: set[int] | None) -> Vector:
    admit_header(offer, rules, version, held)
    return joined((piece for _, piece in admit_body(offer, body, rules)), rules.layout.size)


def admitted(values: list[float], body: bytes | None = None, rules: Rules = RULES, **fields: Any) -> Vector:
    offer, encoded = offer_of(values, LAYOUT, **{**GOOD, **fields})
    return admit(offer, encoded if body is None else memoryview(body), rules, VERSION, HELD)


def reason(*arguments: Any, **fields: Any) -> str:
    with pytest.raises(ProtocolError) as refusal:
        admitted(*arguments, **fields)
    return refusal.value.reason


def test_an_update_that_fits_is_its_vector() -> None:
    assert admitted([1, 2, 3]).tolist() == [1, 2, 3]
    assert admitted([1, 2, 3], codec="float16").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"run": "f" * 32}, "wrong_run"),
        ({"task_version": "v3"}, "task_version"),
        ({"layout": "0" * 64}, "layout"),
        ({"base_version": 21}, "unknown_base"),  # the future
        ({"base_version": 9}, "too_stale"),
        ({"base_version": 14}, "unknown_base"),  # older than what is held
        ({"size": 13}, "malformed"),
        ({"digest": "0" * 64}, "malformed"),
        ({"codec": "float16", "size": 12}, "malformed"),
        ({"codec": "zip"}, "malformed"),
    ],
)
def test_each_fault_alone_has_its_own_reason(fields: dict[str, Any], expected: str) -> None:
    offer, body = offer_of([1, 2, 3], LAYOUT, **GOOD)
    with pytest.raises(ProtocolError) as refusal:
        admit(offer.model_copy(update=fields), body, RULES, VERSION, HELD)
    assert refusal.value.reason == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_nan_or_infinity_anywhere_is_not_finite(bad: float, place: int) -> None:
    values = [1.0, 2.0, 3.0]
    values[place] = bad
    assert reason(values) == "not_finite"


def test_of_many_faults_the_first_in_a_fixed_order_is_the_reason() -> None:
    good, body = offer_of([np.nan, 0, 0], LAYOUT, base_version=21, run="f" * 32, task_version="v3")
    offer = good.model_copy(update={"layout": "0" * 64, "digest": "0" * 64})
    mended: list[tuple[str, dict[str, Any]]] = [
        ("wrong_run", {"run": RUN}),
        ("task_version", {"task_version": "v1"}),
        ("layout", {"layout": LAYOUT.digest}),
        ("unknown_base", {"base_version": 5}),
        ("too_stale", {"base_version": 14}),
        ("unknown_base", {"base_version": 18}),
        ("malformed", {"digest": good.digest}),
        ("not_finite", {}),
    ]
    for expected, mending in mended:
        with pytest.raises(ProtocolError) as refusal:
            admit(offer, body, RULES, VERSION, HELD)
        assert refusal.value.reason == expected
        offer = offer.model_copy(update=mending)


def test_without_bounds_any_age_and_any_task_version_is_taken() -> None:
    offer, body = offer_of([1, 2, 3], LAYOUT, base_version=0, task_version="anything")
    assert admit(offer, body, Rules(RUN, LAYOUT), 10**6, None).tolist() == [1, 2, 3]


@pytest.mark.parametrize(("base", "taken"), [(10, True), (9, False)])
def test_the_staleness_bound_itself_is_still_taken(base: int, taken: bool) -> None:
    offer, body = offer_of([1, 2, 3], LAYOUT, base_version=base, task_version="v1")
    if taken:
        admit(offer, body, RULES, VERSION, None)
    else:
        with pytest.raises(ProtocolError, match=r"staleness 11, the plan's bound is 10"):
            admit(offer, body, RULES, VERSION, None)


def test_every_sentence_says_what_was_found_and_what_was_expected() -> None:
    sentences: dict[str, dict[str, Any]] = {
        "run ffffffff…, this is run 00000000…": {"run": "f" * 32},
        "task version 'v3', admitted: v1, v2": {"task_version": "v3"},
        "base version 21, the newest is 20": {"base_version": 21},
        "base version 14 is older than all weights that are held": {"base_version": 14},
    }
    for sentence, fields in sentences.items():
        with pytest.raises(ProtocolError, match=sentence):
            admitted([1, 2, 3], **fields)


def test_an_update_as_large_as_the_run_is_checked_to_its_last_number() -> None:
    layout = layout_of(200_000)
    values = np.zeros(200_000, np.float32)
    values[-1] = np.nan
    offer, body = offer_of(values, layout)
    with pytest.raises(ProtocolError, match="NaN"):
        admit(offer, body, Rules(RUN, layout), 0, None)


def test_nothing_is_remembered_by_looking() -> None:
    values = vector(1, 2, 3)
    offer, body = offer_of(values, LAYOUT, **GOOD)
    before = Offer.model_validate(offer.model_dump()), bytes(body)
    for _ in range(2):
        admit(offer, body, RULES, VERSION, HELD)
    assert (offer, bytes(body)) == before
