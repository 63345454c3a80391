"""What a user's task raises, as one sentence that names the line of the task and not a traceback through ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedmq.schemas.errors import ConfigError, FedMQError
from fedmq.tasks.contract import Task
from fedmq.tasks.faults import place_in, what_was_done

__all__ = ["faults_of"]


@contextmanager
def faults_of(task: Task) -> Iterator[None]:
    """Inside, every exception but our own becomes a ConfigError that says in what and where in the task it arose."""
    try:
        yield
    except (FedMQError, BrokenPipeError):
        raise
    except Exception as error:
        done, where = what_was_done(error), place_in(task.path.parent, error)
        said = str(error).strip().split("\n")[0]
        failed = f" failed {done}" if done else ""
        raise ConfigError(f"task {task.path}{failed}: {type(error).__name__}: {said}{where}") from error
