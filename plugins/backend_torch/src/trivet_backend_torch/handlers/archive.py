"""A TorchServe archive: what its manifest says, and its files in a folder.

Source: TorchServe's model archiver, ``MAR-INF/MANIFEST.json`` and ``model-config.yaml``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.errors import InvalidArgumentError

from trivet_backend_torch.files import DAMAGED_ARCHIVE, MANIFEST


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose files lie in ``folder``. :meth:`close` removes what was unpacked."""

    folder: Path
    manifest: dict[str, Any]
    model: dict[str, Any]
    """The manifest's part about the model: ``handler``, ``serializedFile``, ``modelFile``, …"""
    close: Callable[[], None] = field(default=lambda: None)

    @property
    def handler(self) -> str:
        """``FILE.py``, ``FILE.py:FUNCTION``, or the name of one of TorchServe's own."""
        return str(self.model["handler"])


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an archive or folder. Raises :class:`~trivet.errors.InvalidArgumentError` for a damaged one."""
    try:
        if path.is_dir():
            text = (path / MANIFEST).read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(MANIFEST).decode()
        manifest = json.loads(text)
        manifest["model"]["handler"]
    except (OSError, KeyError, TypeError, *DAMAGED_ARCHIVE) as error:
        raise InvalidArgumentError(
            f"'{path.name}' has no usable {MANIFEST}: {type(error).__name__}: {error}; expected what"
            " torch-model-archiver"
            ' writes, with {"model": {"handler": ...}}'
        ) from error
    return dict(manifest)


def unpack(path: Path) -> Archive:
    """Open an archive, unpacked into a temporary folder, or take a folder as it is. Raises as :func:`read_manifest`."""
    manifest = read_manifest(path)
    if path.is_dir():
        return Archive(path, manifest, manifest["model"])
    folder = Path(tempfile.mkdtemp(prefix="trivet-mar-"))
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    except (OSError, *DAMAGED_ARCHIVE) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InvalidArgumentError(f"'{path.name}' cannot be unpacked: {error}") from error
    return Archive(folder, manifest, manifest["model"], lambda: shutil.rmtree(folder, ignore_errors=True))
