"""Write a run's newest weights to a file, under the names of the model's state_dict. The aggregator may be at work.

Load them with `model.load_state_dict(safetensors.torch.load_file("model.safetensors"), strict=False)`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from fedmq.aggregator.export import model_file, read_run
from fedmq.cli.options import add_settings, settings_of
from fedmq.schemas.errors import StoreError
from fedmq.tasks.initial import STATISTICS_KEY

EXAMPLE = "fedmq export --config federation.toml --out model.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        help="the file; *.npz writes numpy's format (default: model.safetensors)",
    )
    parser.add_argument("--folder", type=Path, help="the run folder, in place of the federation's")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    run = read_run(options.folder or settings_of(options).run_folder)
    aside = options.out.with_name(options.out.name + ".part")
    try:
        with open(aside, "wb") as file:
            if options.out.suffix == ".npz":
                np.savez(file, allow_pickle=False, **run.arrays())
            else:
                file.write(model_file(run, STATISTICS_KEY))
        os.replace(aside, options.out)
    except OSError as error:
        raise StoreError(f"{options.out}: it cannot be written: {error.strerror}") from error
    print(f"{options.out}: version {run.version}, {run.layout.size} floats, run {run.run}")
    return 0
