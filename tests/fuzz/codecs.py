"""What fuzzing does to the codecs: any bytes, and bytes that were almost right.

`python -m tests.fuzz.codecs --rounds 100000` goes on for longer, with a seed that it prints.
"""

from __future__ import annotations

import argparse
import random
import sys

import numpy as np

from fedmq.schemas.codecs import CODECS, Encoding, codec_named
from fedmq.schemas.errors import ProtocolError
from fedmq.schemas.layout import Entry, Layout

__all__ = ["LAYOUT", "NAMES", "decode_any", "mutated"]

LAYOUT = Layout.of([Entry("w", (700,)), Entry("mean", (3,), kind="statistic")])
NAMES = [name for codec in CODECS for name in (codec, f"{codec}-zstd")]


def decode_any(name: str, data: bytes) -> None:
    """Decode, which gives a vector of the right shape or raises ProtocolError (`malformed`)."""
    try:
        vector = codec_named(name).decode(data, LAYOUT)
    except ProtocolError as refusal:
        if refusal.reason != "malformed" or len(str(refusal)) > 400:
            raise AssertionError(str(refusal)) from refusal
        return
    assert vector.shape == (LAYOUT.size,)
    assert vector.dtype == np.float32


def mutated(name: str, chance: random.Random) -> bytes:
    """An encoded vector in which bytes were changed, cut, doubled or put in."""
    numbers = np.random.default_rng(chance.getrandbits(32)).standard_normal(LAYOUT.size).astype(np.float32)
    encoding = Encoding(chance.random() < 0.5, chance.uniform(0.001, 1.0), chance.getrandbits(64))
    data = bytearray(codec_named(name).encode(numbers, LAYOUT, encoding))
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(min(len(data), 40) if chance.random() < 0.5 else len(data)) if data else 0
        match chance.randrange(4):
            case 0 if data:
                data[place] = chance.choice((0, 0xFF, 0x80, data[place] ^ 1 << chance.randrange(8)))
            case 1:
                del data[place : place + chance.randint(1, 9)]
            case 2:
                data[place:place] = chance.randbytes(chance.randint(1, 9))
            case _:
                data[place : place + 8] = chance.choice((bytes(8), b"\xff" * 8, chance.randbytes(8)))
    return bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100_000, help="for each codec (default: 100000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    for name in NAMES:
        chance = random.Random(f"{options.seed}/{name}")
        for done in range(options.rounds):
            data = mutated(name, chance) if done % 4 else chance.randbytes(chance.randrange(3000))
            decode_any(name, data)
            if done % 1000 == 0 and sys.stderr.isatty():
                print(f"\r{name}: {done} of {options.rounds}", end="", file=sys.stderr)
        print(f"{name}: {options.rounds} inputs, each decoded or refused")


if __name__ == "__main__":
    main()
