"""The advice to who sees a loss grow."""

from __future__ import annotations

import pytest

from fedmq.aggregator.config import AggregatorSettings
from fedmq.unstable import advice

SWINGS = [1.0, 0.5, 0.2, 0.9, 4.0, 13.0, 12.0]


def test_a_loss_that_grows_with_late_updates_has_advice() -> None:
    assert advice(SWINGS, 4.4, 3, AggregatorSettings()) == (
        "the loss was 0.2 and is 12: with a mean staleness of 4.4 and 3 devices the model may swing;"
        " try --set aggregator.server_learning_rate=0.35 or --set aggregator.buffer_size=3"
    )
    calm = AggregatorSettings(server_learning_rate=0.35)
    assert str(advice(SWINGS, 4.4, 3, calm)).endswith("; try --set aggregator.buffer_size=3")


@pytest.mark.parametrize(
    ("losses", "staleness", "settings"),
    [
        ([1.0, 0.5, 0.4, 0.3, 0.2, 0.25, 0.2], 4.4, AggregatorSettings()),
        ([1.0, 0.5, 1e-6, 1e-5, 1e-5, 1e-5, 1e-5], 4.4, AggregatorSettings()),
        (SWINGS, 0.1, AggregatorSettings()),
        (SWINGS[:5], 4.4, AggregatorSettings()),
        (SWINGS, 4.4, AggregatorSettings(strategy="fedavg")),
        (SWINGS, 4.4, AggregatorSettings(server_learning_rate=0.3, buffer_size=3)),
    ],
)
def test_what_is_no_such_case_has_none(losses: list[float], staleness: float, settings: AggregatorSettings) -> None:
    assert advice(losses, staleness, 3, settings) is None
