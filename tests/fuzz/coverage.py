"""The same targets, led by the code that they reach: `python -m tests.fuzz.coverage device --inputs 100000`.

Needs atheris (`pip install atheris`), which has libFuzzer in it. Other options are libFuzzer's; a file that it has
written runs again when its path stands behind the target.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.choices import Choices

with atheris.instrument_imports(include=["fedmq.", "paho."]):
    from tests.fuzz.run import INPUT_BYTES, TARGETS

_FILE_BYTES = 4096
_SEEDS = 32  # files to begin with: a few dozen messages each, as they come


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=100_000, help="hostile messages in all files together")
    parser.add_argument("--seed", type=int, default=1)
    options, others = parser.parse_known_args()
    logging.disable(logging.CRITICAL)
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        choices = Choices(data)
        world = TARGETS[options.target](choices.byte())
        try:
            while choices.left and not world.over:
                world.step(choices)
                done += 1
            world.check()
        finally:
            world.close()
        if done >= options.inputs:
            print(f"{options.target}: {done} inputs, nothing breaks", flush=True)
            os._exit(0)  # libFuzzer does not return, and counts files

    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_SEEDS):
            Path(folder, f"{number}").write_bytes(chance.randbytes(chance.randrange(INPUT_BYTES, _FILE_BYTES)))
        known = ["-len_control=0", f"-max_len={_FILE_BYTES}", f"-seed={options.seed}"]
        atheris.Setup([sys.argv[0], *known, *(others or [folder])], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
