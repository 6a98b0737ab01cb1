"""Settings of dynamic batching and of sequences that cannot be served, and what cannot go together with them."""

from __future__ import annotations

from typing import Any

import pytest
from config_problems import Wrong, control, each, problems
from config_samples import Json, plain


def with_dynamic(**fields: Any) -> Json:
    return plain(dynamic_batching=fields)


def with_sequences(**fields: Any) -> Json:
    return plain(sequence_batching=fields)


def with_state(initial: Json) -> Json:
    return with_sequences(
        state=[
            {"input_name": "SI", "output_name": "SO", "data_type": "TYPE_FP32", "dims": [1], "initial_state": [initial]}
        ]
    )


DELAY = "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for m"

WRONG: list[Wrong] = [
    # Dynamic batching
    (
        with_dynamic(preferred_batch_size=[0]),
        "dynamic_batching.preferred_batch_size[0]",
        "dynamic batching preferred size must be positive for m",
    ),
    (
        with_dynamic(preferred_batch_size=[4, 9]),
        "dynamic_batching.preferred_batch_size[1]",
        "dynamic batching preferred size must be <= max batch size for m",
    ),
    (
        with_dynamic(priority_levels=2),
        "dynamic_batching.default_priority_level",
        "default priority level must be in range [1, 2] for m",
    ),
    (
        with_dynamic(priority_levels=2, default_priority_level=1, priority_queue_policy={"3": {}}),
        "dynamic_batching.priority_queue_policy[3]",
        "priority queue policy must have priority level in range [1, 2] for m",
    ),
    (
        with_dynamic(preserve_ordering=True, priority_levels=2, default_priority_level=1),
        "dynamic_batching.priority_levels",
        "Only one priority level is allowed when 'preserve_ordering' is true for m",
    ),
    (
        with_dynamic(
            preserve_ordering=True,
            default_queue_policy={"timeout_action": "DELAY", "default_timeout_microseconds": 1},
        ),
        "dynamic_batching.default_queue_policy.timeout_action",
        DELAY,
    ),
    (
        with_dynamic(
            preserve_ordering=True,
            priority_queue_policy={"1": {"timeout_action": "DELAY", "default_timeout_microseconds": 1}},
        ),
        "dynamic_batching.priority_queue_policy[1].timeout_action",
        DELAY,
    ),
    # Sequences
    (
        with_sequences(
            control_input=[
                control("X", "START", fp32_false_true=[0, 1]),
                control("X", "END", fp32_false_true=[0, 1]),
            ]
        ),
        "sequence_batching.control_input[1].name",
        "sequence batching control tensor 'X' is specified for multiple control kinds for m",
    ),
    (
        with_sequences(control_input=[control("", "START", fp32_false_true=[0, 1])]),
        "sequence_batching.control_input[0].name",
        "sequence batching control tensor must have a name for m",
    ),
    (
        with_sequences(
            control_input=[
                control("X", "START", fp32_false_true=[0, 1]),
                control("Y", "START", int32_false_true=[0, 1]),
            ]
        ),
        "sequence_batching.control_input[1].control[0].kind",
        "sequence batching specifies multiple CONTROL_SEQUENCE_START tensors for m",
    ),
    (
        with_sequences(control_input=[control("X", "READY")]),
        "sequence_batching.control_input[0].control[0]",
        (
            "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for"
            " CONTROL_SEQUENCE_READY for m"
        ),
    ),
    (
        with_sequences(control_input=[control("X", "END", fp32_false_true=[0, 1], bool_false_true=[False, True])]),
        "sequence_batching.control_input[0].control[0]",
        (
            "sequence batching specifies more than one from 'int32_false_true', 'fp32_false_true' and"
            " 'bool_false_true' for CONTROL_SEQUENCE_END for m"
        ),
    ),
    (
        with_sequences(control_input=[control("X", "START", fp32_false_true=[0, 1, 2])]),
        "sequence_batching.control_input[0].control[0]",
        "sequence batching control 'fp32_false_true' must have exactly 2 entries for CONTROL_SEQUENCE_START for m",
    ),
    (
        with_sequences(control_input=[control("X", "CORRID", data_type="TYPE_FP32")]),
        "sequence_batching.control_input[0].control[0]",
        (
            "unexpected data type for control CONTROL_SEQUENCE_CORRID for m. Allowed data types are TYPE_UINT64,"
            " TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING"
        ),
    ),
    (
        with_sequences(control_input=[control("X", "CORRID", data_type="TYPE_INT32", int32_false_true=[0, 1])]),
        "sequence_batching.control_input[0].control[0]",
        (
            "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for"
            " CONTROL_SEQUENCE_CORRID for m"
        ),
    ),
    (
        with_sequences(oldest={"preferred_batch_size": [9]}),
        "sequence_batching.oldest.preferred_batch_size[0]",
        "sequence batching preferred batch size must be <= max batch size for m",
    ),
    (
        with_sequences(direct={"minimum_slot_utilization": 1.5}),
        "sequence_batching.direct.minimum_slot_utilization",
        "sequence batching minimum slot utilization must be in range (0.0, 1.0] for m",
    ),
    (
        with_state({"name": "z", "data_type": "TYPE_INT32", "dims": [1], "zero_data": True}),
        "sequence_batching.state[0].initial_state[0].data_type",
        "The data type used for 'initial_state' field of state 'SI' does not match the state data type.",
    ),
    (
        with_state({"data_type": "TYPE_FP32", "dims": [1], "zero_data": True}),
        "sequence_batching.state[0].initial_state[0].name",
        "Field 'name' must be set when using initial_state for state input 'SI'.",
    ),
    # Response cache
    (
        plain(sequence_batching={}, response_cache={"enable": True}),
        "response_cache.enable",
        (
            "Response Cache does not currently support model m with sequence batching scheduler. Please disable the"
            " response cache."
        ),
    ),
    (
        plain(model_transaction_policy={"decoupled": True}, response_cache={"enable": True}),
        "response_cache.enable",
        (
            "Response Cache does not currently support model m with 'decoupled' transaction policy. Please disable the"
            " response cache."
        ),
    ),
]


@each(WRONG)
def test_what_is_wrong_is_said(config: Json, field: str, message: str) -> None:
    assert (field, message) in problems(config)


@pytest.mark.parametrize(
    "config",
    [
        with_dynamic(priority_queue_policy={"3": {}}),
        with_dynamic(preserve_ordering=True, priority_levels=1, default_priority_level=1),
        with_sequences(state=[{"input_name": "SI", "output_name": "SO"}]),
        with_sequences(direct={"minimum_slot_utilization": 0.0}),
    ],
)
def test_what_triton_loads_is_right(config: Json) -> None:
    assert problems(config) == []
