"""Vectors as safetensors files: streamed without a second copy in memory, whole and on the disk before they are named.

A file is written aside under another name and synced; only then is it renamed, and the folder synced. The format is
safetensors' own (its page is short: https://github.com/huggingface/safetensors), and its library reads it back; its
writer makes one more copy of everything, which for a model of a gigabyte is a gigabyte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedmq.schemas.errors import StoreError
from fedmq.schemas.layout import Vector

__all__ = ["Step", "Sync", "nothing", "read_vectors", "to_disk", "write_files"]

Step = Callable[[str], None]
"""Called between the steps of a commit with the name of the one that is done: tests end the process there."""

Sync = Callable[[int], None]
"""Has a file descriptor's content, or a folder's names, reach the disk: os.fsync."""


def nothing(step: str) -> None:
    """A step that passes."""


def to_disk(descriptor: int) -> None:
    """Have it reach the disk."""
    os.fsync(descriptor)


def write_files(folder: Path, files: Mapping[str, Mapping[str, Vector]], *, sync: Sync, step: Step) -> None:
    """Write files of float32 vectors by name, all of them or none under its name.

    Raises:
        OSError: some may be there, whole, under names that nothing refers to.

    """
    for name, vectors in files.items():
        with open(folder / f"{name}.part", "wb") as file:
            _write(file, vectors)
            file.flush()
            sync(file.fileno())
    step("vectors-written")
    for name in files:
        os.replace(folder / f"{name}.part", folder / name)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
    step("vectors-renamed")


def read_vectors(path: Path) -> dict[str, Vector]:
    """The vectors of one file, by name, float32.

    Raises:
        StoreError: it is missing or damaged.

    """
    try:
        # Not copied again: it is ours alone.
        return {key: np.require(array, np.float32, ["C", "W"]) for key, array in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise StoreError(f"run folder {path.parent}: {path.name} cannot be read: {error}; take a copy of it") from error


def _write(file: IO[bytes], vectors: Mapping[str, Vector]) -> None:
    offset, entries = 0, {}
    for name, vector in vectors.items():
        entries[name] = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [offset, offset + vector.nbytes]}
        offset += vector.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for vector in vectors.values():
        file.write(np.ascontiguousarray(vector, "<f4").data.cast("B"))
