"""`python -m tests.fuzz` sets ten million hostile inputs on both sides; `make fuzz` is that with a seed of its own.

python -m tests.fuzz --targets device --inputs 100000 --seed 7
python -m tests.fuzz --rerun runs/fuzz/device-3-16.case
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from pathlib import Path

from tests.fuzz.run import TARGETS, Figures, Found, fuzz, read_case, rerun

# Of all inputs, in parts of the sum. Those that are read and forgotten are many, because they are fast.
SHARES = {"messages": 10, "aggregator": 8, "aggregator-signed": 2, "device": 7, "device-signed": 1, "broker": 12}
MOST_GROWTH = 32 << 20  # bytes between a tenth and the end: what the allocator keeps varies by some megabytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000_000, help="for all targets together (default: 10000000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--found", type=Path, default=Path("runs/fuzz"), help="folder for what breaks something")
    parser.add_argument("--rerun", type=Path, help="a file of that folder")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.rerun is not None:
        rerun(*read_case(options.rerun))
        print("nothing breaks")
        return 0
    print(f"seed {options.seed}")
    parts = sum(SHARES[target] for target in options.targets)
    for target in options.targets:
        try:
            figures = fuzz(target, options.inputs * SHARES[target] // parts, options.seed, _Progress(target))
        except Found as found:
            path = found.write(options.found)
            print(f"\n{found}\n{target}: broken by the {len(found.case)} inputs in {path}; again:")
            print(f"  python -m tests.fuzz --rerun {path}")
            return 1
        print(_line(target, figures), flush=True)
        if figures.growth() > MOST_GROWTH:
            print(f"{target}: memory has grown by {figures.growth() >> 20} MB, with seed {options.seed}")
            return 1
    return 0


def _line(target: str, figures: Figures) -> str:
    processor, clock = figures.slowest
    rate, memory = figures.inputs / figures.seconds, figures.memory[-1][1]
    slowest = f"slowest {1000 * processor:.0f} ms ({1000 * clock:.0f} on the clock)"
    grown = f"{memory >> 20} MB ({figures.growth() / 2**20:+.1f})"
    return f"{target}: {figures.inputs} inputs, {rate:.0f}/s, {slowest}, memory {grown}"


class _Progress:
    """How far it is: every second where somebody looks, every minute into a file."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._said_at = time.monotonic()

    def __call__(self, figures: Figures) -> None:
        looked_at = sys.stderr.isatty()
        if time.monotonic() > self._said_at + (1.0 if looked_at else 60.0):
            self._said_at = time.monotonic()
            begin, end = ("\r", "") if looked_at else ("", "\n")
            print(f"{begin}so far {_line(self._target, figures)}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
