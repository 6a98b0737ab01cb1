"""The files of a model: those that came with a load request, and whether those on disk have changed.

Everything here blocks on disk and runs on worker threads.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trivet.errors import InvalidArgumentError

_MAX_DEPTH = 32
"""Of a file that a load request brings: folders are made, looked through and removed recursively."""


@dataclass(slots=True)
class TemporaryFolder:
    """A model's folder made of files that came with a load request; removed when its last user has released it.

    The first user is whoever made it, then each version that is loaded from it. Thread-safe.
    """

    path: Path
    users: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def acquire(self) -> None:
        """Keep the folder for one more user."""
        with self._lock:
            self.users += 1

    def release(self) -> None:
        """One user is done; the last one's release removes the folder."""
        with self._lock:
            self.users -= 1
            last = self.users <= 0
        if last:
            shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Override:
    """What a load brings in place of the repository's: a configuration as JSON, and perhaps a folder for the model.

    Whoever keeps one holds it meanwhile, which keeps the folder.
    """

    config: str | None = None
    folder: TemporaryFolder | None = None

    def hold(self) -> Override:
        """Itself, with its folder kept until :meth:`release`."""
        if self.folder is not None:
            self.folder.acquire()
        return self

    def release(self) -> None:
        """End what one :meth:`hold` began, or whoever made the folder."""
        if self.folder is not None:
            self.folder.release()


AS_IS = Override()
"""The repository's configuration and files."""


def write_files(name: str, files: Mapping[str, bytes]) -> TemporaryFolder:
    """A model's folder of the files of a load request, by path in that folder.

    Paths come from the caller: raises :class:`~trivet.errors.InvalidArgumentError` for one that leads out of the folder
    or cannot be written, with nothing left behind.
    """
    folder = TemporaryFolder(Path(tempfile.mkdtemp(prefix="trivet-model-")))
    try:
        for filename, content in files.items():
            relative = PurePosixPath(filename)
            parts = relative.parts
            if relative.is_absolute() or ".." in parts or not 0 < len(parts) <= _MAX_DEPTH or "\0" in filename:
                raise InvalidArgumentError(
                    f"file '{filename[:256]}' of the load request for '{name}' must be a path inside the model's"
                    f" folder, such as '1/model.onnx', and no deeper than {_MAX_DEPTH} folders"
                )
            target = folder.path.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except (OSError, UnicodeEncodeError) as error:
        # A name that is too long or is no text, a file that is also the folder of another, a full disk.
        folder.release()
        reason = error.strerror if isinstance(error, OSError) else "its name is not Unicode text"
        raise InvalidArgumentError(
            f"file {filename[:256]!r} of the load request for '{name}' cannot be written: {reason}"
        ) from error
    except BaseException:
        folder.release()
        raise
    return folder


def file_stamps(path: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and modification time of every file of a model."""
    stamps = set()
    for file in path.rglob("*"):
        # Compiled Python files appear when a model is first imported, and do not change it.
        if "__pycache__" not in file.parts and file.is_file():
            status = file.stat()
            stamps.add((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
    return frozenset(stamps)
