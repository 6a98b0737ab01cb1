"""The settings of a model, read from ``parameters`` and ``optimization`` of its configuration.

Source: README of Triton's tensorflow_backend, "Parameters" and "Command-line Options". Each parameter can also be given
for all models by ``--backend-config=tensorflow,NAME=VALUE``; the model's own value wins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError
from trivet.parameters import Parameters, warn_of_similar
from trivet.signatures import DEFAULT_MAX_BATCH_SIZE

_PARAMETERS = (
    "TF_NUM_INTRA_THREADS",
    "TF_NUM_INTER_THREADS",
    "TF_USE_PER_SESSION_THREADS",
    "TF_GRAPH_TAG",
    "TF_SIGNATURE_DEF",
    "TF_INIT_OPS_FILE",
    "MAX_SESSION_SHARE_COUNT",
)
_BACKEND_OPTIONS = (
    *_PARAMETERS,
    "allow-soft-placement",
    "default-max-batch-size",
    "gpu-memory-fraction",
    "version",
)
_DEFAULT_TAGS = frozenset(("serve",))
_MAX_THREADS = 4096
_MAX_SHARE = 2**31 - 1

TENSORRT = "tensorrt"
GPU_IO = "gpu_io"
AUTO_MIXED_PRECISION = "auto_mixed_precision"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to load and run one model."""

    intra_op_threads: int = 0
    """Threads inside an operator; 0: TensorFlow's choice."""
    inter_op_threads: int = 0
    """Operators side by side; 0: TensorFlow's choice. 1: one after the other, on the instance's own thread."""
    per_session_threads: bool = False
    """Whether each session has threads across operators of its own."""
    tags: frozenset[str] = _DEFAULT_TAGS
    """Of the graph in a SavedModel."""
    signature: str = ""
    """Of a SavedModel; "": ``serving_default``, or the one that there is."""
    init_ops_file: str = ""
    """JSON file with the operators that a GraphDef is initialized by."""
    session_share_count: int = 1
    """How many instances on one device share a session."""
    soft_placement: bool = True
    """Let the CPU do what the GPU cannot."""
    gpu_memory_fraction: float = 0.0
    """Of a GPU's memory, taken at once; 0: as much as is needed, growing."""
    jit_level: int = 0
    """Triton's ``optimization.graph.level``: -1 no XLA, 0 TensorFlow's choice, 1 and more: XLA."""
    accelerators: frozenset[str] = frozenset()
    """Names of GPU execution accelerators."""
    default_max_batch_size: int = DEFAULT_MAX_BATCH_SIZE

    @classmethod
    def read(cls, context: ModelContext) -> Settings:
        """Read and check them. Raises :class:`~trivet.errors.InvalidArgumentError` naming parameter and value."""
        p = Parameters.of_model(context)
        options = Parameters.of_backend(context, "tensorflow")
        if options.text("version") not in (None, "2"):
            raise options.bad("version", "2: there is no TensorFlow 1 for this Python, and 2 runs its models")
        tags = p.text("TF_GRAPH_TAG")
        return cls(
            intra_op_threads=p.integer("TF_NUM_INTRA_THREADS", 0, _MAX_THREADS),
            inter_op_threads=p.integer("TF_NUM_INTER_THREADS", 0, _MAX_THREADS),
            per_session_threads=p.boolean("TF_USE_PER_SESSION_THREADS") or False,
            tags=frozenset(tags.split(",")) if tags else _DEFAULT_TAGS,
            signature=p.text("TF_SIGNATURE_DEF") or "",
            init_ops_file=p.text("TF_INIT_OPS_FILE") or "",
            session_share_count=p.integer("MAX_SESSION_SHARE_COUNT", 1, _MAX_SHARE, minimum=1),
            soft_placement=options.boolean("allow-soft-placement") is not False,
            gpu_memory_fraction=options.fraction("gpu-memory-fraction", 0.0),
            jit_level=int(context.config.optimization.graph.level),
            accelerators=_accelerators(context),
            default_max_batch_size=options.integer("default-max-batch-size", DEFAULT_MAX_BATCH_SIZE),
        )


def _accelerators(context: ModelContext) -> frozenset[str]:
    """The names of those for a GPU. The messages are Triton's."""
    wanted = context.config.optimization.execution_accelerators
    if wanted.cpu_execution_accelerator:
        raise InvalidArgumentError(
            f"unable to load model '{context.name}', CPU Execution Accelerator is not supported in TensorFlow backend"
        )
    names = [str(accelerator.name) for accelerator in wanted.gpu_execution_accelerator]
    for name in names:
        if name == TENSORRT:
            raise InvalidArgumentError(
                f"unable to load model '{context.name}', execution accelerator 'tensorrt' is requested, and TensorFlow"
                " has no TF-TRT since version 2.18: leave it out, or convert the model to ONNX or a TensorRT plan"
            )
        if name not in (GPU_IO, AUTO_MIXED_PRECISION):
            raise InvalidArgumentError(
                f"unable to load model '{context.name}', unknown Execution Accelerator '{name}' is requested, expected"
                f" {AUTO_MIXED_PRECISION} or {GPU_IO}"
            )
    return frozenset(names)


def warn_of_unused(context: ModelContext, logger: logging.Logger, *, graphdef: bool) -> None:
    """Name what has no effect."""
    warn_of_similar(f"model '{context.name}'", context.parameters, _PARAMETERS, logger)
    warn_of_similar("--backend-config=tensorflow", context.backend_options, _BACKEND_OPTIONS, logger)
    of_saved_models = ("TF_GRAPH_TAG", "TF_SIGNATURE_DEF")
    for name in of_saved_models if graphdef else ("TF_INIT_OPS_FILE",):
        if name in context.parameters:
            logger.warning(
                "model '%s' sets parameter '%s', which has no effect: it is for %s",
                context.name,
                name,
                "SavedModels, and this is a GraphDef" if graphdef else "GraphDefs; a SavedModel says itself",
            )
