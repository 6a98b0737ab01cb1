"""What a model can ask of the server it runs in.

Source: Triton's Python backend, "Model Loading API". Messages are Triton's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trivet.backend import ModelCaller
from trivet.errors import TrivetError

from trivet_backend_python import scope
from trivet_backend_python.pb_utils.errors import TritonModelException
from trivet_backend_python.scope import Phase, Scope

_FILE = "file:"


def get_model_dir() -> str:
    """The folder of the calling model's version, where its ``model.py`` is.

    Raises :class:`TritonModelException` outside of a model.
    """
    return str(_calling("get_model_dir").package.context.version_path)


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether another model of this server (that version, or any) can be called now.

    Raises :class:`TritonModelException` for a version that is no number, and where no server runs.
    """
    _, caller = _caller("is_model_ready")
    if model_version and not model_version.isdecimal():
        raise TritonModelException(
            "Failed to check model readiness: failed to get model version from specified version string"
            f" '{model_version}', version should be an integral value > 0"
        )
    return caller.is_ready(model_name, model_version)


def load_model(model_name: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
    """Load or reload another model, and wait until it is ready. Needs explicit model control.

    ``config`` is its configuration as JSON in place of the repository's; ``files`` (``file:`` and a path in the model's
    folder, to content) replace its folder and need ``config``. Raises :class:`TritonModelException` where it cannot be
    loaded; what was loaded before then serves on.
    """
    content = {name.removeprefix(_FILE): data for name, data in (files or {}).items() if name.startswith(_FILE)}
    if len(content) != len(files or {}):
        wrong = next(name for name in files or () if not name.startswith(_FILE))
        raise TritonModelException(
            f"Failed to load model: failed to load '{model_name}': the name of file '{wrong}' must begin with '{_FILE}'"
        )
    _control(
        "load",
        model_name,
        lambda caller, loading: caller.load(model_name, config=config or None, files=content or None, loading=loading),
    )


def unload_model(model_name: str, unload_dependents: bool = False) -> None:
    """Take another model out of service; what it executes is finished first. Needs explicit model control.

    ``unload_dependents`` does the same with the models that only this one needed. A model that is not there is nothing
    to unload. Raises :class:`TritonModelException` where models are not controlled explicitly.
    """
    _control(
        "unload",
        model_name,
        lambda caller, loading: caller.unload(model_name, unload_dependents=unload_dependents, loading=loading),
    )


def _control(what: str, model_name: str, act: Callable[[ModelCaller, str | None], None]) -> None:
    if not isinstance(model_name, str):
        raise TypeError(f"{what}_model() takes the name of a model, got {type(model_name).__name__}")
    place, caller = _caller(f"{what}_model")
    if place.phase is Phase.IMPORT:
        # Only so many models are imported at a time: they could all wait for others to be.
        raise TritonModelException(
            f"{what}_model('{model_name}') works in initialize, execute and finalize, but not while a model's file is"
            " imported or its auto_complete_config runs"
        )
    try:
        act(caller, place.package.context.name if place.phase is Phase.INITIALIZE else None)
    except TrivetError as error:
        raise TritonModelException(f"Failed to {what} model: {error.message}") from error


def _caller(function: str) -> tuple[Scope, ModelCaller]:
    place = _calling(function)
    caller = place.package.call
    if caller is None:
        raise TritonModelException(f"{function}() needs a running server; the model is only being checked")
    return place, caller


def _calling(function: str) -> Scope:
    place = scope.find()
    if place is None:
        raise TritonModelException(f"{function}() works only in the code of a model that the server runs")
    return place
