"""`[aggregator]`: a setting that the chosen strategy does not have is an error, not silence."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from fedmq.aggregator.config import AggregatorSettings
from fedmq.aggregator.strategies import STRATEGIES, Arrival

BEHIND = Arrival(staleness=3, num_samples=10, median_samples=10.0)


def test_the_default_is_fedbuff_that_follows_the_fleet() -> None:
    strategy = AggregatorSettings().build_strategy()
    assert (strategy.name, strategy.buffer_size, strategy.momentum) == ("fedbuff", None, 0.0)
    assert strategy.weigh(BEHIND)[0] == 0.5  # (1 + 3)^-1/2


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_be_chosen_and_every_setting_of_its_function_is_one_of_the_file(name: Any) -> None:
    assert AggregatorSettings(strategy=name).build_strategy().name == name
    assert set(inspect.signature(STRATEGIES[name]).parameters) <= set(AggregatorSettings.model_fields)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"strategy": "fedbuff", "alpha": 0.5}, "'fedbuff' has no setting 'alpha'; it has buffer_size, "),
        ({"strategy": "fedasync", "buffer_size": 4}, "'fedasync' has no setting 'buffer_size'; it has alpha, momentum"),
        ({"strategy": "fedasync_delta", "clients": 4}, "it has alpha, momentum"),
        ({"strategy": "fedavg", "alpha": 0.5}, "it has clients, over_selection, deadline"),
        ({"strategy": "fedavg", "staleness": "hinge"}, "'fedavg' has no staleness"),
        ({"strategy": "fedavg", "staleness_a": 0.5}, "'fedavg' has no staleness"),
        ({"staleness": "constant", "staleness_a": 0.5}, "'constant' does not take a"),
        ({"buffer_size": 0}, "buffer_size = 0, expected at least 1"),
        ({"strategy": "fedasync", "alpha": 1.5}, "alpha = 1.5, expected more than 0, at most 1"),
        ({"momentum": 1.0}, "momentum = 1.0, expected 0 up to but not 1"),
        ({"statistics_rate": 1.1}, "statistics_rate = 1.1, expected 0 to 1"),
        ({"server_learning_rate": 0}, "server_learning_rate = 0.0, expected more than 0"),
        ({"reference_staleness": -1}, "reference_staleness = -1, expected at least 0"),
        ({"strategy": "fedavg", "clients": 0}, "clients = 0, expected at least 1"),
        ({"strategy": "fedavg", "over_selection": 0.9}, "over_selection = 0.9, expected at least 1"),
        ({"strategy": "fedavg", "deadline": 0}, "deadline = 0, expected more than 0 seconds"),
        ({"strategy": "scaffold"}, "strategy"),
        ({"snapshot_codec": "top_k"}, "would leave out most of the model"),
        ({"rounds": 10}, "rounds"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_says_what_can(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as error:
        AggregatorSettings(**given)
    assert says in str(error.value)


def test_settings_reach_the_strategy() -> None:
    settings = AggregatorSettings(
        strategy="fedbuff", buffer_size=7, staleness="hinge", staleness_a=1.0, staleness_b=1.0
    )
    strategy = settings.build_strategy()
    assert strategy.buffer_size == 7
    assert strategy.weigh(BEHIND)[0] == 1 / 3  # 1 / (1 (3 - 1) + 1)


def test_numbers_alone_are_those_of_the_polynomial() -> None:
    assert AggregatorSettings(staleness_a=1.0).build_strategy().weigh(BEHIND)[0] == 0.25
