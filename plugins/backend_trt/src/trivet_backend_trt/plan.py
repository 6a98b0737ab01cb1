"""What a plan's file tells before anything is loaded: whether it is one, of which library, and of which version.

Source: the head of a plan as ``trtexec --getPlanVersionOnly`` reads it (NVIDIA/TensorRT, ``sampleEngines.cpp``): a tag
of four bytes, a number for the layout, and at byte 24 four bytes of version. Plans of TensorRT for RTX have the same
head with another tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError, UnavailableError

DEFAULT_FILENAME = "model.plan"

_HEAD = 28
_VERSION = slice(24, 28)
_KINDS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_LAYOUT = 0
"""The only one so far."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan's file and what its head says."""

    path: Path
    kind: str
    """``"tensorrt"`` or ``"tensorrt_rtx"``: the module that builds such plans."""
    version: tuple[int, ...] | None
    """Of the library that built it; ``None`` where the head has a layout that is not known."""

    @property
    def built_by(self) -> str:
        """For people: ``TensorRT 10.3.0.26``."""
        name = "TensorRT for RTX" if self.kind == "tensorrt_rtx" else "TensorRT"
        return f"{name} {'.'.join(map(str, self.version))}" if self.version else f"a newer {name}"


def read_head(path: Path) -> Plan:
    """Raises :class:`~trivet.errors.InvalidArgumentError` for a file that is no plan."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    kind = _KINDS.get(head[:4])
    if kind is None or len(head) < _HEAD:
        raise InvalidArgumentError(
            f"'{path.name}' is no TensorRT plan: it is damaged, or something else (a Git LFS pointer? an ONNX model,"
            " which `trivet trt build` makes a plan of?)"
        )
    readable = int.from_bytes(head[4:8], "little") == _LAYOUT
    return Plan(path, kind, tuple(head[_VERSION]) if readable else None)


def find_plan(context: ModelContext, compute_capability: str | None) -> Plan:
    """The plan of a model version: that of ``cc_model_filenames`` for the GPU, else ``default_model_filename``.

    Raises :class:`~trivet.errors.UnavailableError` where it is not there, and what :func:`read_head` raises.
    """
    config = context.config
    filename = config.cc_model_filenames.get(compute_capability or "") or context.default_model_filename
    path = context.version_path / (filename or DEFAULT_FILENAME)
    if not path.is_file():
        others = sorted(other.name for other in context.version_path.iterdir()) if context.version_path.is_dir() else []
        raise UnavailableError(
            f"unable to find '{path}' for model '{context.name}'; set default_model_filename or rename the file"
            f" ({'there is ' + ', '.join(others) if others else 'the folder is empty'})"
        )
    try:
        return read_head(path)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"failed to load model '{context.name}': {error}") from error
