"""Child processes that never outlive the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)

# Loaded here and not in the child: between fork and exec almost nothing is safe.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` with its output in `log` and return its process.

    The child is out of reach of the terminal's Ctrl-C, so that whoever started it ends it in order. On Linux it is
    also terminated when the thread that started it ends, even by SIGKILL.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=_tie_to(os.getpid()),
        )


def stop(process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Ask `process` to end, and kill it when it has not ended after `seconds`."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_lines(log: Path, count: int = 10) -> str:
    """Return the last `count` lines of `log`, to be quoted in an error."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _tie_to(parent: int) -> Callable[[], None] | None:
    if _libc is None:
        return None

    def die_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return die_with_parent
