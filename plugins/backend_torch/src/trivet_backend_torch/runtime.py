"""PyTorch itself: its import, its errors, and what of it belongs to the whole process.

Every other module of this package takes ``torch`` from here.
"""

from __future__ import annotations

import logging
import threading
import warnings
from typing import Any

from trivet.errors import InternalError, ResourceExhaustedError, TrivetError, message_of

try:
    import torch
except ImportError as error:
    raise ImportError(
        f"PyTorch cannot be imported ({error}); install it with: pip install 'trivet-backend-torch[cpu]', or"
        " pip install 'trivet-backend-torch[gpu]' for CUDA"
    ) from error

__all__ = ["DEFAULT_THREADS", "describe", "execute_failure", "set_once", "torch"]

# Users serve the TorchScript files that they have; its deprecation is for those who write new ones.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)

DEFAULT_THREADS: int = torch.get_num_threads()
"""Threads inside an operator where nobody says otherwise: PyTorch's choice, before any model changed it."""

_lock = threading.Lock()
_process_settings: dict[str, tuple[Any, str]] = {}


def describe(error: BaseException) -> str:
    """The message of an exception of PyTorch.

    What the TorchScript interpreter raises carries the model's source with it and says in the last line what is wrong.
    """
    text = message_of(error).strip()
    if "TorchScript interpreter" in text:
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip()
    if isinstance(error, KeyError):
        return f"KeyError: {text}"  # whose text is the key alone
    return text or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether host or device had no more memory: for tensors, or for what CUDA and its libraries need themselves."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = message_of(error)
    return any(words in text for words in ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED"))


def execute_failure(error: Exception, model: str) -> TrivetError:
    """The error for the caller of a run that failed, in Triton's words."""
    kind = ResourceExhaustedError if is_out_of_memory(error) else InternalError
    return kind(f"PyTorch execute failure: {describe(error)} (model {model})")


def set_once(setting: str, value: Any, apply: Any, model: str, logger: logging.Logger) -> None:
    """Call ``apply(value)`` for a setting that PyTorch has once per process.

    As in Triton the first model that asks decides. A later one that wants another value is told in the log.
    """
    with _lock:
        if setting not in _process_settings:
            apply(value)
            _process_settings[setting] = (value, model)
            return
        decided, by = _process_settings[setting]
    if decided != value:
        logger.warning(
            "model '%s' sets %s to %s, which has no effect: PyTorch has one such setting per process, and model '%s'"
            " set it to %s",
            model,
            setting,
            value,
            by,
            decided,
        )
