"""How many bytes an update will take, before there is one."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from fedmq.edge_client.feedback import encoded
from fedmq.schemas.codecs import codec_named
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.plan import Plan

__all__ = ["known_bytes", "update_bytes"]

_SAMPLE = 1 << 18  # floats that are encoded to find it: a gigabyte of noise would take seconds and its memory


def known_bytes(layout: Layout, plan: Plan) -> int | None:
    """How many bytes every update of this layout takes; None where that may depend on what is in it."""
    if plan.zstd or plan.codec == "top_k":
        return None
    whole, rest = divmod(layout.parameter_size, _SAMPLE)
    size = _size(plan.codec, rest)
    if whole:  # a multiple of every codec's blocks, which adds the same each time
        size += whole * (_size(plan.codec, _SAMPLE + rest) - size)
    return size + 4 * (layout.size - layout.parameter_size)


@lru_cache(maxsize=16)
def _size(codec: str, parameters: int) -> int:
    entries = [Entry("parameters", (parameters,))] if parameters else []
    layout = Layout.of([*entries, Entry("statistic", (1,), kind="statistic")])  # none has nothing in it
    return len(codec_named(codec).encode(np.zeros(layout.size, np.float32), layout)) - 4


def update_bytes(layout: Layout, plan: Plan) -> int:
    """About how many bytes an update of this layout takes, as the plan's codec writes noise.

    It takes fewer where zstd finds something, such as parameters that were not trained.
    """
    parameters, statistics = layout.parameter_size, layout.size - layout.parameter_size
    size = min(parameters, _SAMPLE)
    if size == 0:
        return 4 * statistics
    noise = np.random.default_rng(0).standard_normal(size, np.float32)
    sample = encoded(noise, Layout.of([Entry("parameters", (size,))]), "0" * 32, plan, None, seed=0)
    return math.ceil(len(sample.body) * parameters / size) + 4 * statistics
