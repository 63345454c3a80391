"""Multi-Krum: the mean of the updates that lie closest to their neighbours. Blanchard et al. 2017, NeurIPS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedmq.aggregator.staleness import Staleness
from fedmq.aggregator.strategies.rule import HOSTILE, Buffered, blocks, middle, most_hostile, rule_strategy
from fedmq.aggregator.strategies.strategy import Strategy, require
from fedmq.schemas.layout import Vector

__all__ = ["multi_krum"]

_CLOSE = 1e-6  # times the sum of both lengths' squares: a distance below that is taken from the differences
# A product of tiles of this size OpenBLAS gives to one thread. Larger ones it divides among as many as there are
# processors, which wait for each other: on two busy ones that took ten times as long.
_TILE_ROWS, _TILE_COLUMNS = 32, 256


def multi_krum(
    *,
    hostile: float = HOSTILE,
    staleness: Staleness | None = None,
    buffer_size: int | None = None,
    server_learning_rate: float = 0.7,
    reference_staleness: int = 4,
    statistics_rate: float = 0.5,
    momentum: float = 0.0,
    flush_timer: bool = True,
    one_per_client: bool = False,
    clip_norm: float | None = None,
    clip_medians: float | None = None,
) -> Strategy:
    """x += eta (n/K) times the mean of the m updates with the smallest scores; of equal ones the first.

    An update's score is the sum of its squared distances to its n - f - 2 nearest neighbours, over parameters.
    f = ceil(hostile n), but no more than (n - 3) // 2, since the rule needs n >= 2f + 3, and at least 1: so it needs
    5 updates. m = n - 2f, at least 3: fewer than those that are not hostile. Statistics are no part of the
    distances, so whoever is chosen may have sent anything: each is the median of all n.

    Args:
        hostile: the share of a buffer's updates that may be hostile, more than 0 and less than 0.5.
        staleness: s(tau); polynomial with a = 0.5 if None.
        buffer_size: K, at least 5; None follows the number of clients at work.
        server_learning_rate: eta.
        reference_staleness: up to which a delta counts whole, in versions.
        statistics_rate: how far statistics go towards the rule's, in [0, 1].
        momentum: of the server.
        flush_timer: do not wait for K longer than twice the usual; but for the 5 that the rule needs.
        one_per_client: a buffer takes one update of each client; its next one waits.
        clip_norm: no delta counts as longer than this; None without such a bound.
        clip_medians: the same bound as a multiple of the clients' median norm.

    Raises:
        ConfigError: a number out of its range.

    """
    require("multi_krum", "hostile", hostile, 0 < hostile < 0.5, "more than 0, less than 0.5")
    of = Buffered(
        staleness,
        buffer_size,
        server_learning_rate,
        reference_staleness,
        statistics_rate,
        momentum,
        flush_timer,
        one_per_client,
        clip_norm,
        clip_medians,
    )

    def combine(rows: Sequence[Vector], weights: Sequence[float], parameter_size: int) -> Vector:
        count = len(rows)
        f = min(most_hostile(hostile, count), (count - 3) // 2)
        squares = _squared_distances(rows, weights, parameter_size)
        nearest = np.sort(squares, axis=1)[:, 1 : count - f - 1]  # the first is its distance to itself
        chosen = sorted(np.argsort(nearest.sum(axis=1), kind="stable")[: count - 2 * f])
        combined = np.empty(len(rows[0]), np.float32)
        for place, block in blocks(rows, weights, parameter_size):
            if place.start < parameter_size:
                combined[place] = block[chosen].mean(axis=0, dtype=np.float32)
            else:  # no distance says anything of these
                combined[place] = middle(block)
        return combined

    return rule_strategy("multi_krum", 5, combine, of)


def _squared_distances(
    rows: Sequence[Vector], weights: Sequence[float], parameter_size: int
) -> npt.NDArray[np.float64]:
    """Between each two of them, float64 [n, n], over their parameters.

    |a - b|^2 is |a|^2 + |b|^2 - 2ab: products of matrices take a tenth of the time that differences of all pairs do.
    In float64 they lose nothing that matters, but where two are so close that their distance is what rounding leaves.
    """
    parameters = [row[:parameter_size] for row in rows]
    products = np.zeros((len(rows), len(rows)))
    for _, block in blocks(parameters, weights, parameter_size):
        _add_products(products, block)
    products = np.triu(products) + np.triu(products, 1).T
    lengths = np.diag(products)
    together = lengths[:, None] + lengths
    squares = np.maximum(together - 2 * products, 0.0)
    close = np.argwhere(np.triu(squares < _CLOSE * together, 1))
    squares[close[:, 0], close[:, 1]] = 0.0
    for _, block in blocks(parameters, weights, parameter_size) if len(close) else ():
        for one, other in close:
            apart = block[one] - block[other]
            squares[one, other] += np.dot(apart, apart)
    squares = np.triu(squares, 1)
    return squares + squares.T


def _add_products(products: npt.NDArray[np.float64], block: npt.NDArray[np.float32]) -> None:
    """Add the product of each two rows to the upper triangle, in tiles."""
    for start in range(0, block.shape[1], _TILE_COLUMNS):
        rows = block[:, start : start + _TILE_COLUMNS].astype(np.float64)
        columns = np.ascontiguousarray(rows.T)
        for one in range(0, len(rows), _TILE_ROWS):
            for other in range(one, len(rows), _TILE_ROWS):
                tile = rows[one : one + _TILE_ROWS] @ columns[:, other : other + _TILE_ROWS]
                products[one : one + _TILE_ROWS, other : other + _TILE_ROWS] += tile
