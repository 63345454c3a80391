"""That freed memory stays with the process where the C library can be asked for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Forty updates of a megabyte at once, then none, again and again.
_FAULTS = """
import resource, sys
from fedmq.aggregator.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    [bytearray(b"x") * (1 << 20) for _ in range(40)]
before = faults()
for _ in range(5):
    [bytearray(b"x") * (1 << 20) for _ in range(40)]
print(faults() - before)
"""


def page_faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    assert page_faults("kept") < page_faults("given back") / 10
