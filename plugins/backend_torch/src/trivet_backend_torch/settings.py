"""The settings of a model, read from ``parameters`` of its configuration.

Source: README of Triton's pytorch_backend, "Parameters", and its PyTorch 2 models. Each can also be given for all
models by ``--backend-config=pytorch,NAME=VALUE``; the model's own value wins.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trivet.backend import ModelContext
from trivet.errors import InvalidArgumentError

_TRUE = ("true", "on", "1")
_FALSE = ("false", "off", "0")
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
)
ALLOW_UNPICKLING = "allow-unpickling"
DEFAULT_MAX_BATCH_SIZE_OPTION = "default-max-batch-size"
_BACKEND_OPTIONS = (*_PARAMETERS, DEFAULT_MAX_BATCH_SIZE_OPTION, ALLOW_UNPICKLING)

DEFAULT_MAX_BATCH_SIZE = 4


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
    allow_unpickling: bool = False
    default_max_batch_size: int = DEFAULT_MAX_BATCH_SIZE

    @classmethod
    def read(cls, context: ModelContext) -> Settings:
        """Read and check them. Raises :class:`~trivet.errors.InvalidArgumentError` naming parameter and value."""
        p = _Parameters(f"model '{context.name}'", {**context.backend_options, **context.parameters})
        options = _Parameters("--backend-config=pytorch", context.backend_options)
        allowed = context.backend_options.get(ALLOW_UNPICKLING, "").split(":")
        return cls(
            optimized_execution=not p.boolean("DISABLE_OPTIMIZED_EXECUTION", default=False),
            inference_mode=p.boolean("INFERENCE_MODE", default=True),
            cudnn=not p.boolean("DISABLE_CUDNN", default=False),
            weight_sharing=p.boolean("ENABLE_WEIGHT_SHARING", default=False),
            cache_cleaning=p.boolean("ENABLE_CACHE_CLEANING", default=False),
            tensor_fuser=p.optional_boolean("ENABLE_TENSOR_FUSER"),
            jit_profiling=p.optional_boolean("ENABLE_JIT_PROFILING"),
            jit_executor=p.optional_boolean("ENABLE_JIT_EXECUTOR"),
            intra_op_threads=p.integer("INTRA_OP_THREAD_COUNT") or p.integer("NUM_THREADS"),
            inter_op_threads=p.integer("INTER_OP_THREAD_COUNT") or p.integer("NUM_INTEROP_THREADS"),
            compile_options=_compile_options(p),
            model_class=p.values.get("MODEL_CLASS", ""),
            model_arguments=p.mapping("MODEL_ARGUMENTS") or {},
            reset_method=p.values.get("RESET_METHOD", ""),
            outputs_on_device=p.boolean("OUTPUTS_ON_DEVICE", default=False),
            # By name, and from the operator alone: whoever may write a model must not be able to allow it.
            allow_unpickling=context.name in allowed,
            default_max_batch_size=options.integer(DEFAULT_MAX_BATCH_SIZE_OPTION, DEFAULT_MAX_BATCH_SIZE),
        )


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Values by name, and readers of them. ``owner`` is whose they are, for the message."""

    owner: str
    values: Mapping[str, str]

    def bad(self, name: str, expected: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"parameter '{name}' of {self.owner} is '{self.values[name]}', expected {expected}")

    def optional_boolean(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is None:
            return None
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise self.bad(name, f"one of {', '.join((*_TRUE, *_FALSE))}")

    def boolean(self, name: str, *, default: bool) -> bool:
        value = self.optional_boolean(name)
        return default if value is None else value

    def integer(self, name: str, default: int = 0) -> int:
        value = self.values.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > _MAX_THREADS:
            raise self.bad(name, f"an integer from 0 to {_MAX_THREADS}")
        return int(value)

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.values.get(name)
        if value is None:
            return None
        try:
            loaded = json.loads(value)
        except ValueError:
            loaded = None
        if not isinstance(loaded, dict):
            raise self.bad(name, "a JSON object")
        return loaded


def _compile_options(p: _Parameters) -> Mapping[str, Any] | None:
    """Triton compiles every PyTorch 2 model. Here that is by option; giving ``torch.compile`` arguments is one."""
    wanted = p.optional_boolean("TORCH_COMPILE")
    options = p.mapping("TORCH_COMPILE_OPTIONAL_PARAMETERS")
    if options is not None and "model" in options:
        raise p.bad("TORCH_COMPILE_OPTIONAL_PARAMETERS", "arguments of torch.compile other than 'model'")
    # Triton's documentation writes {"disable": "true"}.
    if options is not None and str(options.get("disable", False)).lower() in _TRUE:
        return None
    if wanted is False or (wanted is None and options is None):
        return None
    return {key: value for key, value in (options or {}).items() if key != "disable"}


def warn_of_unused(context: ModelContext, logger: logging.Logger) -> None:
    """Name the parameters that have no effect: parameters are free-form, so an unknown one is no error."""
    for owner, given, known in (
        (f"model '{context.name}'", context.parameters, _PARAMETERS),
        ("--backend-config=pytorch", context.backend_options, _BACKEND_OPTIONS),
    ):
        for name in given:
            if name not in known and (close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)):
                logger.warning("%s sets parameter '%s', which has no effect; did you mean '%s'?", owner, name, close[0])
    if "ENABLE_NVFUSER" in context.parameters:
        logger.warning("model '%s' sets ENABLE_NVFUSER, which has no effect: PyTorch has no nvFuser", context.name)
