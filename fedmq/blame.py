"""What a user's task raises, as one sentence that names the line of the task and not a traceback through ours."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmq.schemas.errors import ConfigError, FedMQError
from fedmq.tasks.contract import Task

__all__ = ["faults_of"]


@contextmanager
def faults_of(task: Task) -> Iterator[None]:
    """Inside, every exception but our own becomes a ConfigError that says where in the task it arose."""
    try:
        yield
    except (FedMQError, BrokenPipeError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if Path(frame.filename).parent == task.path.parent]
        where = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
        said = str(error).strip().split("\n")[0]
        raise ConfigError(f"task {task.path}: {type(error).__name__}: {said}{where}") from error
