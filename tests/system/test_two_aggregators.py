from __future__ import annotations

import pytest

from tests.system.processes import Federation

pytestmark = pytest.mark.broker


def test_of_two_aggregators_of_one_federation_the_older_gives_way(fed: Federation) -> None:
    older = fed.aggregator()
    client = fed.client("ada")
    fed.work("ada", updates=2)
    newer = fed.aggregator("--set", f'aggregator.folder="{fed.folder}/other"')
    assert older.ends() == 1
    assert "another aggregator serves this federation now; stop one of the two" in older.log
    fed.work("ada", updates=3)
    assert newer.running
    assert client.running
