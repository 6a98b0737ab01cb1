"""Checks of an ensemble against the models that it is made of, once those are loaded and their configurations complete.

Wording and rules are Triton's: datatypes must agree; shapes must, with the batch dimension or without, where -1 fits
anything and is looked at again with each request; an ensemble is decoupled exactly when one of its models is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from trivet.config.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput
from trivet.config.validation.problem import Problem


class EnsembleGraph(NamedTuple):
    """What follows from the members' configurations."""

    problems: Sequence[Problem]
    decoupled: bool


class _Kind(NamedTuple):
    """What a tensor of the ensemble is, as told by the model that names it first."""

    model: str
    data_type: int
    dims: tuple[int, ...]
    full_dims: tuple[int, ...]


def check_graph(config: ModelConfig, members: Mapping[str, ModelConfig]) -> EnsembleGraph:
    """Compare the steps of an ensemble, which passed the checks of itself, with its members' complete configurations.

    ``members`` has every model that a step names.
    """
    problems = list(_mapping_problems(config, members))
    if problems:
        return EnsembleGraph(problems, decoupled=False)
    return _decoupling(config, members)


def _mapping_problems(config: ModelConfig, members: Mapping[str, ModelConfig]) -> Iterator[Problem]:
    ensemble = config.name
    kinds: dict[str, _Kind] = {}
    own: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    for edge in own:
        dims = edge.reshape.shape if edge.HasField("reshape") else edge.dims
        kinds.setdefault(edge.name, _kind(config, edge.data_type, dims))
    for index, step in enumerate(config.ensemble_scheduling.step):
        field = f"ensemble_scheduling.step[{index}]"
        member = members[step.model_name]
        where = f"in ensemble {ensemble}"
        if 0 < member.max_batch_size < config.max_batch_size:
            yield Problem(
                f"{field}.model_name",
                f"ensemble {ensemble} allows maximum batch size {config.max_batch_size}, but it contains model"
                f" {step.model_name} which only allows maximum batch size to be {member.max_batch_size}",
            )
        inputs = {tensor.name: tensor for tensor in member.input}
        for name, tensor in sorted(step.input_map.items()):
            if name not in inputs:
                yield Problem(
                    f"{field}.input_map",
                    f"{where}, ensemble tensor {tensor} is mapping to non-existing input {name} in model"
                    f" {step.model_name}",
                )
                continue
            kind = _kind(member, inputs[name].data_type, inputs[name].dims)
            yield from _compare(f"{field}.input_map", where, tensor, kinds.setdefault(tensor, kind), kind)
        for name, declared in inputs.items():
            if name not in step.input_map and not declared.optional:
                yield Problem(
                    f"{field}.input_map",
                    f"{where}, input {name} in model {step.model_name} is not mapped to any ensemble tensors",
                )
        outputs = {tensor.name: tensor for tensor in member.output}
        for name, tensor in sorted(step.output_map.items()):
            if name not in outputs:
                yield Problem(
                    f"{field}.output_map",
                    f"{where}, ensemble tensor {tensor} is mapped from non-existing output {name} in model"
                    f" {step.model_name}",
                )
                continue
            kind = _kind(member, outputs[name].data_type, outputs[name].dims)
            yield from _compare(f"{field}.output_map", where, tensor, kinds.setdefault(tensor, kind), kind)


def _kind(config: ModelConfig, data_type: int, dims: Sequence[int]) -> _Kind:
    batch = (-1,) if config.max_batch_size > 0 else ()
    return _Kind(config.name, data_type, tuple(dims), (*batch, *dims))


def _compare(field: str, where: str, tensor: str, first: _Kind, second: _Kind) -> Iterator[Problem]:
    if first.data_type != second.data_type:
        yield Problem(
            field,
            f"{where}, ensemble tensor {tensor}: inconsistent data type: {DataType.Name(first.data_type)} is inferred"
            f" from model {first.model} while {DataType.Name(second.data_type)} is inferred from model {second.model}",
        )
    # A model without batches may take the whole batch as one tensor: then the shapes agree with the batch dimension.
    elif not _fits(first.dims, second.dims) and not _fits(first.full_dims, second.full_dims):
        yield Problem(
            field,
            f"{where}, ensemble tensor {tensor}: inconsistent shape: {_shown(first.full_dims)} is inferred from model"
            f" {first.model} while {_shown(second.full_dims)} is inferred from model {second.model}",
        )


def _fits(first: Sequence[int], second: Sequence[int]) -> bool:
    return len(first) == len(second) and all(a == b or -1 in (a, b) for a, b in zip(first, second, strict=True))


def _shown(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"


def _decoupling(config: ModelConfig, members: Mapping[str, ModelConfig]) -> EnsembleGraph:
    """Follow which decoupled step each tensor's values come from; a step cannot bring together those of several."""
    message = (
        f"in ensemble {config.name}, step of model '{{}}' receives inputs originated from different decoupled models"
    )
    sources: dict[str, int | None] = {tensor.name: None for tensor in config.input}
    waiting = dict(enumerate(config.ensemble_scheduling.step))
    decoupled = False
    problems: list[Problem] = []
    while ready := [index for index, step in waiting.items() if all(t in sources for t in step.input_map.values())]:
        for index in ready:
            step = waiting.pop(index)
            origins = {sources[tensor] for tensor in step.input_map.values()}
            if len(origins) > 1:
                problems.append(
                    Problem(f"ensemble_scheduling.step[{index}].input_map", message.format(step.model_name))
                )
            origin = next(iter(origins))
            if members[step.model_name].model_transaction_policy.decoupled:
                origin, decoupled = index, True
            for tensor in step.output_map.values():
                sources[tensor] = origin
    if len({sources[tensor.name] for tensor in config.output if tensor.name in sources}) > 1:
        problems.append(Problem("output", message.format(config.name)))
    return EnsembleGraph(problems, decoupled)
