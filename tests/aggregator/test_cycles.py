"""How seldom the aggregator's process looks for garbage."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import gc
from fedmq.aggregator.cycles import look_for_cycles_seldom
look_for_cycles_seldom()
assert gc.isenabled()
print(gc.get_threshold()[0], gc.get_freeze_count() > 1000)
"""


def test_what_is_there_is_never_looked_through_and_what_comes_seldom() -> None:
    said = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    threshold, frozen = said.stdout.split()
    assert int(threshold) >= 10_000
    assert frozen == "True"
