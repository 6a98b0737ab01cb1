"""The settings of a model, read from ``parameters`` of its configuration.

Source: README of Triton's pytorch_backend, "Parameters", and its PyTorch 2 models. Each can also be given for all
models by ``--backend-config=pytorch,NAME=VALUE``; the model's own value wins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trivet.backend import ModelContext
from trivet.parameters import Parameters, warn_of_similar
from trivet.signatures import DEFAULT_MAX_BATCH_SIZE

_MAX_THREADS = 4096

# Triton's, and then ours.
_PARAMETERS = (
    "DISABLE_OPTIMIZED_EXECUTION",
    "INFERENCE_MODE",
    "DISABLE_CUDNN",
    "ENABLE_WEIGHT_SHARING",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_NVFUSER",
    "ENABLE_JIT_PROFILING",
    "ENABLE_JIT_EXECUTOR",
    "INTRA_OP_THREAD_COUNT",
    "INTER_OP_THREAD_COUNT",
    "NUM_THREADS",
    "NUM_INTEROP_THREADS",
    "TORCH_COMPILE_OPTIONAL_PARAMETERS",
    "TORCH_COMPILE",
    "MODEL_CLASS",
    "MODEL_ARGUMENTS",
    "RESET_METHOD",
    "OUTPUTS_ON_DEVICE",
    "CONTENT_TYPE",
)
ALLOW_UNPICKLING = "allow-unpickling"
DEFAULT_MAX_BATCH_SIZE_OPTION = "default-max-batch-size"
_BACKEND_OPTIONS = (*_PARAMETERS, DEFAULT_MAX_BATCH_SIZE_OPTION, ALLOW_UNPICKLING)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to load and run one model. ``None`` leaves a choice to PyTorch."""

    optimized_execution: bool = True
    """Of TorchScript's graph executor."""
    inference_mode: bool = True
    cudnn: bool = True
    weight_sharing: bool = False
    """Whether the instances on one device share one copy of the model."""
    cache_cleaning: bool = False
    """Give cached GPU memory back after each execution."""
    tensor_fuser: bool | None = None
    jit_profiling: bool | None = None
    jit_executor: bool | None = None
    intra_op_threads: int = 0
    """0: PyTorch's choice."""
    inter_op_threads: int = 0
    compile_options: Mapping[str, Any] | None = None
    """Arguments of ``torch.compile``; ``None``: the model is not compiled."""
    model_class: str = ""
    model_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that an eager model's class is constructed with."""
    reset_method: str = ""
    """Called on the model where a sequence begins."""
    outputs_on_device: bool = False
    content_type: str = ""
    """What a handler of TorchServe takes its text inputs to be, where a request does not say."""
    allow_unpickling: bool = False
    default_max_batch_size: int = DEFAULT_MAX_BATCH_SIZE

    @classmethod
    def read(cls, context: ModelContext) -> Settings:
        """Read and check them. Raises :class:`~trivet.errors.InvalidArgumentError` naming parameter and value."""
        p = Parameters.of_model(context)
        options = Parameters.of_backend(context, "pytorch")
        allowed = context.backend_options.get(ALLOW_UNPICKLING, "").split(":")
        return cls(
            optimized_execution=not p.boolean("DISABLE_OPTIMIZED_EXECUTION"),
            inference_mode=p.boolean("INFERENCE_MODE") is not False,
            cudnn=not p.boolean("DISABLE_CUDNN"),
            weight_sharing=p.boolean("ENABLE_WEIGHT_SHARING") or False,
            cache_cleaning=p.boolean("ENABLE_CACHE_CLEANING") or False,
            tensor_fuser=p.boolean("ENABLE_TENSOR_FUSER"),
            jit_profiling=p.boolean("ENABLE_JIT_PROFILING"),
            jit_executor=p.boolean("ENABLE_JIT_EXECUTOR"),
            intra_op_threads=_threads(p, "INTRA_OP_THREAD_COUNT", "NUM_THREADS"),
            inter_op_threads=_threads(p, "INTER_OP_THREAD_COUNT", "NUM_INTEROP_THREADS"),
            compile_options=_compile_options(p),
            model_class=p.values.get("MODEL_CLASS", ""),
            model_arguments=p.mapping("MODEL_ARGUMENTS") or {},
            reset_method=p.values.get("RESET_METHOD", ""),
            outputs_on_device=p.boolean("OUTPUTS_ON_DEVICE") or False,
            content_type=p.values.get("CONTENT_TYPE", ""),
            # By name, and from the operator alone: whoever may write a model must not be able to allow it.
            allow_unpickling=context.name in allowed,
            default_max_batch_size=options.integer(DEFAULT_MAX_BATCH_SIZE_OPTION, DEFAULT_MAX_BATCH_SIZE),
        )


def _threads(p: Parameters, *names: str) -> int:
    """The first of these parameters that is given and not 0."""
    return next((count for name in names if (count := p.integer(name, 0, _MAX_THREADS))), 0)


def _compile_options(p: Parameters) -> Mapping[str, Any] | None:
    """Triton compiles every PyTorch 2 model. Here that is by option; giving ``torch.compile`` arguments is one."""
    wanted = p.boolean("TORCH_COMPILE")
    options = p.mapping("TORCH_COMPILE_OPTIONAL_PARAMETERS")
    if options is not None and "model" in options:
        raise p.bad("TORCH_COMPILE_OPTIONAL_PARAMETERS", "arguments of torch.compile other than 'model'")
    # Triton's documentation writes {"disable": "true"}.
    if options is not None and str(options.get("disable", False)).lower() in ("true", "on", "1"):
        return None
    if wanted is False or (wanted is None and options is None):
        return None
    return {key: value for key, value in (options or {}).items() if key != "disable"}


def warn_of_unused(context: ModelContext, logger: logging.Logger) -> None:
    """Name the parameters that have no effect."""
    warn_of_similar(f"model '{context.name}'", context.parameters, _PARAMETERS, logger)
    warn_of_similar("--backend-config=pytorch", context.backend_options, _BACKEND_OPTIONS, logger)
    if "ENABLE_NVFUSER" in context.parameters:
        logger.warning("model '%s' sets ENABLE_NVFUSER, which has no effect: PyTorch has no nvFuser", context.name)
