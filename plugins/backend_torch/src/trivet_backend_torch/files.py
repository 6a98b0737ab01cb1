"""Which file of a model version is the model, and what kind of file it is.

By content and not by name: ``model.pt`` is a TorchScript archive, a ``state_dict`` or a pickled module, and
``model.pt2`` an exported program or a package of AOTInductor. All are zip archives, told apart by what they hold.
"""

from __future__ import annotations

import enum
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError, UnavailableError

MANIFEST = "MAR-INF/MANIFEST.json"
UNPACKED = MANIFEST.partition("/")[0]
"""What an unpacked archive is known by, whatever else is in it."""
WORKFLOW = "WAR-INF/MANIFEST.json"
DEFAULT_NAMES = ("model.py", "model.pt", "model.pt2", "model.mar", "model.tar.gz", "model.pth", "model")

DAMAGED_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, RuntimeError)
"""What ``zipfile`` and ``tarfile`` raise for one: also ``UnicodeDecodeError`` over a name, and ``NotImplementedError``
over a version or a compression that no archive of PyTorch has."""


class FileKind(enum.Enum):
    """How a model is loaded."""

    TORCHSCRIPT = "a TorchScript archive"
    EXPORTED = "a torch.export program"
    AOTINDUCTOR = "a package of AOTInductor"
    EAGER = "Python code"
    PICKLE = "a pickle of torch.save"
    HANDLER = "an archive of TorchServe"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The model of a version folder."""

    path: Path
    kind: FileKind


def find_model(context: ModelContext) -> ModelFile:
    """The file that ``default_model_filename`` or ``runtime`` names, else the first of :data:`DEFAULT_NAMES`.

    ``model.pt``, which Triton fills in where nothing is configured, is no more than a default: ``model.py`` comes
    before a ``model.pt`` that holds only its weights. Raises :class:`~trivet.errors.UnavailableError` where there is
    none, and :class:`~trivet.errors.InvalidArgumentError` for a file that is no model.
    """
    folder = context.version_path
    named = context.default_model_filename
    if str(context.config.runtime).endswith(".py"):
        names: tuple[str, ...] = (str(context.config.runtime),)
    elif named in ("", "model.pt", UNPACKED):
        names = DEFAULT_NAMES
    else:
        names = (named,)
    found = [folder / name for name in names if (folder / name).exists()]
    if names is DEFAULT_NAMES and (folder / MANIFEST).is_file():
        # An unpacked archive of TorchServe, whose files may have any of these names.
        found = [folder]
    if not found:
        others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise UnavailableError(
            f"unable to find '{folder / (names[0] if len(names) == 1 else 'model.pt')}' for model instance"
            f" '{context.name}'; set default_model_filename or rename the file"
            f" ({'there is ' + ', '.join(others) if others else 'the folder is empty'})"
        )
    path = found[0]
    weights = folder / "model.pt"
    if names is DEFAULT_NAMES and path.name == "model.py" and weights.exists():
        # TorchScript needs no class: then model.py is something else's, unless `runtime` says otherwise.
        path = weights if kind_of(weights) is FileKind.TORCHSCRIPT else path
    kind = kind_of(path)
    if kind is None:
        raise InvalidArgumentError(
            f"failed to load model '{context.name}': '{path.name}' is no model that PyTorch writes; it is damaged or"
            " incomplete (a Git LFS pointer?)"
        )
    return ModelFile(path, kind)


def kind_of(path: Path) -> FileKind | None:
    """What a file or folder holds; ``None`` for something else, and for an archive whose list of files is damaged.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a workflow of TorchServe.
    """
    if path.suffix == ".py":
        return FileKind.EAGER
    if path.is_dir():
        return FileKind.HANDLER if (path / MANIFEST).is_file() else None
    if is_tar(path):
        # That it has a manifest is looked at when it is read: a list of its files would take as long as unpacking it.
        return FileKind.HANDLER
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED_ARCHIVE:
        # Its end was found, and the list of its files is not what it was.
        return None
    if MANIFEST in names:
        return FileKind.HANDLER
    if WORKFLOW in names:
        raise InvalidArgumentError(
            f"'{path.name}' is a workflow of TorchServe, which is not there: serve each of its models, and an ensemble"
            " of them"
        )
    inside = {name.partition("/")[2] for name in names}
    if any(name.startswith("data/aotinductor/") for name in inside):
        return FileKind.AOTINDUCTOR
    # The second name is that of exported programs before PyTorch 2.8.
    if any(name.startswith("models/") for name in inside) or "serialized_exported_program.json" in names:
        return FileKind.EXPORTED
    if "constants.pkl" in inside:
        return FileKind.TORCHSCRIPT
    if "data.pkl" in inside:
        return FileKind.PICKLE
    return None


def is_tar(path: Path) -> bool:
    """Whether a file is what ``torch-model-archiver --archive-format tgz`` writes, by its name and first bytes."""
    if not path.name.endswith((".tar.gz", ".tgz")):
        return False
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
