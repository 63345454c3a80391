"""A child process that does not outlive its parent.

Run as a script it becomes the command that it is given, after asking Linux for a SIGKILL when its parent dies. A fork
handler could ask too, but Python code between fork and exec can deadlock in a process that has threads, as torch's has.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["start_child"]

_PR_SET_PDEATHSIG = 1


def start_child(command: list[str], log: Path, folder: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `command`, its output appended to `log`; it keeps its process id, and the terminal's Ctrl-C passes it by.

    It works in `folder`, by default in this process's.

    On Linux it is killed when the thread that called this ends, however that comes about. Raises OSError.
    """
    if sys.platform == "linux":
        # -I -S: nothing of the user's environment or site-packages is needed, and this starts twice as fast.
        command = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
        )


def _become(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process died before its child was ready")
    os.execv(command[0], command)  # noqa: S606 -- to become it is the point


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
