"""Write what a run has come to into files: weights, history, a picture. The aggregator may be at work.

The weights have the names of the model's state_dict. Load them with
`model.load_state_dict(safetensors.torch.load_file("model.safetensors"), strict=False)`.
The history has a line of JSON for each version: its updates with their staleness, and what was measured of it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from fedmq.aggregator.export import Run, history_file, model_file, read_run
from fedmq.cli.options import add_settings, settings_of
from fedmq.schemas.errors import ConfigError
from fedmq.schemas.refusals import kind_of
from fedmq.tasks.initial import STATISTICS_KEY

EXAMPLE = "fedmq export --config federation.toml --history history.jsonl --report report.png"

_WEIGHTS = Path("model.safetensors")
_WRITTEN = {"out": (".safetensors", ".npz"), "history": (".jsonl",), "report": (".png",)}  # by option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the weights, *.safetensors, or *.npz: numpy's format "
        f"(default: {_WEIGHTS}, if nothing else is asked for)",
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="the history, *.jsonl")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a picture, *.png; needs matplotlib")
    parser.add_argument("--folder", type=Path, help="the run folder, in place of the federation's")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    _check_names(options)
    run = read_run(options.folder or settings_of(options).run_folder)
    out = options.out or (None if options.history or options.report else _WEIGHTS)
    if out is not None:
        _write(out, lambda file: _weights(run, out, file))
        print(f"{out}: version {run.version}, {run.layout.size} floats, run {run.run}")
    if options.history is not None:
        _write(options.history, lambda file: file.write(history_file(run)))
        print(f"{options.history}: {len(run.history)} versions")
    if options.report is not None:
        from fedmq.report import draw_run

        draw_run(options.report, run)
        print(f"{options.report}: {len(run.history)} versions")
    return 0


def _check_names(options: argparse.Namespace) -> None:
    """Before anything is written. Raises ConfigError: a file's name promises what is not written here."""
    wrong = []
    for option, suffixes in _WRITTEN.items():
        path: Path | None = getattr(options, option)
        if path is not None and path.suffix.lower() not in suffixes:
            names = " or ".join(f"*{suffix}" for suffix in suffixes)
            wrong.append(f"--{option} {path}: it writes {names}; choose such a name")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _weights(run: Run, out: Path, file: IO[bytes]) -> None:
    if out.suffix.lower() == ".npz":
        np.savez(file, allow_pickle=False, **run.arrays())
    else:
        file.write(model_file(run, STATISTICS_KEY))


def _write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
    """Have all of the file there, or what was there before."""
    aside = path.with_name(path.name + ".part")
    try:
        with open(aside, "wb") as file:
            content(file)
        os.replace(aside, path)
    except OSError as error:
        raise kind_of(error)(f"{path}: it cannot be written: {error.strerror}") from error
