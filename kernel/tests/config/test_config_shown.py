"""What the configuration endpoint shows, against what Triton 2.51 showed for the same configuration.

The documents were taken from its ``GET v2/models/m/config`` after loading a Python model with each configuration.
"""

from __future__ import annotations

import json

import pytest
from config_samples import TENSOR, Json, configs, plain
from config_shown import GROUP, shown
from hypothesis import given
from trivet.config import ModelConfig, to_dict, to_json

INPUT = {
    "name": "A",
    "data_type": "TYPE_FP32",
    "format": "FORMAT_NONE",
    "dims": [4],
    "is_shape_tensor": False,
    "allow_ragged_batch": False,
    "optional": False,
    "is_non_linear_format_io": False,
}
OUTPUT = {
    "name": "B",
    "data_type": "TYPE_FP32",
    "dims": [4],
    "label_filename": "",
    "is_shape_tensor": False,
    "is_non_linear_format_io": False,
}
OPTIMIZATION = {
    "priority": "PRIORITY_DEFAULT",
    "input_pinned_memory": {"enable": True},
    "output_pinned_memory": {"enable": True},
    "gather_kernel_buffer_threshold": 0,
    "eager_batching": False,
}
POLICY = {
    "timeout_action": "REJECT",
    "default_timeout_microseconds": 0,
    "allow_timeout_override": False,
    "max_queue_size": 0,
}
BATCHING = {
    "preferred_batch_size": [8],
    "max_queue_delay_microseconds": 0,
    "preserve_ordering": False,
    "priority_levels": 0,
    "default_priority_level": 0,
    "priority_queue_policy": {},
}
PLAIN = {
    "name": "m",
    "platform": "",
    "backend": "python",
    "runtime": "",
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 8,
    "input": [INPUT],
    "output": [OUTPUT],
    "batch_input": [],
    "batch_output": [],
    "optimization": OPTIMIZATION,
    "instance_group": [GROUP],
    "default_model_filename": "model.py",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {},
    "model_warmup": [],
}
RAGGED = {
    "batch_input": [
        {"kind": "BATCH_ELEMENT_COUNT", "target_name": ["X"], "data_type": "TYPE_FP32", "source_input": ["A"]}
    ],
    "batch_output": [{"target_name": ["B"], "kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "source_input": ["A"]}],
}
CONTROL = {"int32_false_true": [], "fp32_false_true": [], "bool_false_true": [], "data_type": "TYPE_INVALID"}

CASES: dict[str, tuple[Json, Json]] = {
    "nothing": ({}, {}),
    "no batching": ({"max_batch_size": 0}, {"max_batch_size": 0}),
    "dynamic batching": ({"dynamic_batching": {}}, {"dynamic_batching": BATCHING}),
    "dynamic batching of a model that does not batch": (
        {"max_batch_size": 0, "dynamic_batching": {}},
        {"max_batch_size": 0, "dynamic_batching": BATCHING | {"preferred_batch_size": []}},
    ),
    "dynamic batching in full": (
        {
            "dynamic_batching": {
                "preferred_batch_size": [2, 4],
                "max_queue_delay_microseconds": 100,
                "priority_levels": 3,
                "default_priority_level": 2,
                "default_queue_policy": {
                    "timeout_action": "DELAY",
                    "default_timeout_microseconds": 1000,
                    "allow_timeout_override": True,
                    "max_queue_size": 10,
                },
                "priority_queue_policy": {"1": {"default_timeout_microseconds": "99"}, "3": {}},
            }
        },
        {
            "dynamic_batching": {
                "preferred_batch_size": [2, 4],
                "max_queue_delay_microseconds": 100,
                "preserve_ordering": False,
                "priority_levels": 3,
                "default_priority_level": 2,
                "default_queue_policy": {
                    "timeout_action": "DELAY",
                    "default_timeout_microseconds": 1000,
                    "allow_timeout_override": True,
                    "max_queue_size": 10,
                },
                "priority_queue_policy": {"1": POLICY | {"default_timeout_microseconds": 99}, "3": POLICY},
            }
        },
    ),
    "sequences in slots": (
        {
            "sequence_batching": {
                "direct": {"max_queue_delay_microseconds": 7, "minimum_slot_utilization": 0.3},
                "control_input": [
                    {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0, 1]}]},
                    {"name": "ID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]},
                ],
                "state": [
                    {
                        "input_name": "SI",
                        "output_name": "SO",
                        "data_type": "TYPE_INT32",
                        "dims": [1, -1],
                        "initial_state": [{"name": "z", "data_type": "TYPE_INT32", "dims": [1, 2], "zero_data": True}],
                    }
                ],
            }
        },
        {
            "sequence_batching": {
                "direct": {"max_queue_delay_microseconds": 7, "minimum_slot_utilization": 0.3},
                "max_sequence_idle_microseconds": 1000000,
                "control_input": [
                    {
                        "name": "START",
                        "control": [{"kind": "CONTROL_SEQUENCE_START", **CONTROL, "fp32_false_true": [0, 1]}],
                    },
                    {
                        "name": "ID",
                        "control": [{"kind": "CONTROL_SEQUENCE_CORRID", **CONTROL, "data_type": "TYPE_UINT64"}],
                    },
                ],
                "state": [
                    {
                        "input_name": "SI",
                        "output_name": "SO",
                        "data_type": "TYPE_INT32",
                        "dims": [1, -1],
                        # Triton shows these dimensions as text.
                        "initial_state": [
                            {"data_type": "TYPE_INT32", "dims": ["1", "2"], "name": "z", "zero_data": True}
                        ],
                        "use_same_buffer_for_input_output": False,
                        "use_growable_memory": False,
                    }
                ],
                "iterative_sequence": False,
            }
        },
    ),
    "oldest sequences": (
        {"sequence_batching": {"oldest": {"max_candidate_sequences": 4}, "iterative_sequence": True}},
        {
            "sequence_batching": {
                "oldest": {
                    "max_candidate_sequences": 4,
                    "preferred_batch_size": [8],
                    "max_queue_delay_microseconds": 0,
                    "preserve_ordering": False,
                },
                "max_sequence_idle_microseconds": 1000000,
                "control_input": [],
                "state": [],
                "iterative_sequence": True,
            }
        },
    ),
    "sequences": (
        {"sequence_batching": {}},
        {
            "sequence_batching": {
                "max_sequence_idle_microseconds": 1000000,
                "control_input": [],
                "state": [],
                "iterative_sequence": False,
            }
        },
    ),
    "two versions": (
        {"version_policy": {"specific": {"versions": [1, 3]}}},
        {"version_policy": {"specific": {"versions": [1, 3]}}},
    ),
    "all versions": ({"version_policy": {"all": {}}}, {"version_policy": {"all": {}}}),
    "an empty version policy": ({"version_policy": {}}, {"version_policy": {}}),
    "instance groups": (
        {
            "instance_group": [
                {"kind": "KIND_CPU", "count": 2},
                {"name": "x", "kind": "KIND_AUTO"},
                {"kind": "KIND_MODEL"},
            ]
        },
        {
            "instance_group": [
                GROUP | {"name": "m_0", "count": 2},
                GROUP | {"name": "x"},
                GROUP | {"name": "m_2", "kind": "KIND_MODEL"},
            ]
        },
    ),
    "a negative count": ({"instance_group": [{"count": -1}]}, {"instance_group": [GROUP | {"name": "m_0"}]}),
    "rare fields of instance groups": (
        {
            "instance_group": [
                {"count": 0, "rate_limiter": {"resources": [{"name": "R", "count": 2}], "priority": 2}},
                {"secondary_devices": [{"device_id": 3}], "host_policy": "h", "passive": True},
            ]
        },
        {
            "instance_group": [
                GROUP
                | {
                    "name": "m_0",
                    "rate_limiter": {"resources": [{"name": "R", "global": False, "count": 2}], "priority": 2},
                },
                GROUP
                | {
                    "name": "m_1",
                    "secondary_devices": [{"kind": "KIND_NVDLA", "device_id": "3"}],
                    "passive": True,
                    "host_policy": "h",
                },
            ]
        },
    ),
    "maps": (
        {
            "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "x"}},
            "metric_tags": {"t": "v"},
            "cc_model_filenames": {"7.5": "f"},
        },
        {
            "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "x"}},
            "metric_tags": {"t": "v"},
            "cc_model_filenames": {"7.5": "f"},
        },
    ),
    "optimization": (
        {
            "optimization": {
                "graph": {"level": 1},
                "priority": "PRIORITY_MAX",
                "cuda": {
                    "graphs": True,
                    "graph_spec": [
                        {
                            "batch_size": 1,
                            "input": {"A": {"dim": [4, 5]}},
                            "graph_lower_bound": {"batch_size": 1, "input": {"A": {"dim": [1]}}},
                        }
                    ],
                },
                "execution_accelerators": {
                    "gpu_execution_accelerator": [{"name": "tensorrt", "parameters": {"p": "q"}}]
                },
                "input_pinned_memory": {"enable": False},
                "eager_batching": True,
            }
        },
        {
            "optimization": {
                "graph": {"level": 1},
                "priority": "PRIORITY_MAX",
                "cuda": {
                    "graphs": True,
                    "busy_wait_events": False,
                    "graph_spec": [
                        {
                            "batch_size": 1,
                            "input": {"A": {"dim": ["4", "5"]}},
                            "graph_lower_bound": {"batch_size": 1, "input": {"A": {"dim": ["1"]}}},
                        }
                    ],
                    "output_copy_stream": False,
                },
                "execution_accelerators": {
                    "gpu_execution_accelerator": [{"name": "tensorrt", "parameters": {"p": "q"}}],
                    "cpu_execution_accelerator": [],
                },
                "input_pinned_memory": {"enable": False},
                "output_pinned_memory": {"enable": True},
                "gather_kernel_buffer_threshold": 0,
                "eager_batching": True,
            }
        },
    ),
    "tensors": (
        {
            "max_batch_size": 0,
            "input": [
                {"name": "A", "data_type": "TYPE_FP32", "dims": [2, 2], "reshape": {"shape": [4]}, "optional": True},
                {"name": "C", "data_type": "TYPE_STRING", "dims": [3, -1, 2], "format": "FORMAT_NCHW"},
            ],
            "output": [{"name": "B", "data_type": "TYPE_BF16", "dims": [1], "reshape": {"shape": [1]}}],
        },
        {
            "max_batch_size": 0,
            "input": [
                INPUT | {"dims": [2, 2], "reshape": {"shape": [4]}, "optional": True},
                INPUT | {"name": "C", "data_type": "TYPE_STRING", "dims": [3, -1, 2], "format": "FORMAT_NCHW"},
            ],
            "output": [OUTPUT | {"data_type": "TYPE_BF16", "dims": [1], "reshape": {"shape": [1]}}],
        },
    ),
    "an empty reshape": (
        {"input": [{"name": "A", "data_type": "TYPE_FP32", "dims": [1], "reshape": {}}]},
        {"input": [INPUT | {"dims": [1], "reshape": {"shape": []}}]},
    ),
    "ragged batches": (RAGGED, RAGGED),
    "warm-up": (
        {"model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"A": TENSOR | {"zero_data": True}}}]},
        {"model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"A": TENSOR | {"zero_data": True}}, "count": 0}]},
    ),
    "policies": (
        {
            "model_operations": {"op_library_filename": ["a.so"]},
            "model_transaction_policy": {"decoupled": True},
            "response_cache": {"enable": False},
        },
        {
            "model_operations": {"op_library_filename": ["a.so"]},
            "model_transaction_policy": {"decoupled": True},
            "response_cache": {"enable": False},
        },
    ),
    "fields in another order": ({"default_model_filename": "model.py", "name": "m"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_shown_as_triton_shows_it(case: str) -> None:
    given_, changes = CASES[case]
    assert shown(plain(**given_)) == PLAIN | changes


def test_fields_come_in_triton_s_order() -> None:
    assert list(shown(plain())) == list(PLAIN)
    assert list(shown(plain())["input"][0]) == list(INPUT)
    assert list(shown(plain(dynamic_batching={}))).index("dynamic_batching") == list(PLAIN).index("instance_group")


def test_text_has_no_blanks_and_numbers_stay_short() -> None:
    config = ModelConfig(name="é", sequence_batching={"direct": {"minimum_slot_utilization": 0.1}})
    config.model_metrics.metric_control.add().histogram_options.buckets.extend([1, 0.1, 1e300, float("inf")])
    text = to_json(config)
    assert '"name":"é"' in text
    assert '"minimum_slot_utilization":0.1}' in text
    assert '"buckets":[1,0.1,1e+300,"Infinity"]' in text
    assert " " not in text


@given(configs())
def test_any_configuration_can_be_shown(config: ModelConfig) -> None:
    assert json.loads(to_json(config)) == to_dict(config)
