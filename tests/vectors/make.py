"""Writes the protocol's test vectors anew: `python -m tests.vectors.make`. A change in them is a change on the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fedmq.schemas.codecs import CODECS, Encoding
from fedmq.schemas.layout import Entry, Layout
from tests.vectors.headers import refused, taken
from tests.vectors.session import SMALL, session
from tests.vectors.signatures import signatures

FOLDER = Path(__file__).parent

LAYOUTS = {
    "small": SMALL,
    "every dtype, a scalar, an empty entry, a name beyond ASCII": Layout.of(
        [
            Entry("temperature", (), "float64"),
            Entry("größe.weight", (3, 1, 2), "float16"),
            Entry("nothing", (0, 4), "bfloat16"),
            Entry("mean", (2,), "float32", "statistic"),
        ]
    ),
    "sizes of one, two, three and five bytes": Layout.of(
        [Entry("a", (127,)), Entry("b", (128,)), Entry("c", (256,)), Entry("d", (65_536,)), Entry("e" * 32, (1,))]
    ),
}

_TENTH = float(np.float32(0.1))
_LARGEST = float(np.finfo(np.float32).max)
# In the layout `small`: eight parameters, two statistics.
CODEC_INPUTS = {
    "plain": [0.5, -0.25, 1.0, -0.0, 2.0, -1.5, 0.125, 3.0, 1.0, 0.75],
    "rounding: ties to even, the smallest float16 and below": [
        *(1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-24, 2.0**-25, 3 * 2.0**-25, _TENTH, 65_519.0, -65_520.0),
        *(_TENTH, 2.0**-149),
    ],
    "saturation: parameters stop at 65504, statistics do not": [
        *(1e6, -1e6, 65_504.0, -65_504.0, _LARGEST, -_LARGEST, 0.0, 1.0),
        *(1e6, _LARGEST),
    ],
}

# More than one block of 256, and what is left beyond it.
BLOCKS = Layout.of([Entry("w", (300,)), Entry("mean", (1,), kind="statistic")])
BLOCKS_INPUT = [(37 * place % 101 - 50) / 64 * 2.0 ** (-place // 50) for place in range(301)]
ENCODING = Encoding(top_k_fraction=0.25, seed=0x0123456789ABCDEF)


def vectors() -> dict[str, Any]:
    """Every file's content, by name."""
    return {
        "messages.json": session(),
        "signatures.json": signatures(_one_of_each_kind()),
        "headers.json": {"taken": taken(), "refused": refused()},
        "layouts.json": _layouts(),
        "codecs.json": _codecs(),
    }


def rendered(content: Any) -> str:
    """As it stands in the file."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _one_of_each_kind() -> list[dict[str, Any]]:
    messages = session()
    return list({message["message"]["kind"]: message for message in reversed(messages)}.values())


def _layouts() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "entries": [[entry.name, list(entry.shape), entry.dtype, entry.kind] for entry in layout.entries],
            "size": layout.size,
            "parameter_size": layout.parameter_size,
            "canonical": layout.encoded.hex(),
            "digest": layout.digest,
        }
        for name, layout in LAYOUTS.items()
    ]


def _codecs() -> list[dict[str, Any]]:
    rows = [_codec(name, codec, SMALL, values) for name, values in CODEC_INPUTS.items() for codec in CODECS]
    rows += [_codec("blocks", codec, BLOCKS, BLOCKS_INPUT) for codec in CODECS]
    return rows


def _codec(name: str, codec: str, layout: Layout, values: list[float]) -> dict[str, Any]:
    vector = np.array(values, np.float32)
    encoded = CODECS[codec].encode(vector, layout, ENCODING)
    return {
        "name": name,
        "codec": codec,
        "parameter_size": layout.parameter_size,
        "vector": vector.tolist(),
        "encoded": encoded.hex(),
        "decoded": CODECS[codec].decode(encoded, layout).tolist(),
    }


if __name__ == "__main__":
    for file, content in vectors().items():
        (FOLDER / file).write_text(rendered(content), encoding="utf-8")
