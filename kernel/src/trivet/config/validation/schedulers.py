"""Checks of ``dynamic_batching`` and ``sequence_batching``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trivet.config.model_config_pb2 import (
    TYPE_INT32,
    TYPE_INT64,
    TYPE_STRING,
    TYPE_UINT32,
    TYPE_UINT64,
    ModelConfig,
    ModelQueuePolicy,
    ModelSequenceBatching,
)
from trivet.config.validation.problem import Problem

_Control = ModelSequenceBatching.Control
_VALUE_FIELDS = ("int32_false_true", "fp32_false_true", "bool_false_true")


def dynamic_batching_problems(config: ModelConfig) -> Iterator[Problem]:
    """Preferred sizes, priorities, and queue policies against ``preserve_ordering``."""
    if not config.HasField("dynamic_batching"):
        return
    batching, name = config.dynamic_batching, config.name
    yield from _preferred_size_problems(
        batching.preferred_batch_size,
        config,
        "dynamic_batching.preferred_batch_size",
        "dynamic batching preferred size",
    )
    levels = batching.priority_levels
    if levels:
        if not 1 <= batching.default_priority_level <= levels:
            yield Problem(
                "dynamic_batching.default_priority_level",
                f"default priority level must be in range [1, {levels}] for {name}",
            )
        for level in sorted(batching.priority_queue_policy):
            if not 1 <= level <= levels:
                yield Problem(
                    f"dynamic_batching.priority_queue_policy[{level}]",
                    f"priority queue policy must have priority level in range [1, {levels}] for {name}",
                )
    if not batching.preserve_ordering:
        return
    if levels > 1:
        yield Problem(
            "dynamic_batching.priority_levels",
            f"Only one priority level is allowed when 'preserve_ordering' is true for {name}",
        )
    policies = {"default_queue_policy": batching.default_queue_policy}
    policies |= {f"priority_queue_policy[{key}]": value for key, value in batching.priority_queue_policy.items()}
    for field, policy in policies.items():
        if policy.default_timeout_microseconds and policy.timeout_action == ModelQueuePolicy.DELAY:
            yield Problem(
                f"dynamic_batching.{field}.timeout_action",
                f"Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for {name}",
            )


def _preferred_size_problems(sizes: Sequence[int], config: ModelConfig, field: str, what: str) -> Iterator[Problem]:
    for index, size in enumerate(sizes):
        if size <= 0:
            yield Problem(f"{field}[{index}]", f"{what} must be positive for {config.name}")
        elif size > config.max_batch_size:
            yield Problem(f"{field}[{index}]", f"{what} must be <= max batch size for {config.name}")


def sequence_batching_problems(config: ModelConfig) -> Iterator[Problem]:
    """Controls, states and the strategy."""
    if not config.HasField("sequence_batching"):
        return
    batching, name = config.sequence_batching, config.name
    if config.response_cache.enable:
        yield Problem(
            "response_cache.enable",
            f"Response Cache does not currently support model {name} with sequence batching scheduler. Please disable"
            " the response cache.",
        )
    yield from _control_problems(batching, name)
    yield from _state_problems(batching)
    if batching.HasField("oldest"):
        yield from _preferred_size_problems(
            batching.oldest.preferred_batch_size,
            config,
            "sequence_batching.oldest.preferred_batch_size",
            "sequence batching preferred batch size",
        )
    if batching.HasField("direct") and not 0.0 <= batching.direct.minimum_slot_utilization <= 1.0:
        yield Problem(
            "sequence_batching.direct.minimum_slot_utilization",
            f"sequence batching minimum slot utilization must be in range (0.0, 1.0] for {name}",
        )


def _control_problems(batching: ModelSequenceBatching, name: str) -> Iterator[Problem]:
    tensors: set[str] = set()
    kinds: set[int] = set()
    for index, control_input in enumerate(batching.control_input):
        field = f"sequence_batching.control_input[{index}]"
        if not control_input.name:
            yield Problem(f"{field}.name", f"sequence batching control tensor must have a name for {name}")
        elif control_input.name in tensors:
            yield Problem(
                f"{field}.name",
                f"sequence batching control tensor '{control_input.name}' is specified for multiple control kinds for"
                f" {name}",
            )
        tensors.add(control_input.name)
        for number, control in enumerate(control_input.control):
            if control.kind in kinds:
                yield Problem(
                    f"{field}.control[{number}].kind",
                    f"sequence batching specifies multiple {_Control.Kind.Name(control.kind)} tensors for {name}",
                )
            kinds.add(control.kind)
            message = _control_problem(control, name)
            if message:
                yield Problem(f"{field}.control[{number}]", message)


def _control_problem(control: ModelSequenceBatching.Control, name: str) -> str | None:
    kind = _Control.Kind.Name(control.kind)
    given = [(field, getattr(control, field)) for field in _VALUE_FIELDS if getattr(control, field)]
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        if given:
            return (
                "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true'"
                f" for {kind} for {name}"
            )
        if control.data_type not in (TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32, TYPE_STRING):
            return (
                f"unexpected data type for control {kind} for {name}. Allowed data types are TYPE_UINT64, TYPE_INT64,"
                " TYPE_UINT32, TYPE_INT32 and TYPE_STRING"
            )
        return None
    if not given:
        return (
            "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for"
            f" {kind} for {name}"
        )
    if len(given) > 1:
        return (
            "sequence batching specifies more than one from 'int32_false_true', 'fp32_false_true' and 'bool_false_true'"
            f" for {kind} for {name}"
        )
    field, values = given[0]
    if len(values) != 2:
        return f"sequence batching control '{field}' must have exactly 2 entries for {kind} for {name}"
    return None


def _state_problems(batching: ModelSequenceBatching) -> Iterator[Problem]:
    for index, state in enumerate(batching.state):
        field = f"sequence_batching.state[{index}].initial_state"
        if len(state.initial_state) > 1:
            yield Problem(
                field,
                f"state '{state.input_name}' has {len(state.initial_state)} initial states, expected one",
            )
        for number, initial in enumerate(state.initial_state):
            here = f"{field}[{number}]"
            if initial.data_type != state.data_type:
                yield Problem(
                    f"{here}.data_type",
                    f"The data type used for 'initial_state' field of state '{state.input_name}' does not match the"
                    " state data type.",
                )
            if not initial.name:
                yield Problem(
                    f"{here}.name",
                    f"Field 'name' must be set when using initial_state for state input '{state.input_name}'.",
                )
            if len(initial.dims) != len(state.dims):
                yield Problem(
                    f"{here}.dims",
                    "Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for state"
                    f" input '{state.input_name}'. {len(initial.dims)} != {len(state.dims)}",
                )
