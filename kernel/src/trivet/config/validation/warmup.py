"""Checks of ``model_warmup``: would the server's own first requests be good ones?"""

from __future__ import annotations

from collections.abc import Iterator

from trivet.config.model_config_pb2 import DataType, ModelConfig, ModelWarmup
from trivet.config.validation.problem import Problem


def warmup_problems(config: ModelConfig) -> Iterator[Problem]:
    """What is wrong with each sample, in the words that a wrong request gets.

    Samples of batch size 0 are skipped, as Triton skips them.
    """
    for index, sample in enumerate(config.model_warmup):
        if sample.batch_size:
            for field, message in _sample_problems(config, sample):
                yield Problem(f"model_warmup[{index}].{field}", f"warmup sample '{sample.name}': {message}")


def _sample_problems(config: ModelConfig, sample: ModelWarmup) -> Iterator[tuple[str, str]]:
    if sample.batch_size > max(config.max_batch_size, 1):
        yield (
            "batch_size",
            f"batch size {sample.batch_size} for '{config.name}', max allowed is {config.max_batch_size}",
        )
    inputs = {tensor.name: tensor for tensor in config.input}
    for name in sorted(sample.inputs):
        given, field = sample.inputs[name], f"inputs['{name}']"
        if given.WhichOneof("input_data_type") is None:
            yield field, f"warmup setting expects input '{name}' to have input_data_type set"
        if any(dim < 0 for dim in given.dims):
            yield (
                f"{field}.dims",
                f"warmup setting expects all variable-size dimensions are specified for input '{name}'",
            )
        declared = inputs.get(name)
        if declared is None:
            # What a scheduler feeds by itself, or whatever else the model takes: only the model can tell.
            continue
        if given.data_type != declared.data_type:
            message = (
                f"inference input '{name}' data-type is '{_name(given.data_type)}', but model '{config.name}' expects"
                f" '{_name(declared.data_type)}'"
            )
            yield f"{field}.data_type", message
        fits = len(given.dims) == len(declared.dims) and all(
            want in (-1, have) for want, have in zip(declared.dims, given.dims, strict=True)
        )
        if not fits and all(dim >= 0 for dim in given.dims):
            message = (
                f"unexpected shape for input '{name}' for model '{config.name}'. Expected {list(declared.dims)}, got"
                f" {list(given.dims)}."
            )
            yield f"{field}.dims", message
    missing = [name for name, tensor in inputs.items() if not tensor.optional and name not in sample.inputs]
    if missing:
        yield "inputs", f"missing required input(s) {missing} of model '{config.name}'"


def _name(value: int) -> str:
    """The protocol's name of a datatype; without the table in ``trivet.datatypes``, which would import numpy."""
    name = DataType.Name(value).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
