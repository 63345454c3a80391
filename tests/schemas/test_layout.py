"""A model's entries in one flat vector: statistics last, nothing copied, differences named."""

from __future__ import annotations

import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout
from tests.generators import layouts, unhurried

WEIGHT, BIAS = Entry("weight", (2, 3)), Entry("bias", (2,))
MEAN = Entry("mean", (2,), kind="statistic")


def test_statistics_are_moved_behind_the_parameters_and_all_else_keeps_its_order() -> None:
    layout = Layout.of([MEAN, WEIGHT, BIAS])
    assert [entry.name for entry in layout.entries] == ["weight", "bias", "mean"]
    assert (layout.parameter_size, layout.size) == (8, 10)


def test_a_scalar_takes_one_float_and_an_empty_entry_none() -> None:
    layout = Layout.of([Entry("scale", ()), Entry("nothing", (0, 5)), BIAS])
    assert layout.size == 1 + 0 + 2
    assert layout.views(np.zeros(3, np.float32))["nothing"].shape == (0, 5)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ((BIAS, BIAS), "one entry twice"),
        ((MEAN, BIAS), "a parameter behind a statistic"),
        ((), "none, or too many"),
        ((Entry("empty", (0,)),), "none, or too many"),
        ((Entry("huge", (1 << 20, 1 << 20)),), "none, or too many"),
    ],
)
def test_entries_that_cannot_be_one_vector_are_refused(entries: tuple[Entry, ...], says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as refusal:
        Layout(entries)
    assert refusal.value.reason == "layout"


def test_views_have_each_entrys_shape_and_share_the_vectors_memory() -> None:
    vector = np.arange(10, dtype=np.float32)
    views = Layout.of([WEIGHT, BIAS, MEAN]).views(vector)
    assert views["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert views["bias"].tolist() == [6, 7]
    views["mean"][1] = 42
    assert vector[9] == 42


def test_flatten_puts_arrays_in_layout_order_whatever_order_they_come_in() -> None:
    layout = Layout.of([WEIGHT, BIAS])
    arrays = {"bias": np.array([7.0, 8.0]), "weight": np.arange(6).reshape(2, 3)}
    vector = layout.flatten(arrays)
    assert vector.dtype == np.float32
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "entry 'weight': missing"),
        ({"weight": np.zeros((2, 3))}, "entry 'bias': missing"),
        ({"weight": np.zeros((3, 2)), "bias": np.zeros(2)}, r"entry 'weight': shape \[3, 2\], expected \[2, 3\]"),
        ({"weight": np.zeros((2, 3)), "bias": np.zeros(2), "more": np.zeros(1)}, "entry 'more': not in the layout"),
    ],
)
def test_flatten_names_the_first_entry_that_does_not_fit(arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as refusal:
        Layout.of([WEIGHT, BIAS]).flatten(arrays)
    assert refusal.value.reason == "layout"


@unhurried
@given(layouts)
def test_flatten_undoes_views(layout: Layout) -> None:
    vector = np.arange(layout.size, dtype=np.float32)
    assert np.array_equal(layout.flatten(layout.views(vector)), vector)


def test_the_first_difference_is_a_sentence_from_either_side() -> None:
    short, long = Layout.of([WEIGHT]), Layout.of([WEIGHT, BIAS])
    other = Layout.of([WEIGHT, Entry("bias", (3,), "float16")])
    assert short.difference(Layout.of([WEIGHT])) is None
    assert short.difference(long) == "entry 1 'bias' is there and not here"
    assert long.difference(short) == "entry 1 'bias' is here and not there"
    assert long.difference(other) == "entry 1: parameter 'bias' float32[2] here, parameter 'bias' float16[3] there"
    assert other.difference(long) == "entry 1: parameter 'bias' float16[3] here, parameter 'bias' float32[2] there"


@unhurried
@given(layouts, layouts)
def test_there_is_a_difference_exactly_where_digests_differ(ours: Layout, theirs: Layout) -> None:
    assert (ours.difference(theirs) is None) == (ours.digest == theirs.digest) == (ours == theirs)


@unhurried
@given(layouts)
def test_a_layout_decodes_from_what_it_encodes(layout: Layout) -> None:
    assert Layout.decode(layout.encoded) == layout
    assert Layout.decode(memoryview(layout.encoded)).digest == layout.digest


@unhurried
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_layout_or_refused(data: bytes) -> None:
    _refused_or_read(data)


@unhurried
@given(layouts, st.data())
def test_a_damaged_layout_is_another_layout_or_refused(layout: Layout, data: st.DataObject) -> None:
    damaged = bytearray(layout.encoded)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    _refused_or_read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 1 << 63) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_any_other_msgpack_value_is_refused(value: object) -> None:
    _refused_or_read(msgpack.packb(value))
    _refused_or_read(msgpack.packb([["w", value, "float32", "parameter"]]))


@pytest.mark.parametrize(
    "row",
    [
        ["", [1], "float32", "parameter"],
        ["n" * 513, [1], "float32", "parameter"],
        ["w", [-1], "float32", "parameter"],
        ["w", [1.0], "float32", "parameter"],
        ["w", [True], "float32", "parameter"],
        ["w", [1] * 17, "float32", "parameter"],
        ["w", [1], "int64", "parameter"],
        ["w", [1], "float32", "gradient"],
        ["w", [1], "float32"],
        [b"w", [1], "float32", "parameter"],
    ],
)
def test_a_row_out_of_bounds_is_malformed(row: list[object]) -> None:
    with pytest.raises(ProtocolError, match="a layout that cannot be read") as refusal:
        Layout.decode(msgpack.packb([row]))
    assert refusal.value.reason == "malformed"


def test_bytes_behind_the_last_entry_are_refused() -> None:
    with pytest.raises(ProtocolError, match="bytes behind its last entry"):
        Layout.decode(Layout.of([BIAS]).encoded + b"\x00")


def test_announced_array_lengths_take_no_memory_before_their_items_are_there() -> None:
    hostile = b"\xdd\x00\x01\x86\xa0" * 1000  # an array of 100,000, in an array of 100,000, in …
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            Layout.decode(hostile)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20  # 80 MB if they were believed


def _refused_or_read(data: bytes) -> None:
    try:
        assert Layout.decode(data).size > 0
    except ProtocolError as error:
        assert error.reason in ("malformed", "layout")  # noqa: PT017 (either is right, another exception is not)
