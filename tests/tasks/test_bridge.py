from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fedmq.schemas.errors import ConfigError
from fedmq.schemas.layout import Entry
from fedmq.tasks.bridge import layout_of, load_local, load_vector, local_state, to_vector


class Tied(nn.Module):
    """An output layer that is the embedding again."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


class WithExtraState(nn.Module):
    """What a module adds by get_extra_state is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: object) -> None: ...


class WithBuffer(nn.Module):
    """A linear layer and a buffer of this type."""

    def __init__(self, dtype: torch.dtype, persistent: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("phases", torch.ones(3, dtype=dtype), persistent=persistent)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 2),
    "conv": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False)),
    "channels last": lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    "bfloat16": lambda: nn.Linear(3, 2).to(torch.bfloat16),
    "float64": lambda: nn.Linear(3, 2).double(),
    "frozen": lambda: nn.Linear(3, 2).requires_grad_(False),
    "scalar": lambda: nn.ParameterDict({"scale": nn.Parameter(torch.tensor(2.0))}),
    "tied": Tied,
    "extra state": WithExtraState,
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_a_models_vector_written_into_another_makes_it_the_same_model(build: Callable[[], nn.Module]) -> None:
    one, other = build(), build()
    layout = layout_of(one)
    assert layout == layout_of(other)
    vector = to_vector(one, layout)
    assert vector.shape == (layout.size,)
    assert vector.dtype == np.float32
    vector.setflags(write=False)  # as it is when it was received
    load_vector(other, layout, vector)
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, theirs), name
    np.testing.assert_array_equal(to_vector(other, layout), vector)


def test_names_shapes_types_and_kinds_are_the_models_with_statistics_last() -> None:
    layout = layout_of(MODELS["batch norm"]())
    assert layout.entries == (
        Entry("0.weight", (4, 3)),
        Entry("0.bias", (4,)),
        Entry("1.weight", (4,)),
        Entry("1.bias", (4,)),
        Entry("2.weight", (2, 4)),
        Entry("2.bias", (2,)),
        Entry("1.running_mean", (4,), kind="statistic"),
        Entry("1.running_var", (4,), kind="statistic"),
    )
    assert layout_of(MODELS["bfloat16"]()).entries[0].dtype == "bfloat16"
    assert layout_of(MODELS["float64"]()).entries[0].dtype == "float64"


def test_tied_weights_stay_tied_and_a_vector_that_moves_both_moves_them() -> None:
    model = Tied()
    layout = layout_of(model)
    assert [(entry.name, entry.kind) for entry in layout.entries] == [
        ("embedding.weight", "parameter"),
        ("output.weight", "parameter"),
    ]
    load_vector(model, layout, to_vector(model, layout) + 1)
    assert model.output.weight is model.embedding.weight
    views = layout.views(to_vector(model, layout))
    np.testing.assert_array_equal(views["embedding.weight"], views["output.weight"])


def test_a_vector_is_a_copy_of_the_model_and_the_model_of_the_vector() -> None:
    model = nn.Linear(3, 2)
    layout = layout_of(model)
    vector = to_vector(model, layout)
    with torch.no_grad():
        model.weight.zero_()
    assert vector[: model.weight.numel()].any()
    load_vector(model, layout, vector)
    vector[:] = 7
    assert not (model.weight == 7).any()


def test_local_parameters_are_not_in_the_layout_and_are_kept_with_integer_buffers() -> None:
    build = MODELS["batch norm"]
    model, other = build(), build()
    layout = layout_of(model, ("2.*",))
    assert "2.weight" not in {entry.name for entry in layout.entries}
    state = local_state(model, layout)
    assert set(state) == {"2.weight", "2.bias", "1.num_batches_tracked"}
    before = to_vector(other, layout)
    load_local(other, state)
    assert torch.equal(other.state_dict()["2.weight"], model.state_dict()["2.weight"])
    np.testing.assert_array_equal(to_vector(other, layout), before)


def test_kept_state_is_a_copy() -> None:
    model = nn.Linear(3, 2)
    state = local_state(model, layout_of(model, ("bias",)))
    with torch.no_grad():
        model.bias.zero_()
    assert state["bias"].any()


def test_kept_state_that_the_model_no_longer_has_or_has_in_another_shape_is_left_out() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    load_local(model, {"gone": np.ones(3), "weight": np.ones((7, 7)), "bias": np.ones(2)})
    assert torch.equal(model.weight, before)
    assert model.bias.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("build", "patterns", "sentence"),
    [
        (MODELS["linear"], ("head.*",), r"'head\.\*' fits no entry of the model; entries: weight, bias"),
        (MODELS["linear"], ("weight", "bais"), "'bais' fits no entry"),
        (MODELS["linear"], ("*",), "no parameters to share"),
        (nn.ReLU, (), "no parameters to share"),
        (
            lambda: nn.ParameterDict({"phase": nn.Parameter(torch.ones(2, dtype=torch.complex64))}),
            (),
            "'phase' is complex64, expected float32",
        ),
        (lambda: WithBuffer(torch.complex128), (), "'phases' is complex128, which a device cannot keep; .*persistent="),
        (lambda: WithBuffer(torch.float8_e4m3fn), ("phases",), "'phases' is float8_e4m3fn, which a device cannot keep"),
        (lambda: nn.Linear(2, 2).to(torch.float8_e4m3fn), (), "'weight' is float8_e4m3fn, expected float32"),
    ],
)
def test_what_cannot_be_shared_is_named(
    build: Callable[[], nn.Module], patterns: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        layout_of(build(), patterns)


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bfloat16, torch.float64],
)
def test_a_buffer_that_stays_on_the_device_may_be_of_any_type_that_can_be_kept(dtype: torch.dtype) -> None:
    patterns = ("phases",) if dtype.is_floating_point else ()
    assert {entry.name for entry in layout_of(WithBuffer(dtype), patterns).entries} == {"linear.weight", "linear.bias"}


def test_a_buffer_that_is_not_in_the_state_may_be_of_any_type() -> None:
    assert len(layout_of(WithBuffer(torch.complex128, persistent=False)).entries) == 2
