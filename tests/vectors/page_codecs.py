"""The codecs as `docs/protocol.md` has them, without a line of FedMQ: a float32 is a Python float that is rounded."""

from __future__ import annotations

import struct
import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVELS = {
    1: [0.797884561],
    2: [0.452780035, 1.510417608],
    4: [0.12839503, 0.388048299, 0.656759119, 0.942340456, 1.256231197, 1.618046386, 2.069017227, 2.732589571],
}


def rounded(number: float) -> float:
    """To the nearest float32."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def halved(bits: int) -> float:
    """The float32 whose upper half this is."""
    return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])


def decode(codec: str, body: bytes, parameters: int, statistics: int) -> list[float]:
    """The vector in these bytes."""
    if codec.endswith("-zstd"):
        codec = codec.removesuffix("-zstd")
        body = joined(zstd.decompress(body), {"float32": 4, "float16": 2, "bfloat16": 2}.get(codec, 1))
    split = len(body) - 4 * statistics
    tail = list(struct.unpack(f"<{statistics}f", body[split:]))
    if codec.startswith("eden"):
        return eden(body[:split], int(codec[4:]), parameters) + tail
    return {"float32": float32, "float16": float16, "bfloat16": bfloat16, "int8": int8, "top_k": top_k}[codec](
        body[:split], parameters
    ) + tail


def joined(data: bytes, element: int) -> bytes:
    """First all first bytes, then all second ones, … and what is left, put together again."""
    whole = len(data) // element
    planes = [data[place * whole : (place + 1) * whole] for place in range(element)]
    return bytes(byte for number in zip(*planes, strict=True) for byte in number) + data[whole * element :]


def float32(data: bytes, count: int) -> list[float]:
    return list(struct.unpack(f"<{count}f", data))


def float16(data: bytes, count: int) -> list[float]:
    return list(struct.unpack(f"<{count}e", data))


def bfloat16(data: bytes, count: int) -> list[float]:
    return [halved(bits) for bits in struct.unpack(f"<{count}H", data)]


def int8(data: bytes, count: int) -> list[float]:
    blocks = (count + 255) // 256
    scales = [halved(bits) for bits in struct.unpack(f"<{blocks}H", data[: 2 * blocks])]
    codes = struct.unpack(f"<{count}b", data[2 * blocks :])
    return [rounded(code * scales[place // 256]) for place, code in enumerate(codes)]


def eden(data: bytes, bits: int, count: int) -> list[float]:
    sizes = [4096] * (count // 4096) + [size for size in (1 << n for n in range(11, -1, -1)) if count % 4096 & size]
    seed = int.from_bytes(data[:8], "little")
    factors = struct.unpack(f"<{len(sizes)}f", data[8 : 8 + 4 * len(sizes)])
    codes = int.from_bytes(data[8 + 4 * len(sizes) :], "little")
    upper = [rounded(level) for level in _LEVELS[bits]]
    levels = [-level for level in reversed(upper)] + upper
    values: list[float] = []
    for size, factor in zip(sizes, factors, strict=True):
        row = []
        for place in range(len(values), len(values) + size):
            row.append(rounded(levels[codes >> (place * bits) & (2**bits - 1)] * factor))
        step = 1
        while step < size:
            for one in range(size):
                if not one & step:
                    a, b = row[one], row[one + step]
                    row[one], row[one + step] = rounded(a + b), rounded(a - b)
            step *= 2
        values += [-x if sign(seed, len(values) + place) else x for place, x in enumerate(row)]
    return values


def sign(seed: int, place: int) -> int:
    """Whether the number at this place changes its sign: a bit of splitmix64."""
    mask = 2**64 - 1
    word = (seed + (place // 64 + 1) * 0x9E3779B97F4A7C15) & mask
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & mask
    word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
    return (word ^ word >> 31) >> (place % 64) & 1


def top_k(data: bytes, count: int) -> list[float]:
    kept = int.from_bytes(data[:8], "little")
    low = max(0, (count // kept).bit_length() - 1)
    upper_bits = kept + (count >> low)
    lower_at = 8 + (upper_bits + 7) // 8
    values_at = lower_at + (kept * low + 7) // 8
    upper, lower = int.from_bytes(data[8:lower_at], "little"), int.from_bytes(data[lower_at:values_at], "little")
    ones = [bit for bit in range(upper_bits) if upper >> bit & 1]
    places = [(bit - n) << low | lower >> (n * low) & ((1 << low) - 1) for n, bit in enumerate(ones)]
    values = [0.0] * count
    for place, value in zip(places, int8(data[values_at:], kept), strict=True):
        values[place] = value
    return values
