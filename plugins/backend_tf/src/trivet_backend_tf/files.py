"""Which file or folder of a model version is the model, and which of the two formats it has."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError, UnavailableError

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_LARGEST_MESSAGE = (1 << 31) - 1


class Format(enum.Enum):
    """How a model is stored. The values are Triton's platforms."""

    SAVED_MODEL = "tensorflow_savedmodel"
    GRAPHDEF = "tensorflow_graphdef"


_DEFAULT_NAMES = {Format.SAVED_MODEL: "model.savedmodel", Format.GRAPHDEF: "model.graphdef"}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The model of a version folder."""

    path: Path
    """The folder of a SavedModel, the file of a GraphDef."""
    format: Format


def find_model(context: ModelContext) -> ModelFile:
    """The model that ``default_model_filename`` and ``platform`` name, in their absence what is there.

    A SavedModel may also be the version's folder itself, as TensorFlow Serving has it. Raises
    :class:`~trivet.errors.UnavailableError` where there is none, and :class:`~trivet.errors.InvalidArgumentError` for
    another platform, and a file or folder that is not what the platform says.
    """
    platform = str(context.config.platform)
    if platform and platform not in {known.value for known in Format}:
        raise InvalidArgumentError(
            f"platform {platform} not supported for TensorFlow model '{context.name}', expected"
            f" {' or '.join(known.value for known in Format)}"
        )
    wanted = [Format(platform)] if platform else list(Format)
    named = context.default_model_filename
    for candidate in wanted:
        name = named or _DEFAULT_NAMES[candidate]
        path = context.version_path / name
        if path.name in SAVED_MODEL_FILES:
            path = path.parent
        if candidate is Format.SAVED_MODEL and not path.exists() and _is_saved_model(context.version_path):
            path = context.version_path
        if path.is_dir() if candidate is Format.SAVED_MODEL else path.is_file():
            return ModelFile(path, candidate)
        if platform and path.exists():
            raise InvalidArgumentError(
                f"unable to load model '{context.name}': '{path}' is a {'folder' if path.is_dir() else 'file'}, and"
                f" platform {platform} needs a {'file' if path.is_dir() else 'folder'}"
            )
    others = sorted(path.name for path in context.version_path.glob("*"))
    raise UnavailableError(
        f"unable to find '{context.version_path / (named or _DEFAULT_NAMES[wanted[0]])}' for model instance"
        f" '{context.name}'; set platform and default_model_filename, or rename it"
        f" ({'there is ' + ', '.join(others) if others else 'the folder is empty'})"
    )


def read_message(path: Path, model: str) -> bytes:
    """A file that holds one message of Protocol Buffers.

    Raises :class:`~trivet.errors.InvalidArgumentError`, before anything is read, for one of more than 2 GB.
    """
    size = path.stat().st_size
    if size > _LARGEST_MESSAGE:
        raise InvalidArgumentError(
            f"failed to load model '{model}': '{path.name}' has {size:,} bytes, and no model of TensorFlow has more"
            f" than {_LARGEST_MESSAGE:,} in this file"
        )
    return path.read_bytes()


def _is_saved_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SAVED_MODEL_FILES)
