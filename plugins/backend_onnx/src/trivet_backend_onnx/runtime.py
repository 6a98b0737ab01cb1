"""ONNX Runtime itself: its import, its log, its errors, and the threads it shares.

Every other module of this package takes ``onnxruntime`` from here.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import io
import logging
import re
import threading
from typing import Any

try:
    import onnxruntime as ort
except ImportError as error:
    raise ImportError(
        f"ONNX Runtime cannot be imported ({error}); install it with: pip install 'trivet-backend-onnx[cpu]',"
        " or pip install 'trivet-backend-onnx[gpu]' for CUDA and TensorRT"
    ) from error

__all__ = [
    "bound_outputs",
    "describe",
    "forward_log",
    "load_cuda",
    "load_tensorrt",
    "ort",
    "use_global_thread_pool",
]

_log = logging.getLogger("onnxruntime")

# OrtLoggingLevel: verbose, info, warning, error, fatal.
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)

_ERROR = re.compile(r"\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", re.DOTALL)


def describe(error: Exception) -> str:
    """An exception of ONNX Runtime in Triton's words: ``onnx runtime error CODE: MESSAGE``."""
    match = _ERROR.match(str(error))
    if match is None:
        return f"onnx runtime error: {str(error).strip()}"
    return f"onnx runtime error {match[1]}: {match[2].strip()}"


def forward_log() -> None:
    """Send what ONNX Runtime logs to the Python logger ``onnxruntime``; by itself it writes to standard error.

    Older versions of ONNX Runtime cannot do that and are left as they are.
    """
    set_callback = getattr(ort, "set_default_logger_callback", None)
    if set_callback is None:
        return
    set_callback(_forward)
    # A message after the interpreter has ended would find nobody to take it.
    atexit.register(set_callback, None)


def _forward(severity: int, _category: str, logid: str, _location: str, message: str) -> None:
    _log.log(_LEVELS[severity], "%s: %s", logid, message.strip())


@functools.cache
def load_cuda() -> tuple[str, ...]:
    """Load CUDA and cuDNN from where pip put them, once; ONNX Runtime by itself looks into the system's folders only.

    Gives what ONNX Runtime complains about, line by line. It prints that, so what others print meanwhile is among it.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    return tuple(line for line in printed.getvalue().splitlines() if line.strip())


def load_tensorrt() -> None:
    """The same for TensorRT, whose package with the libraries loads them when it is imported."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt_libs")


def bound_outputs(binding: Any) -> list[Any]:
    """The outputs of the last run of an ``IOBinding``, as ``OrtValue`` objects that own what they show.

    ``IOBinding.get_outputs()`` gives views of the binding's own list in older versions (1.24 is one): they are invalid
    as soon as its outputs are bound anew.
    """
    outputs = binding.get_outputs_as_ortvaluevector()
    return [ort.OrtValue(outputs[index]) for index in range(len(outputs))]


_pool_lock = threading.Lock()
_pool_sizes: tuple[int, int] | None = None


def use_global_thread_pool(intra_op_threads: int, inter_op_threads: int) -> None:
    """Let all sessions of this process share one pair of thread pools; 0 threads means as many as there are cores.

    Source: Triton's ``--backend-config=onnxruntime,enable-global-threadpool=1``. Must come before the first session;
    another call with the same sizes does nothing. Raises :class:`RuntimeError` for other sizes, and with a version of
    ONNX Runtime whose Python interface has no such pools.
    """
    global _pool_sizes  # noqa: PLW0603 - the pools are the process's, as ONNX Runtime has it
    sizes = (intra_op_threads, inter_op_threads)
    set_sizes = getattr(ort, "set_global_thread_pool_sizes", None)
    if set_sizes is None:
        raise RuntimeError(f"the installed onnxruntime {ort.__version__} has no global thread pools; upgrade it")
    with _pool_lock:
        if _pool_sizes is None:
            set_sizes(*sizes)
            _pool_sizes = sizes
        elif _pool_sizes != sizes:
            raise RuntimeError(f"the global thread pools have {_pool_sizes} threads already and cannot become {sizes}")
