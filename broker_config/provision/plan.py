"""What a run is going to write, known as a whole before the first file is touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedmq.broker_config.provision.private_files import read_private, write_folder, write_private

__all__ = ["Plan", "carry_out", "different"]

Plan = dict[Path, bytes | Mapping[str, bytes]]
"""The contents of files, and of new folders, in the order in which they are written."""


def different(plan: Plan) -> Plan:
    """What of it is not so yet."""
    return {
        path: content
        for path, content in plan.items()
        if not isinstance(content, bytes) or read_private(path) != content
    }


def carry_out(plan: Plan) -> None:
    """Write it, each file and each folder in one step; raises StoreError if the disk does not take it."""
    for path, content in plan.items():
        if isinstance(content, bytes):
            write_private(path, content)
        else:
            write_folder(path, content)
