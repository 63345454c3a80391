from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from fedmq.aggregator.recent import Recent

numbers = st.lists(st.integers(0, 5) | st.floats(0, 1e6), min_size=1, max_size=60)


@given(numbers, st.integers(1, 20))
def test_its_median_is_that_of_the_last_numbers(values: list[float], most: int) -> None:
    recent = Recent(most)
    for place, value in enumerate(values, start=1):
        recent.append(value)
        last = values[max(0, place - most) : place]
        assert list(recent) == last
        assert len(recent) == len(last)
        assert recent.median_low(-1) == statistics.median_low(last)
    assert recent == Recent(most, values[-most:])
    assert recent != Recent(most, [*values[-most:], -1.0])
