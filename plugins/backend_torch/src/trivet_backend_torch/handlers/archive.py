"""A TorchServe archive: what its manifest says, and its files in a folder.

Source: TorchServe's model archiver, ``MAR-INF/MANIFEST.json``, and its formats ``default``, ``no-archive`` and ``tgz``.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from trivet.errors import InvalidArgumentError

from trivet_backend_torch.files import DAMAGED_ARCHIVE, MANIFEST, is_tar


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
    """The manifest of an archive or folder.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a damaged one, and one with a service envelope.
    """
    try:
        if path.is_dir():
            text = (path / MANIFEST).read_text(encoding="utf-8")
        elif is_tar(path):
            with tarfile.open(path) as packed:
                file = packed.extractfile(_manifest_of(packed.getnames()))
                assert file is not None, "it is no file"
                text = file.read().decode()
        else:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(MANIFEST).decode()
        manifest = json.loads(text)
        manifest["model"]["handler"]
    except (OSError, KeyError, TypeError, AssertionError, *DAMAGED_ARCHIVE) as error:
        raise InvalidArgumentError(
            f"'{path.name}' has no usable {MANIFEST}: {type(error).__name__}: {error}; expected what"
            " torch-model-archiver"
            ' writes, with {"model": {"handler": ...}}'
        ) from error
    envelope = manifest["model"].get("envelope")
    if envelope:
        raise InvalidArgumentError(
            f"'{path.name}' has the service envelope '{envelope}', which is not there: have clients send what is in the"
            " envelope, one row for each of its instances"
        )
    return dict(manifest)


def _manifest_of(names: Sequence[str]) -> str:
    """Where a manifest is in an archive, whose files may all be in one folder. Raises :class:`KeyError`."""
    for name in names:
        if PurePosixPath(name).parts[-2:] == PurePosixPath(MANIFEST).parts:
            return name
    raise KeyError(MANIFEST)


def unpack(path: Path) -> Archive:
    """Open an archive, unpacked into a temporary folder, or take a folder as it is. Raises as :func:`read_manifest`."""
    manifest = read_manifest(path)
    if path.is_dir():
        return Archive(path.absolute(), manifest, manifest["model"])
    folder = Path(tempfile.mkdtemp(prefix="trivet-mar-"))
    top = folder
    try:
        if is_tar(path):
            with tarfile.open(path) as packed:
                packed.extractall(folder, filter="data")
                top = folder / Path(_manifest_of(packed.getnames())).parent.parent
        else:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)  # noqa: S202 - of a zip, which lets no name lead out of the folder
    except (OSError, *DAMAGED_ARCHIVE) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InvalidArgumentError(f"'{path.name}' cannot be unpacked: {error}") from error
    return Archive(top, manifest, manifest["model"], lambda: shutil.rmtree(folder, ignore_errors=True))
