"""A child process that does not outlive its parent.

Run as a script it becomes the command that it is given, after asking Linux for a SIGKILL when its parent dies. A fork
handler could ask too, but Python code between fork and exec can deadlock in a process that has threads, as torch's has.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["User", "start_child"]

_PR_SET_PDEATHSIG = 1


class User(NamedTuple):
    """Whom a process runs as, by number."""

    uid: int
    gid: int


def start_child(
    command: list[str], log: Path | int, folder: Path | None = None, user: User | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`, its output appended to `log`; it keeps its process id, and the terminal's Ctrl-C passes it by.

    `log` is a path or what is open already. It works in `folder`, by default in this process's, and as `user`, whom
    only root may choose, from its first instruction on and in no other group.

    On Linux it is killed when the thread that called this ends, however that comes about. Raises OSError.
    """
    becomes = user
    if sys.platform == "linux":
        # -I -S: nothing of the user's environment or site-packages is needed, and this starts twice as fast.
        start = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid())]
        # It becomes the user only there: who may not be able to load this Python.
        command, becomes = [*start, "" if user is None else f"{user.uid}:{user.gid}", *command], None
    with contextlib.nullcontext(log) if isinstance(log, int) else log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
            user=None if becomes is None else becomes.uid,
            group=None if becomes is None else becomes.gid,
            extra_groups=None if becomes is None else [],
        )


def _become(parent: int, user: str, command: list[str]) -> None:
    if user:
        uid, gid = map(int, user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After that, because who becomes another user is forgotten.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process died before its child was ready")
    os.execv(command[0], command)  # noqa: S606 -- to become it is the point


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
