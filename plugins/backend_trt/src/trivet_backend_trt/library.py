"""Which of TensorRT's Python modules loads a plan, and what of it belongs to the whole process: its log and plugins.

``tensorrt``, ``tensorrt_lean``, ``tensorrt_dispatch`` and ``tensorrt_rtx`` have one interface, of which this package
uses the names that versions 10 and 11 both have. They can be loaded side by side.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trivet.errors import InvalidArgumentError, UnavailableError

from trivet_backend_trt.plan import Plan
from trivet_backend_trt.settings import LIBRARY, Settings

logger = logging.getLogger("tensorrt")

MODULES = {
    "tensorrt": "pip install 'trivet-backend-trt[cu13]'",
    "tensorrt_lean": "pip install 'trivet-backend-trt[lean-cu13]'",
    "tensorrt_dispatch": "pip install tensorrt-dispatch-cu13",
    "tensorrt_rtx": "pip install 'trivet-backend-trt[rtx]'",
}
"""How to get each module."""

VERSION_COMPATIBLE_ONLY = ("tensorrt_lean", "tensorrt_dispatch")
"""Those that load no other plans of TensorRT."""

# What loads plans of a kind, best first.
_LOADERS = {"tensorrt": ("tensorrt", *VERSION_COMPATIBLE_ONLY), "tensorrt_rtx": ("tensorrt_rtx",)}


def choose(plan: Plan, settings: Settings, model: str) -> str:
    """The name of the module for a plan: what the parameter ``library`` says, else what is installed and fits.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a module that does not load such plans, and
    :class:`~trivet.errors.UnavailableError` with what to install where there is none.
    """
    loaders = _LOADERS[plan.kind]
    wanted = settings.library
    if wanted is not None:
        if wanted not in loaders:
            raise InvalidArgumentError(
                f"parameter '{LIBRARY}' of model '{model}' is '{wanted}', expected one of {', '.join(loaders)} for a"
                f" plan of {plan.built_by}"
            )
        loaders = (wanted,)
    found = next((name for name in loaders if importlib.util.find_spec(name) is not None), None)
    if found is None:
        raise UnavailableError(
            f"failed to load model '{model}': '{plan.path.name}' was built by {plan.built_by}, and"
            f" {' and '.join(loaders)} {'is' if len(loaders) == 1 else 'are'} not installed: {MODULES[loaders[0]]}"
        )
    return found


def load(name: str) -> Any:
    """Import a module. Raises :class:`~trivet.errors.UnavailableError` where its libraries are not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"{name} cannot be imported ({error}); install it with: {MODULES[name]}") from error


def compute_capabilities(trt: Any) -> dict[str, Any]:
    """The GPUs that TensorRT for RTX has plans for: by ``8.6`` and so on, and ``current`` for the one that is there."""
    return {
        "current" if name == "CURRENT" else f"{name[2:-1]}.{name[-1]}": member
        for name, member in trt.ComputeCapability.__members__.items()
        if name != "NONE"
    }


# By the name of a tensorrt.ILogger.Severity. What it tells of its work is for those who debug, its details for nobody.
_LEVELS = {"WARNING": logging.WARNING, "INFO": logging.DEBUG, "VERBOSE": logging.NOTSET}

_lock = threading.Lock()
_logs: dict[str, Any] = {}
_errors = threading.local()
_plugins: set[tuple[str, str]] = set()


def log_of(trt: Any) -> Any:
    """The one ``ILogger`` of a module, which keeps the first that it is given for the life of the process.

    What goes wrong is collected by :func:`collecting_errors` where that is in force on the thread, since it is then
    raised; all else goes to the logger ``tensorrt``.
    """
    with _lock:
        if trt.__name__ not in _logs:

            class Log(trt.ILogger):  # type: ignore[misc]
                def __init__(self) -> None:
                    trt.ILogger.__init__(self)

                def log(self, severity: Any, message: str) -> None:
                    _record(_LEVELS.get(severity.name, logging.ERROR), message)

            _logs[trt.__name__] = Log()
        return _logs[trt.__name__]


def _record(level: int, message: str) -> None:
    """On whatever thread TensorRT is on; an exception here would end the process."""
    collected: list[str] | None = getattr(_errors, "collected", None)
    if collected is not None and level == logging.ERROR:
        collected.append(message.strip())
    elif level:
        logger.log(level, "%s", message.strip())


@contextmanager
def collecting_errors() -> Iterator[list[str]]:
    """What TensorRT reports as errors on this thread goes into the list."""
    collected: list[str] = []
    outer = getattr(_errors, "collected", None)
    _errors.collected = collected
    try:
        yield collected
    finally:
        _errors.collected = outer


def reasons(collected: Sequence[str], otherwise: str) -> str:
    """Collected errors as one text; TensorRT often says the same twice."""
    return "; ".join(dict.fromkeys(collected)) or otherwise


def register_plugins(trt: Any, log: Any, paths: Sequence[str]) -> None:
    """Register TensorRT's own plugins, and those of the operator's libraries, once in a process.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a library that cannot be loaded.
    """
    with _lock:
        if hasattr(trt, "init_libnvinfer_plugins") and (trt.__name__, "") not in _plugins:
            trt.init_libnvinfer_plugins(log, "")
            _plugins.add((trt.__name__, ""))
        for path in paths:
            if (trt.__name__, path) not in _plugins:
                _register(trt, path)
                _plugins.add((trt.__name__, path))


def _register(trt: Any, path: str) -> None:
    try:
        # As Triton does: a library may register its plugins while it is loaded. Without a slash the loader would not
        # look in the current folder.
        loaded = ctypes.CDLL(str(Path(path).absolute()) if Path(path).is_file() else path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise InvalidArgumentError(f"unable to load custom library for TensorRT plugins: {error}") from error
    # Or offer them: then the registry asks. It answers nothing where they are registered already, which is well.
    if hasattr(loaded, "getCreators") or hasattr(loaded, "getPluginCreators"):
        with collecting_errors() as errors:
            if trt.get_plugin_registry().load_library(path) is None and errors:
                raise InvalidArgumentError(
                    f"unable to load custom library for TensorRT plugins: {path}: {reasons(errors, '')}"
                )
