"""Stop the aggregator that works in the federation's run folder on this machine. The run can go on later."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import time

from fedmq.cli.options import add_settings, settings_of
from fedmq.schemas.errors import ConfigError, StoreError

EXAMPLE = "fedmq stop --config federation.toml"

_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    folder = settings_of(options).run_folder
    try:
        lock = open(folder / "lock")  # noqa: SIM115 (closed below, with its lock)
    except OSError as error:
        raise ConfigError(
            f"run folder {folder}: no aggregator has worked there; is it the right federation?"
        ) from error
    with lock:
        if is_free(lock.fileno()):
            print(f"no aggregator works in {folder}")
            return 0
        process = int(lock.read() or 0)
        if process <= 1:
            raise StoreError(f"run folder {folder}: its lock does not say which process holds it; stop that by hand")
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS
        while not is_free(lock.fileno()):
            if time.monotonic() > deadline:
                raise StoreError(f"aggregator (process {process}) has not stopped within {_SECONDS:g} s; see its log")
            time.sleep(0.05)
    print(f"aggregator (process {process}) stopped; the run is in {folder}")
    return 0


def is_free(descriptor: int) -> bool:
    """Whether no aggregator holds this lock, which is that of its run folder."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
