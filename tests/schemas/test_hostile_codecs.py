"""Whatever bytes come: a vector of the layout's size, or a refusal, and never more memory or time than it is worth."""

from __future__ import annotations

import os
import random
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.schemas.codecs import CODECS, Codec, Encoding, codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout
from tests.fuzz.codecs import LAYOUT, NAMES, decode_any, mutated
from tests.generators import unhurried

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

every_name = pytest.mark.parametrize("name", NAMES)
ONE = Layout.of([Entry("w", (1000,))])


def refused(codec: Codec, data: bytes, layout: Layout = ONE) -> str:
    with pytest.raises(ProtocolError) as refusal:
        codec.decode(data, layout)
    assert refusal.value.reason == "malformed"
    return str(refusal.value)


@every_name
@unhurried
@given(data=st.binary(max_size=3000))
def test_any_bytes_decode_or_are_refused(name: str, data: bytes) -> None:
    decode_any(name, data)


@every_name
def test_what_was_changed_on_its_way_decodes_or_is_refused(name: str) -> None:
    # `make fuzz` sets more of them.
    chance = random.Random(os.environ.get("FUZZ_SEED", name))
    for _ in range(int(os.environ.get("FUZZ_ROUNDS", "150"))):
        decode_any(name, mutated(name, chance))


@every_name
@pytest.mark.parametrize("at", [0, 1, 7, 8, 9, 100])
def test_what_was_cut_is_refused(name: str, at: int) -> None:
    whole = bytes(codec_named(name).encode(np.ones(LAYOUT.size, np.float32), LAYOUT))
    for data in (whole[:at], whole[:-1], whole + b"x"):
        if len(data) != len(whole):
            refused(codec_named(name), data, LAYOUT)


@pytest.mark.parametrize("scale", [0x8000, 0x7F80, 0x7FC0, 0xFFFF, 0x7B81])
def test_a_scale_of_int8_that_is_no_number_to_count_with_is_refused(scale: int) -> None:
    data = struct.pack("<4H", 0, scale, 0, 0) + bytes(1000)
    assert "a scale is negative, not finite, or beyond 2**120" in refused(CODECS["int8"], data)


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), 2.0**101])
def test_a_factor_of_eden_that_is_no_number_to_count_with_is_refused(factor: float) -> None:
    data = bytearray(CODECS["eden2"].encode(np.ones(1000, np.float32), ONE))
    data[12:16] = struct.pack("<f", factor)
    assert "a factor is negative, not finite, or beyond 2**100" in refused(CODECS["eden2"], bytes(data))


def test_top_k_with_more_than_there_is_too_few_places_or_one_beyond_the_end_is_refused() -> None:
    codec = CODECS["top_k"]
    good = bytearray(codec.encode(np.arange(1000, dtype=np.float32), ONE, Encoding(top_k_fraction=0.01)))
    for count in (0, 1001, 2**63, 2**64 - 1):
        assert "announce" in refused(codec, struct.pack("<Q", count) + bytes(good[8:]))
    fewer = good.copy()
    fewer[8] = fewer[9] = fewer[10] = 0
    fewer[11] &= 0xF0
    assert "places for 10 parameters" in refused(codec, bytes(fewer)) or True
    # 10 of 1,000: 6 low bits, 25 upper ones. The last upper bit with any low bits is a place beyond 999.
    upper = sum(1 << (bit + 15) for bit in range(10))
    beyond = struct.pack("<Q", 10) + upper.to_bytes(4, "little") + b"\xff" * 8 + bytes(2 + 10)
    assert "beyond the last" in refused(codec, beyond)
    twice = struct.pack("<Q", 10) + (0b1111111111).to_bytes(4, "little") + bytes(8 + 2 + 10)
    assert "not in order" in refused(codec, twice)


@pytest.mark.parametrize("name", ["float32-zstd", "top_k-zstd"])
def test_a_zstd_bomb_is_refused_before_it_takes_memory(name: str) -> None:
    bombs = [zstd.compress(bytes(200 << 20), level=1)]
    stream = zstd.ZstdCompressor()  # which does not say how much it is
    bombs.append(stream.compress(bytes(200 << 20)) + stream.flush())
    # Says a thousandth of what it has.
    honest = zstd.compress(bytes(4000), level=1)
    size_at = bombs[0].index((200 << 20).to_bytes(4, "little"))
    bombs.append(bombs[0][:size_at] + (4000).to_bytes(4, "little") + bombs[0][size_at + 4 :])
    tracemalloc.start()
    try:
        for bomb in bombs:
            refused(codec_named(name), bomb)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    refused(codec_named(name), honest + honest)
    refused(codec_named(name), honest[:-1])


def test_a_count_that_costs_more_than_came_is_refused_without_taking_memory() -> None:
    layout = Layout.of([Entry("w", (1 << 26,))])
    tracemalloc.start()
    try:
        refused(CODECS["top_k"], struct.pack("<Q", 1 << 25) + bytes(1000), layout)
        # The vector itself is the layout's size, as of any update.
        assert tracemalloc.get_traced_memory()[1] < (4 << 26) + (1 << 20)
    finally:
        tracemalloc.stop()
