"""What was being done when a user's task raised something, and in which of its lines that was."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["doing", "place_in", "what_was_done"]

# Code of others, also where the task's folder is around it, as a project is around its .venv.
_OTHERS = (Path(__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix))  # as they stand in a traceback


class _Note(str):
    """A note on an exception that is ours."""

    __slots__ = ()


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Inside, an exception takes along what was being done, such as "training"; a traceback shows it too."""
    try:
        yield
    except Exception as error:
        if not what_was_done(error):
            error.add_note(_Note(f"while {what}"))
        raise


def what_was_done(error: Exception) -> str:
    """What was being done when this was raised, such as "while training"; empty if that is not known."""
    return next((note for note in getattr(error, "__notes__", ()) if isinstance(note, _Note)), "")


def place_in(folder: Path, error: Exception) -> str:
    """The innermost line in this folder, such as " (task.py:7)" with the whole path; empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_in(folder, Path(frame.filename))]
    return f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""


def _is_in(folder: Path, file: Path) -> bool:
    if not file.is_relative_to(folder) or "site-packages" in file.relative_to(folder).parts:
        return False
    return not any(file.is_relative_to(other) and not folder.is_relative_to(other) for other in _OTHERS)
