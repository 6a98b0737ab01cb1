"""Checks of inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from trivet.config.model_config_pb2 import (
    TYPE_FP32,
    TYPE_INT32,
    TYPE_INVALID,
    BatchInput,
    BatchOutput,
    ModelConfig,
    ModelInput,
    ModelOutput,
)
from trivet.config.validation.problem import Problem

TENSORRT_PLATFORM = "tensorrt_plan"
"""Some fields mean something to TensorRT only."""

_DIMENSION = "must be integer >= 1, or -1 to indicate a variable-size dimension"


def tensor_problems(config: ModelConfig) -> Iterator[Problem]:
    """What is wrong with each input and output; at most one problem per tensor, as the next often follows from it."""
    yield from _repeated_names(config, "input", [tensor.name for tensor in config.input])
    for index, tensor in enumerate(config.input):
        problem = _tensor_problem(config, tensor, "input") or _format_problem(tensor)
        if problem:
            yield Problem(f"input[{index}].{problem[0]}", f"{problem[1]} for {config.name}")
    yield from _repeated_names(config, "output", [tensor.name for tensor in config.output])
    for index, output in enumerate(config.output):
        problem = _tensor_problem(config, output, "output")
        if problem:
            yield Problem(f"output[{index}].{problem[0]}", f"{problem[1]} for {config.name}")


def _repeated_names(config: ModelConfig, what: str, names: Sequence[str]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name and name in names[:index]:
            yield Problem(
                f"{what}[{index}].name", f"model {what} '{name}' is specified more than once for {config.name}"
            )


def _tensor_problem(config: ModelConfig, tensor: ModelInput | ModelOutput, what: str) -> tuple[str, str] | None:
    """Field and message of the first problem."""
    if not tensor.name:
        return "name", f"model {what} must specify 'name'"
    prefix = f"model {what} '{tensor.name}'"
    if tensor.data_type == TYPE_INVALID:
        return "data_type", f"{prefix} must specify 'data_type'"
    if not tensor.dims:
        return "dims", f"{prefix} must specify 'dims'"
    has_reshape = tensor.HasField("reshape")
    if has_reshape and not tensor.reshape.shape and config.max_batch_size == 0:
        return (
            "reshape",
            f"{prefix} cannot have empty reshape for non-batching model as scalar tensors are not supported",
        )
    if not _all_positive_or_variable(tensor.dims):
        return "dims", f"{prefix} dimension {_DIMENSION}"
    if has_reshape:
        problem = _reshape_problem(tensor.dims, tensor.reshape.shape)
        if problem:
            return "reshape.shape", f"{prefix} {problem}"
    if config.platform != TENSORRT_PLATFORM:
        if tensor.is_shape_tensor:
            return "is_shape_tensor", "shape tensors are only supported for TensorRT platform"
        if tensor.is_non_linear_format_io:
            return "is_non_linear_format_io", "Non-linear IO format is only supported for the TensorRT platform"
    elif tensor.is_non_linear_format_io and len(tensor.dims) != 3:
        return "is_non_linear_format_io", f"Non-linear IO format {what} requires 3 dims"
    return None


def _format_problem(tensor: ModelInput) -> tuple[str, str] | None:
    if tensor.format != ModelInput.FORMAT_NONE and len(tensor.dims) != 3:
        return "format", "model input NHWC/NCHW require 3 dims"
    return None


def _all_positive_or_variable(dims: Iterable[int]) -> bool:
    return all(dim >= 1 or dim == -1 for dim in dims)


def _reshape_problem(dims: Sequence[int], shape: Sequence[int]) -> str | None:
    """Whether every tensor of ``dims`` has one way of being seen as ``shape``.

    Each variable dimension stands for itself, so the fixed sizes between two of them must have the same product.
    """
    if not _all_positive_or_variable(shape):
        return f"reshape dimensions {_DIMENSION}"
    if (-1 in dims) != (-1 in shape):
        return "has different size for dims and reshape"
    ours, theirs = _products_between_variables(dims), _products_between_variables(shape)
    if len(ours) != len(theirs):
        return "has different number of variable-size dimensions for dims and reshape"
    if ours != theirs:
        return "has different size for dims and reshape"
    return None


def _products_between_variables(dims: Iterable[int]) -> list[int]:
    groups: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            groups.append([])
        else:
            groups[-1].append(dim)
    return [math.prod(group) for group in groups]


def batch_io_problems(config: ModelConfig) -> Iterator[Problem]:
    """What is wrong with ``batch_input`` and ``batch_output``; at most one problem each."""
    inputs = {tensor.name for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    for index, batch_input in enumerate(config.batch_input):
        problem = _source_problem("input", BatchInput.Kind.Name(batch_input.kind), batch_input.source_input, inputs)
        if batch_input.data_type not in (TYPE_INT32, TYPE_FP32) and (not problem or problem[0] != "kind"):
            problem = ("data_type", "batch input data type must be TYPE_INT32 or TYPE_FP32")
        if problem:
            field = "source_input" if problem[0] == "kind" else problem[0]
            yield Problem(f"batch_input[{index}].{field}", f"{problem[1]} for {config.name}")
    for index, batch_output in enumerate(config.batch_output):
        problem = _source_problem("output", BatchOutput.Kind.Name(batch_output.kind), batch_output.source_input, inputs)
        targets = list(batch_output.target_name)
        unknown = [name for name in targets if name not in outputs]
        repeated = [name for number, name in enumerate(targets) if name in targets[:number]]
        if not problem and unknown:
            problem = ("target_name", f"unknown target output name '{unknown[0]}'")
        elif not problem and repeated:
            problem = ("target_name", f"target output name '{repeated[0]}' can only be specified once")
        if problem:
            field = "source_input" if problem[0] == "kind" else problem[0]
            yield Problem(f"batch_output[{index}].{field}", f"{problem[1]} for {config.name}")


def _source_problem(what: str, kind: str, sources: Sequence[str], inputs: set[str]) -> tuple[str, str] | None:
    if len(sources) != 1:
        return "kind", f"batch {what} kind '{kind}' expects 1 source input, got {len(sources)}"
    if sources[0] not in inputs:
        return "source_input", f"unknown source input name '{sources[0]}'"
    return None
