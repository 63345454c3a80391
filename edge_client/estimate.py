"""How many bytes an update will take, before there is one."""

from __future__ import annotations

import math

import numpy as np

from fedmq.edge_client.feedback import encoded
from fedmq.schemas.layout import Entry, Layout
from fedmq.schemas.plan import Plan

__all__ = ["update_bytes"]

_SAMPLE = 1 << 18  # floats that are encoded to find it: a gigabyte of noise would take seconds and its memory


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
