"""The working directory of a handler.

TorchServe runs each in a process whose working directory is the archive's, and handlers open files by names relative to
that. Here they are threads of the server, and a working directory is the whole process's, except on Linux: there a
thread may part with the others (unshare(2), ``CLONE_FS``), unless a sandbox such as Docker's forbids it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path

_CLONE_FS = 0x200


def enter(folder: Path) -> OSError | None:
    """Make it the working directory of this thread, and of those that it starts from now on; of no other.

    Returns why that cannot be. The main thread is left as it is: all others would be started from there.
    """
    if not sys.platform.startswith("linux"):
        return OSError(f"threads have no working directory of their own on {sys.platform}")
    if threading.current_thread() is threading.main_thread():
        return OSError("the main thread's working directory is the process's")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FS) != 0:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number))
    os.chdir(folder)
    return None


def explain_missing(error: FileNotFoundError, folder: Path, refused: OSError | None) -> str:
    """What to add to a handler's error about a file that is in its archive; "" where there is nothing to."""
    name = error.filename
    if refused is None or not isinstance(name, str) or Path(name).is_absolute() or not (folder / name).exists():
        return ""
    return (
        f"; '{name}' is in the archive, and the handler must say so with context.system_properties['model_dir'], as its"
        f" working directory is the server's: {refused}"
    )
