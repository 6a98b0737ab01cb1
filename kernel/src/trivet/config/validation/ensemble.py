"""Checks of ``ensemble_scheduling``: is the graph of models connected, and is every tensor made once and used?

What needs the configurations of the models that it is made of is checked by
:mod:`trivet.config.validation.ensemble_graph`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trivet.config.model_config_pb2 import ModelConfig
from trivet.config.validation.problem import Problem

ENSEMBLE_PLATFORM = "ensemble"


def ensemble_problems(config: ModelConfig) -> Iterator[Problem]:
    """What is wrong with an ensemble; nothing for other models."""
    name = config.name
    if not config.HasField("ensemble_scheduling"):
        if config.platform == ENSEMBLE_PLATFORM:
            yield Problem(
                "ensemble_scheduling",
                f"ensemble scheduling must be set for ensemble {name} whose platform is {ENSEMBLE_PLATFORM}",
            )
        return
    if config.platform != ENSEMBLE_PLATFORM:
        yield Problem(
            "platform",
            f"ensemble scheduling cannot be set for model '{name}' whose platform is not {ENSEMBLE_PLATFORM}",
        )
    if config.instance_group:
        yield Problem("instance_group", f"instance group should not be specified for ensemble '{name}'")
    if config.HasField("optimization"):
        yield Problem("optimization", f"optimization should not be specified for ensemble '{name}'")
    if config.model_warmup:
        yield Problem("model_warmup", f"model_warmup can not be specified for ensemble '{name}'")
    if not config.ensemble_scheduling.step:
        yield Problem("ensemble_scheduling.step", f"must specify 'step' for ensemble '{name}'")
        return
    incomplete = list(_step_problems(config))
    yield from incomplete
    if not incomplete:
        yield from _flow_problems(config)


def _step_problems(config: ModelConfig) -> Iterator[Problem]:
    name = config.name
    written: set[str] = set()
    for index, step in enumerate(config.ensemble_scheduling.step):
        field = f"ensemble_scheduling.step[{index}]"
        for part in ("model_name", "input_map", "output_map"):
            if not getattr(step, part):
                yield Problem(f"{field}.{part}", f"must specify '{part}' in step {index} of ensemble '{name}'")
        for tensor in sorted(step.output_map.values()):
            if tensor in written:
                yield Problem(
                    f"{field}.output_map",
                    f"ensemble tensor '{tensor}' can appear in an output map only once for ensemble '{name}' step"
                    f" {index}",
                )
            written.add(tensor)


def _flow_problems(config: ModelConfig) -> Iterator[Problem]:
    """Follow the data from the ensemble's inputs, and name the tensors that it never reaches or that lead nowhere."""
    name = config.name
    sources: dict[str, set[str]] = {}  # tensor -> the tensors that the step which writes it reads
    read: set[str] = set()
    for step in config.ensemble_scheduling.step:
        needed = set(step.input_map.values())
        read |= needed
        for tensor in step.output_map.values():
            sources[tensor] = needed
    tensors = read | sources.keys()
    inputs = [tensor.name for tensor in config.input]
    outputs = [tensor.name for tensor in config.output]
    for index, tensor in enumerate(inputs):
        if tensor not in tensors:
            yield Problem(f"input[{index}].name", f"ensemble input '{tensor}' for ensemble '{name}' is not used")
    ready = _ready_tensors(set(inputs), sources)
    for index, tensor in enumerate(outputs):
        if tensor not in tensors:
            yield Problem(f"output[{index}].name", f"ensemble output '{tensor}' for ensemble '{name}' is not used")
        elif tensor not in ready:
            message = f"output '{tensor}' for ensemble '{name}' is not written"
            cause = _unconnected_cause(tensor, sources, ready)
            if cause != tensor:
                message += f": at least one of its depending tensors, '{cause}', is not connected"
            yield Problem(f"output[{index}].name", message)
    for tensor in sorted(tensors - set(outputs)):
        if tensor not in ready or tensor not in read:
            yield Problem("ensemble_scheduling.step", f"ensemble tensor '{tensor}' is unused in ensemble '{name}'")


def _ready_tensors(ready: set[str], sources: Mapping[str, set[str]]) -> set[str]:
    waiting = dict(sources)
    while reached := [tensor for tensor, needed in waiting.items() if needed <= ready]:
        ready = ready | set(reached)
        for tensor in reached:
            del waiting[tensor]
    return ready


def _unconnected_cause(tensor: str, sources: Mapping[str, set[str]], ready: set[str]) -> str:
    """The furthest tensor upstream that the data does not reach; steps may form a circle."""
    seen = {tensor}
    while upstream := sorted(sources.get(tensor, set()) - ready - seen):
        tensor = upstream[0]
        seen.add(tensor)
    return tensor
