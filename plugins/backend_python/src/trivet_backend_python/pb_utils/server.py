"""What a model can ask of the server it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar

from trivet_backend_python.modules import ModelPackage, calling_model
from trivet_backend_python.pb_utils.errors import TritonModelException, unsupported


def get_model_dir() -> str:
    """The folder of the calling model's version, where its ``model.py`` is.

    Raises :class:`TritonModelException` outside of a model.
    """
    return str(_calling("get_model_dir").context.version_path)


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether another model of this server (that version, or any) can be called now.

    Raises :class:`TritonModelException` where no server runs.
    """
    caller = _calling("is_model_ready").call
    if caller is None:
        raise TritonModelException("is_model_ready() needs a running server; the model is only being checked")
    return caller.is_ready(model_name, model_version)


def load_model(model_name: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:  # noqa: ARG001
    """Not there yet: raises :class:`TritonModelException`."""
    raise unsupported(f"load_model('{model_name}')")


def unload_model(model_name: str, unload_dependents: bool = False) -> None:  # noqa: ARG001
    """Not there yet: raises :class:`TritonModelException`."""
    raise unsupported(f"unload_model('{model_name}')")


class MetricKind(IntEnum):
    """Kinds of metric, with Triton's numbers."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class MetricFamily:
    """A model's own metrics. Not there yet: making one raises :class:`TritonModelException`."""

    COUNTER: ClassVar = MetricKind.COUNTER
    GAUGE: ClassVar = MetricKind.GAUGE
    HISTOGRAM: ClassVar = MetricKind.HISTOGRAM

    def __init__(self, name: str, description: str, kind: Any) -> None:
        raise unsupported(f"MetricFamily (here '{name}')")


def _calling(function: str) -> ModelPackage:
    model = calling_model()
    if model is None:
        raise TritonModelException(f"{function}() works only in the code of a model that the server runs")
    return model
