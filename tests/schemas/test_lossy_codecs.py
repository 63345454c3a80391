"""What the codecs lose: as much as theory says, in no direction where they promise that, and never silently more."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.schemas.codecs import CODECS, Codec, Encoding, codec_named, compressed
from fedmq.schemas.codecs.rotation import flip_signs, hadamard
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout, Vector
from tests.generators import unhurried

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NUMBERS = 65_536
LOSSY = [codec for codec in CODECS.values() if codec.feedback]
every_lossy = pytest.mark.parametrize("codec", LOSSY, ids=lambda codec: codec.name)

# Sizes around every boundary: of a block of 256, of 4,096, of a chunk, and what is left in powers of two.
SIZES = [1, 2, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, 65_535, 65_536, 65_537, 70_000]


def plain(size: int) -> Layout:
    return Layout.of([Entry("w", (size,))])


def gaussian(size: int = NUMBERS, seed: int = 1) -> Vector:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def lost(codec: Codec, vector: Vector, encoding: Encoding) -> float:
    """Mean squared error, of the mean square."""
    arrived = codec.decoded(vector, plain(len(vector)), encoding)
    return float(np.square(arrived.astype(np.float64) - vector).sum() / np.square(vector.astype(np.float64)).sum())


@pytest.mark.parametrize(
    ("name", "encoding", "expected"),
    [
        ("int8", Encoding(), 5e-5),
        ("int8", Encoding(unbiased=True), 9.7e-5),
        ("eden4", Encoding(), 9.4e-3),
        ("eden4", Encoding(unbiased=True), 9.5e-3),
        ("eden2", Encoding(), 0.1175),
        ("eden2", Encoding(unbiased=True), 0.134),
        ("eden1", Encoding(), 0.36),
        ("eden1", Encoding(unbiased=True), 0.57),
        ("top_k", Encoding(top_k_fraction=0.1), 0.56),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e6])
def test_of_gaussian_numbers_as_much_is_lost_as_expected(
    name: str, encoding: Encoding, expected: float, scale: float
) -> None:
    assert lost(CODECS[name], gaussian() * np.float32(scale), encoding) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("name", "expected"), [("eden4", 9.4e-3), ("eden2", 0.1175), ("eden1", 0.36)])
def test_rotated_the_shape_of_the_numbers_does_not_matter(name: str, expected: float) -> None:
    heavy = np.random.default_rng(2).standard_t(3, NUMBERS).astype(np.float32)
    assert lost(CODECS[name], heavy, Encoding(seed=5)) == pytest.approx(expected, rel=0.1)
    spike = np.zeros(NUMBERS, np.float32)
    spike[12_345] = 3.0
    # One number alone becomes a block of equal sizes, which one level fits exactly.
    assert lost(CODECS["eden1"], spike, Encoding()) < 1e-9


@pytest.mark.parametrize("name", ["int8", "eden4", "eden2", "eden1"])
def test_unbiased_means_that_the_errors_cancel(name: str) -> None:
    # Over 400 seeds each number's mean is within 4 standard errors of it, in all but what chance allows.
    vector, layout, rounds = gaussian(512), plain(512), 400
    arrived = np.array(
        [CODECS[name].decoded(vector, layout, Encoding(unbiased=True, seed=seed * 7919)) for seed in range(rounds)],
        np.float64,
    )
    error = arrived.mean(axis=0) - vector
    standard = arrived.std(axis=0, ddof=1) / np.sqrt(rounds)
    assert np.abs(error.sum()) <= 4 * np.sqrt(np.square(standard).sum())
    along = (arrived @ vector.astype(np.float64)) / np.square(vector.astype(np.float64)).sum()
    assert abs(along.mean() - 1) <= 4 * along.std(ddof=1) / np.sqrt(rounds) + 1e-6
    # What is rounded up in one round of thousands may not have been yet: that is less than a step of int8's each.
    assert np.mean(np.abs(error) > 4 * standard + 2e-4) < 0.005


@every_lossy
@pytest.mark.parametrize("size", SIZES)
def test_any_size_arrives_within_bounds_the_same_for_the_same_seed(codec: Codec, size: int) -> None:
    vector, encoding = gaussian(size, seed=size), Encoding(seed=99, top_k_fraction=0.1)
    encoded = codec.encode(vector, plain(size), encoding)
    assert encoded == codec.encode(vector, plain(size), encoding)
    arrived = codec.decode(encoded, plain(size))
    assert arrived.shape == (size,)
    assert lost(codec, vector, encoding) <= 1


@every_lossy
def test_a_layout_of_statistics_alone_arrives_whole(codec: Codec) -> None:
    layout, vector = Layout.of([Entry("mean", (3,), kind="statistic")]), np.array([1, -1e30, 3e-30], np.float32)
    assert codec.decoded(vector, layout).tobytes() == vector.tobytes()


@every_lossy
def test_zeros_arrive_as_zeros_and_a_great_number_among_them_as_itself(codec: Codec) -> None:
    vector = np.zeros(5000, np.float32)
    assert not codec.decoded(vector, plain(5000)).any()
    vector[4321] = -1e12
    assert codec.decoded(vector, plain(5000))[4321] == pytest.approx(-1e12, rel=0.01)


@every_lossy
def test_the_smallest_floats_do_not_become_anything_else(codec: Codec) -> None:
    arrived = codec.decoded(np.full(300, 1e-42, np.float32), plain(300))
    assert np.abs(arrived).max() <= 2e-42


@every_lossy
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(codec: Codec, number: float) -> None:
    vector = np.zeros(300, np.float32)
    vector[7] = number
    with pytest.raises(ProtocolError, match="cannot carry") as refusal:
        codec.encode(vector, plain(300))
    assert refusal.value.reason == "not_finite"


@every_lossy
def test_the_largest_floats_stay_finite(codec: Codec) -> None:
    vector = np.full(5000, np.finfo(np.float32).max)
    vector[::2] *= -1
    assert np.isfinite(codec.decoded(vector, plain(5000))).all()


def test_a_number_of_int8_is_within_half_a_step_of_its_block() -> None:
    vector = gaussian(1000) * np.repeat(np.array([1e-6, 1, 1e6, 3e-3], np.float32), 250)
    error = np.abs(CODECS["int8"].decoded(vector, plain(1000)) - vector)
    for start in range(0, 1000, 256):
        block = slice(start, start + 256)
        assert error[block].max() <= np.abs(vector[block]).max() / 127 * 0.51


@unhurried
@given(st.integers(1, 400), st.floats(0.001, 1), st.integers(0, 2**32))
def test_top_k_keeps_the_largest_where_they_stand(size: int, fraction: float, seed: int) -> None:
    # Whole numbers of a few values, so that many are equal.
    vector = np.random.default_rng(seed).integers(-5, 6, size).astype(np.float32)
    arrived = CODECS["top_k"].decoded(vector, plain(size), Encoding(top_k_fraction=fraction))
    count = max(1, int(np.ceil(fraction * size)))
    kept = np.sort(np.abs(vector))[-count:]
    assert np.count_nonzero(arrived) <= count
    np.testing.assert_allclose(np.sort(np.abs(arrived))[-count:], kept, atol=0.03)
    there = arrived != 0
    np.testing.assert_allclose(arrived[there], vector[there], atol=0.03)


def test_the_rotation_in_squares_is_the_plain_one_bit_for_bit() -> None:
    rows = gaussian(3 * 4096).reshape(3, 4096)
    expected = rows.copy()
    step = 1
    while step < 4096:
        for start in range(0, 4096, 2 * step):
            a, b = expected[:, start : start + step].copy(), expected[:, start + step : start + 2 * step].copy()
            expected[:, start : start + step], expected[:, start + step : start + 2 * step] = a + b, a - b
        step *= 2
    turned = hadamard(rows.copy())
    assert turned.tobytes() == expected.tobytes()
    np.testing.assert_allclose(hadamard(turned.copy()) / 4096, rows, atol=1e-5)


def test_the_signs_follow_from_the_place_not_from_where_one_begins() -> None:
    whole, parts = np.ones(1000, np.float32), np.ones(1000, np.float32)
    flip_signs(whole, 2**64 - 1, 0)
    flip_signs(parts[:333], 2**64 - 1, 0)
    flip_signs(parts[333:], 2**64 - 1, 333)
    assert whole.tobytes() == parts.tobytes()
    assert abs(whole.sum()) < 4 * 1000**0.5


@pytest.mark.parametrize("name", ["float32-zstd", "float16-zstd"])
def test_what_is_compressed_block_by_block_is_one_frame_like_any_other(name: str) -> None:
    layout = plain(9_000_001)  # more than is compressed at once, and no whole number of blocks
    vector = np.arange(layout.size, dtype=np.float32) % 2048
    codec = codec_named(name)
    sent = codec.encode(vector, layout)
    assert zstd.get_frame_info(sent).decompressed_size == codec.element * layout.size
    shuffled = np.frombuffer(zstd.decompress(sent), np.uint8).reshape(codec.element, -1)
    assert shuffled.T.tobytes() == codec_named(name.removesuffix("-zstd")).encode(vector, layout)
    assert codec.decode(sent, layout).tobytes() == vector.tobytes()


def test_zstd_is_used_only_where_it_wins() -> None:
    noise = np.random.default_rng(3).integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    smooth, layout = np.repeat(gaussian(10), 500), plain(5000)
    for vector, name in ((np.nan_to_num(noise), "float32"), (smooth, "float32-zstd")):
        data = CODECS["float32"].encode(vector, layout)
        codec, sent = compressed(CODECS["float32"], data)
        assert codec.name == name
        assert len(sent) <= len(data)
        assert codec.decode(sent, layout).tobytes() == vector.tobytes()
    assert len(codec_named("float32-zstd").encode(gaussian(), plain(NUMBERS))) < 0.92 * 4 * NUMBERS  # by its planes


def test_the_largest_of_a_block_keeps_its_sign_whatever_is_drawn() -> None:
    vector = np.full(1 << 21, 127.0, np.float32)  # so many, because few draws round up to the next whole number
    decoded = CODECS["int8"].decoded(vector, plain(len(vector)), Encoding(unbiased=True, seed=1))
    assert np.array_equal(decoded, vector)
