"""One contract over every codec: what arrives is what was sent, as closely as the codec says, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fedmq.schemas.codecs import CODECS, Codec, codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout, Vector
from tests.generators import layouts, unhurried

# Of a parameter that the codec can hold: the greatest error, relative and absolute.
ERRORS = {"float32": (0.0, 0.0), "float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
LARGEST = {"float32": float(np.finfo(np.float32).max), "float16": 65_504.0, "bfloat16": 255 * 2.0**120}

ALL = {name: codec_named(name) for codec in CODECS for name in (codec, f"{codec}-zstd")}
every_codec = pytest.mark.parametrize("codec", ALL.values(), ids=ALL)
narrowing = pytest.mark.parametrize("codec", [CODECS[name] for name in ERRORS], ids=ERRORS)


@st.composite
def vectors(draw: st.DrawFn) -> tuple[Layout, Vector]:
    layout = draw(layouts)
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    return layout, draw(st_numpy.arrays(np.float32, layout.size, elements=floats))


def test_every_codec_has_the_name_that_it_is_known_by() -> None:
    assert all(codec.name == name for name, codec in ALL.items())
    assert {name for name, codec in CODECS.items() if codec.feedback} == {"int8", "eden4", "eden2", "eden1", "top_k"}


@narrowing
@unhurried
@given(drawn=vectors())
def test_parameters_arrive_within_the_codecs_error(codec: Codec, drawn: tuple[Layout, Vector]) -> None:
    layout, vector = drawn
    arrived = codec.decode(codec.encode(vector, layout), layout)
    assert arrived.shape == vector.shape
    assert arrived.dtype == np.float32
    relative, absolute = ERRORS[codec.name]
    sent = np.clip(vector[: layout.parameter_size].astype(np.float64), -LARGEST[codec.name], LARGEST[codec.name])
    error = np.abs(arrived[: layout.parameter_size] - sent)
    assert np.all(error <= np.maximum(relative * np.abs(sent), absolute))


@every_codec
@unhurried
@given(drawn=vectors())
def test_statistics_arrive_bit_for_bit(codec: Codec, drawn: tuple[Layout, Vector]) -> None:
    layout, vector = drawn
    arrived = codec.decode(codec.encode(vector, layout), layout)
    assert arrived[layout.parameter_size :].tobytes() == vector[layout.parameter_size :].tobytes()


@every_codec
@unhurried
@given(drawn=vectors())
def test_decoded_is_what_the_other_side_holds_and_sending_it_again_changes_nothing(
    codec: Codec, drawn: tuple[Layout, Vector]
) -> None:
    layout, vector = drawn
    once = codec.decoded(vector, layout)
    assert once.tobytes() == codec.decode(codec.encode(vector, layout), layout).tobytes()
    if codec.name in ERRORS:
        assert codec.decoded(once, layout).tobytes() == once.tobytes()


@narrowing
@unhurried
@given(layout=layouts, size=st.integers(0, 400))
def test_bytes_of_another_length_are_malformed(codec: Codec, layout: Layout, size: int) -> None:
    expected = len(codec.encode(np.zeros(layout.size, np.float32), layout))
    if size == expected:
        assert codec.decode(bytes(size), layout).tolist() == [0] * layout.size
        return
    with pytest.raises(ProtocolError, match=rf"{codec.name}: \d+ bytes(, expected \d+| do not hold)") as refusal:
        codec.decode(bytes(size), layout)
    assert refusal.value.reason == "malformed"


@every_codec
def test_a_body_decodes_wherever_it_lies_in_a_message(codec: Codec) -> None:
    layout = Layout.of([Entry("w", (3,)), Entry("v", (1,), kind="statistic")])
    vector = np.array([1, -2, 0.5, 3], np.float32)
    encoded = codec.encode(vector, layout)
    payload = b"odd" + encoded
    assert codec.decode(memoryview(payload)[3:], layout).tobytes() == codec.decode(encoded, layout).tobytes()


@every_codec
def test_the_pieces_of_a_vector_follow_each_other_and_are_the_whole(codec: Codec) -> None:
    for size in (3, 70_000, 300_001):
        layout = Layout.of([Entry("w", (size,)), Entry("v", (5,), kind="statistic")])
        vector = np.random.default_rng(size).standard_normal(layout.size, np.float32)
        encoded = codec.encode(vector, layout)
        whole, end = codec.decode(encoded, layout), 0
        for start, piece in codec.pieces(encoded, layout):
            assert start == end
            end += len(piece)
            assert piece.tobytes() == whole[start:end].tobytes()
        assert end == layout.size


@narrowing
def test_nan_and_infinity_are_not_made_into_numbers_that_look_fine(codec: Codec) -> None:
    layout = Layout.of([Entry("w", (1,)), Entry("v", (2,), kind="statistic")])
    arrived = codec.decoded(np.array([np.nan, np.nan, np.inf], np.float32), layout)
    assert np.isnan(arrived[:2]).all()
    assert np.isinf(arrived[2])


def test_float16_takes_two_bytes_for_a_parameter_and_four_for_a_statistic() -> None:
    layout = Layout.of([Entry("w", (3,)), Entry("v", (2,), kind="statistic")])
    assert len(CODECS["float16"].encode(np.zeros(5, np.float32), layout)) == 3 * 2 + 2 * 4


def test_float16_saturates_parameters_and_leaves_a_large_running_variance_alone() -> None:
    layout = Layout.of([Entry("w", (2,)), Entry("variance", (1,), kind="statistic")])
    arrived = CODECS["float16"].decoded(np.array([1e6, -1e6, 1e6], np.float32), layout)
    assert arrived.tolist() == [65_504, -65_504, 1e6]


def test_float32_decodes_without_copying() -> None:
    layout = Layout.of([Entry("w", (2,))])
    data = np.array([1, 2], "<f4").tobytes()
    assert np.shares_memory(CODECS["float32"].decode(data, layout), np.frombuffer(data, np.uint8))


def test_an_unknown_codec_is_malformed_and_the_known_ones_are_named() -> None:
    with pytest.raises(ProtocolError, match=r"codec 'pickle': expected one of float32, .*, top_k") as refusal:
        codec_named("pickle")
    assert refusal.value.reason == "malformed"
    assert codec_named("float16") is CODECS["float16"]
    with pytest.raises(ProtocolError):
        codec_named("int8-zstd-zstd")
