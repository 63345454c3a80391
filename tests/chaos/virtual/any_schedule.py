"""The proof: whatever is drawn happens to a world, then it settles, then its books have to be right."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.chaos.virtual.accounts import violations
from tests.chaos.virtual.schedules import Happening, happenings, play
from tests.chaos.virtual.strategies import STRATEGIES
from tests.chaos.virtual.world import a_world

__all__ = ["prove"]


def prove(examples: int, *, fresh: bool = False) -> Counter[str]:
    """Draw so many schedules.

    Args:
        examples: how many.
        fresh: others each time; the same ones each time if not.

    Returns:
        What happened how often.

    Raises:
        AssertionError: with what is wrong, on the shortest schedule that Hypothesis finds.

    """
    seen: Counter[str] = Counter()

    @settings(
        deadline=None,
        max_examples=examples,
        derandomize=not fresh,
        database=None,
        print_blob=fresh,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        strategy=st.sampled_from(sorted(STRATEGIES)),
        seed=st.integers(0, 1 << 16),
        part_bytes=st.sampled_from([None, 512]),
        commit_every=st.sampled_from([0.0, 2.0]),
        schedule=happenings,
    )
    def holds(strategy: str, seed: int, part_bytes: int | None, commit_every: float, schedule: list[Happening]) -> None:
        with a_world(STRATEGIES[strategy], seed=seed, part_bytes=part_bytes, commit_every=commit_every) as world:
            play(world, schedule)
            world.settle()
            wrong = violations(world)
            seen.update(world.seen)
            seen["part"] += world.broker.parts
            if wrong:
                raise AssertionError("; ".join(wrong[:5]))

    holds()
    return seen
