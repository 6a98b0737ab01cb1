"""TensorFlow itself: its import, its log, its errors.

Every other module of this package takes ``tf`` from here, and the messages that ``tf`` does not have.
"""

from __future__ import annotations

import logging
import os

from trivet.errors import InternalError, InvalidArgumentError, ResourceExhaustedError, TrivetError

# Warnings and less of TensorFlow's C++ part, which logs to standard error and nowhere else. It reads this when it is
# loaded; whoever wants to see more sets it before the server starts.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

try:
    import tensorflow as tf
    from tensorflow.core.protobuf.config_pb2 import CallableOptions
    from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelMessage
except ImportError as error:
    raise ImportError(
        f"TensorFlow cannot be imported ({error}); install it with: pip install 'trivet-backend-tf[cpu]', or"
        " pip install 'trivet-backend-tf[gpu]' for CUDA"
    ) from error

__all__ = [
    "AssetFileDef",
    "CallableOptions",
    "SavedModelMessage",
    "describe",
    "dismantle",
    "execute_failure",
    "is_out_of_memory",
    "load_failure",
    "tf",
]

# What TensorFlow's Python part logs goes where everybody's goes, and not to standard error by a handler of its own.
_log = logging.getLogger("tensorflow")
for _handler in list(_log.handlers):
    _log.removeHandler(_handler)

try:
    from tensorflow.python.framework.ops import dismantle_graph as dismantle
except ImportError:  # pragma: no cover - then the garbage collector has it to do

    def dismantle(graph: object) -> None:
        """Do nothing: this version of TensorFlow cannot."""


def describe(error: BaseException) -> str:
    """The message of an exception of TensorFlow, without the pointers to nodes that follow it and the hint on OOM.

    A function of Python in the graph (``tf.numpy_function``) that fails adds its traceback, which is no caller's.
    """
    text, _, _ = _text(error).partition("Traceback (most recent call last)")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("[[{{", "Hint:"))]
    return " ".join(line.strip() for line in lines) or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether host or device had no more memory."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)) or "bad_alloc" in _text(error)


def _text(error: BaseException) -> str:
    """All that an exception says. Converted to text, one of TensorFlow's needs its graph, which is gone by then."""
    return str(error.message if isinstance(error, tf.errors.OpError) else error)


def execute_failure(error: Exception, model: str) -> TrivetError:
    """The error for the caller of a run that failed: TensorFlow's message, as in Triton, and whose model it is."""
    kind = ResourceExhaustedError if is_out_of_memory(error) else InternalError
    why = describe(error)
    if "Could not find callback" in why:
        why += " -- it is code of tf.py_function or tf.numpy_function, which no file holds: save the model without it"
    return kind(f"{why} (model {model})")


def load_failure(error: Exception, model: str, written_by: str = "") -> TrivetError:
    """The error for a model that TensorFlow refuses. ``written_by`` is the version that wrote it, where it says so."""
    message = f"failed to load model '{model}': {describe(error)}"
    if is_out_of_memory(error):
        return ResourceExhaustedError(message)
    return InvalidArgumentError(message + _advice(error, written_by))


def _advice(error: Exception, written_by: str) -> str:
    """How to mend what most often is wrong."""
    text = _text(error)
    if "Op type not registered" in text or "consumer version" in text or "NodeDef mentions attr" in text:
        by = f"it was written by TensorFlow {written_by}, and " if written_by else ""
        return (
            f" -- {by}this is TensorFlow {tf.__version__}: upgrade it, or save the model without operators that this"
            " version does not have"
        )
    if isinstance(error, (tf.errors.DataLossError, tf.errors.OutOfRangeError)):
        return " -- the model's files are damaged or incomplete"
    return ""
