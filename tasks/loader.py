"""From the path of a task file to a Task."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from fedmq.schemas.errors import ConfigError
from fedmq.tasks.contract import Task
from fedmq.tasks.faults import place_in

__all__ = ["load_task", "task_from_functions"]

_FUNCTIONS = ("build_model", "load_data", "loss", "load_test_data", "evaluate", "train", "train_numpy")


def load_task(path: str | Path) -> Task:
    """Run a task file and take its functions. Its folder comes first on `sys.path`, so that its siblings import.

    Raises:
        ConfigError: there is no such file, it fails, or it lacks what a task needs.

    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "no such file"
        raise ConfigError(f"task {file}: {what}; a task is a Python file with build_model() and load_data(client_id)")
    # Known under a name of its own, so that a task called json.py replaces nobody's json.
    spec = importlib.util.spec_from_file_location(
        f"fedmq_task_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}", file
    )
    if spec is None:
        raise ConfigError(
            f"task {file}: its name does not end in .py; a task is a Python file with build_model() and"
            " load_data(client_id)"
        )
    if str(file.parent) not in sys.path[:1]:
        sys.path.insert(0, str(file.parent))
    try:
        module = _run(spec)
    except Exception as error:
        raise ConfigError(f"task {file} cannot be loaded: {type(error).__name__}: {_described(file, error)}") from error
    return task_from_functions(file, vars(module))


def task_from_functions(file: Path, names: dict[str, Any]) -> Task:
    """The task that these names make, which `file` defines.

    Raises:
        ConfigError: something that a task needs is missing, or is no function.

    """
    functions = {name: names[name] for name in _FUNCTIONS if names.get(name) is not None}
    for name, function in functions.items():
        if not callable(function):
            raise ConfigError(f"task {file}: {name} is a {type(function).__name__}, expected a function")
    if "train_numpy" not in functions:
        for name, example in (("build_model", "build_model()"), ("load_data", "load_data(client_id)")):
            if name not in functions:
                raise ConfigError(f"task {file}: it has no {name}; define {example}")
    version = names.get("task_version") or hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if not isinstance(version, str) or len(version) > 128:
        raise ConfigError(f"task {file}: task_version is {version!r}, expected a text of at most 128 characters")
    return Task(path=file, version=version, **functions)


def _described(file: Path, error: Exception) -> str:
    """What happened, and in which file and line of the task's folder."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}:{error.lineno})"
    return f"{error}{place_in(file.parent, error)}"


def _run(spec: ModuleSpec) -> ModuleType:
    assert spec.loader is not None  # it comes from a file
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before it runs: dataclasses and worker processes look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
