"""The plan: what a device is told, refused as a whole if one word of it is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedmq.schemas.plan import Plan
from tests.generators import plans, unhurried


def test_a_key_that_a_device_does_not_know_is_refused_not_ignored() -> None:
    with pytest.raises(ValidationError, match="gradient_clipping"):
        Plan.model_validate({"gradient_clipping": 1.0})


@pytest.mark.parametrize(
    ("setting", "lowest", "highest"),
    [
        ("local_epochs", 1, 1000),
        ("local_steps", 1, 1_000_000),
        ("batch_size", 1, 65_536),
        ("weight_decay", 0, 10),
        ("proximal", 0, 100),
        ("max_staleness", 0, 1_000_000),
        ("retrain_after", 0.01, 86_400),
    ],
)
def test_both_bounds_of_a_setting_are_in_and_what_lies_beyond_is_out(setting: str, lowest: Any, highest: Any) -> None:
    for value in (lowest, highest):
        assert getattr(Plan.model_validate({setting: value}), setting) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(ValidationError, match=setting):
            Plan.model_validate({setting: value})


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": 101},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"optimizer": "lbfgs"},
        {"codec": "pickle"},
        {"local_parameters": [""]},
        {"local_parameters": ["p"] * 65},
    ],
)
def test_a_value_that_cannot_work_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate(given)


def test_momentum_is_a_setting_of_sgd_only() -> None:
    assert Plan(momentum=0.9).optimizer == "sgd"
    with pytest.raises(ValidationError, match="momentum is a setting of optimizer = 'sgd', found optimizer = 'adam'"):
        Plan(momentum=0.9, optimizer="adam")


def test_a_plan_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Plan().local_epochs = 2  # type: ignore[misc]


@unhurried
@given(plans)
def test_a_plan_survives_being_written_as_data(plan: Plan) -> None:
    assert Plan.model_validate(plan.model_dump(exclude_none=True)) == plan


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Plan.model_fields.items() if not field.description and name != "optimizer"] == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@unhurried
@given(plans, st.sampled_from([*Plan.model_fields, "unheard_of"]), anything)
def test_whatever_stands_in_a_field_the_plan_is_one_or_refused(plan: Plan, name: str, value: object) -> None:
    try:
        read = Plan.model_validate({**plan.model_dump(), name: value})
    except ValidationError:
        return
    assert Plan.model_validate(read.model_dump()) == read
