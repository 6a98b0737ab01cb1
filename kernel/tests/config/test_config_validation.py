"""Configurations that cannot be served are refused in Triton's words.

Messages marked by nothing were taken from Triton 2.51's replies and log; those of our own say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_samples import ONNX, PYTHON, TENSOR, configs, plain
from hypothesis import given
from trivet.config import ModelConfig, Problem, find_problems, normalize, parse_json_config, validate
from trivet.errors import InvalidArgumentError

Json = dict[str, Any]


def problems(config: Json, gpu_count: int = 0, **how: Any) -> list[tuple[str, str]]:
    parsed = parse_json_config(json.dumps(config), "test")
    normalize(parsed, backend=how.get("backend"), gpu_count=gpu_count)
    return [(problem.field, problem.message) for problem in find_problems(parsed, gpu_count=gpu_count, **how)]


def with_input(**changes: Any) -> Json:
    return plain(input=[{"name": "A", **TENSOR} | changes])


def with_dynamic(**fields: Any) -> Json:
    return plain(dynamic_batching=fields)


def with_sequences(**fields: Any) -> Json:
    return plain(sequence_batching=fields)


def with_group(**fields: Any) -> Json:
    return plain(instance_group=[fields])


def control(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "control": [{"kind": f"CONTROL_SEQUENCE_{kind}", **fields}]}


def with_warmup(batch_size: int = 1, **inputs: Json) -> Json:
    return plain(model_warmup=[{"name": "w", "batch_size": batch_size, "inputs": inputs}])


def with_state(initial: Json) -> Json:
    return with_sequences(
        state=[
            {"input_name": "SI", "output_name": "SO", "data_type": "TYPE_FP32", "dims": [1], "initial_state": [initial]}
        ]
    )


DIMENSION = "must be integer >= 1, or -1 to indicate a variable-size dimension for m"
DELAY = "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for m"

WRONG: list[tuple[Json, str, str]] = [
    (plain(name=""), "name", "model configuration must specify 'name'"),
    (plain(backend="", platform="foo"), "platform", "unexpected platform type 'foo' for m"),
    (plain(max_batch_size=-1), "max_batch_size", "'max_batch_size' must be non-negative value for m"),
    # Tensors
    (with_input(name=""), "input[0].name", "model input must specify 'name' for m"),
    (with_input(data_type="TYPE_INVALID"), "input[0].data_type", "model input 'A' must specify 'data_type' for m"),
    (with_input(dims=[]), "input[0].dims", "model input 'A' must specify 'dims' for m"),
    (
        plain(output=[{"name": "B"} | TENSOR | {"dims": []}]),
        "output[0].dims",
        "model output 'B' must specify 'dims' for m",
    ),
    (with_input(dims=[0]), "input[0].dims", f"model input 'A' dimension {DIMENSION}"),
    (with_input(dims=[-2]), "input[0].dims", f"model input 'A' dimension {DIMENSION}"),
    (
        with_input(reshape={}) | {"max_batch_size": 0},
        "input[0].reshape",
        "model input 'A' cannot have empty reshape for non-batching model as scalar tensors are not supported for m",
    ),
    (with_input(reshape={"shape": [0]}), "input[0].reshape.shape", f"model input 'A' reshape dimensions {DIMENSION}"),
    (
        with_input(reshape={"shape": [5]}),
        "input[0].reshape.shape",
        "model input 'A' has different size for dims and reshape for m",
    ),
    (with_input(reshape={}), "input[0].reshape.shape", "model input 'A' has different size for dims and reshape for m"),
    (
        with_input(dims=[-1], reshape={"shape": [4]}),
        "input[0].reshape.shape",
        "model input 'A' has different size for dims and reshape for m",
    ),
    (
        with_input(dims=[2, -1], reshape={"shape": [-1, 3]}),
        "input[0].reshape.shape",
        "model input 'A' has different size for dims and reshape for m",
    ),
    (
        with_input(dims=[2, -1], reshape={"shape": [-1, -1, 2]}),
        "input[0].reshape.shape",
        "model input 'A' has different number of variable-size dimensions for dims and reshape for m",
    ),
    (with_input(format="FORMAT_NHWC"), "input[0].format", "model input NHWC/NCHW require 3 dims for m"),
    (
        with_input(is_shape_tensor=True),
        "input[0].is_shape_tensor",
        "shape tensors are only supported for TensorRT platform for m",
    ),
    (
        with_input(is_non_linear_format_io=True),
        "input[0].is_non_linear_format_io",
        "Non-linear IO format is only supported for the TensorRT platform for m",
    ),
    # our own: Triton loads a model that has a tensor twice
    (
        plain(input=[{"name": "A", **TENSOR}] * 2),
        "input[1].name",
        "model input 'A' is specified more than once for m",
    ),
    # Ragged batches
    (
        plain(batch_input=[{"data_type": "TYPE_FP32"}]),
        "batch_input[0].source_input",
        "batch input kind 'BATCH_ELEMENT_COUNT' expects 1 source input, got 0 for m",
    ),
    (
        plain(batch_input=[{"data_type": "TYPE_FP64", "source_input": ["A"]}]),
        "batch_input[0].data_type",
        "batch input data type must be TYPE_INT32 or TYPE_FP32 for m",
    ),
    (
        plain(batch_input=[{"data_type": "TYPE_FP32", "source_input": ["Z"]}]),
        "batch_input[0].source_input",
        "unknown source input name 'Z' for m",
    ),
    (
        plain(batch_output=[{"target_name": ["B"]}]),
        "batch_output[0].source_input",
        "batch output kind 'BATCH_SCATTER_WITH_INPUT_SHAPE' expects 1 source input, got 0 for m",
    ),
    (
        plain(batch_output=[{"target_name": ["Z"], "source_input": ["A"]}]),
        "batch_output[0].target_name",
        "unknown target output name 'Z' for m",
    ),
    (
        plain(batch_output=[{"target_name": ["B", "B"], "source_input": ["A"]}]),
        "batch_output[0].target_name",
        "target output name 'B' can only be specified once for m",
    ),
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
    # Instances
    (
        with_group(kind="KIND_GPU"),
        "instance_group[0].kind",
        "instance group m_0 of model m has kind KIND_GPU but no GPUs are available",
    ),
    (
        with_group(kind="KIND_CPU", gpus=[0]),
        "instance_group[0].gpus",
        "instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs",
    ),
    (
        with_group(gpus=[0]),
        "instance_group[0].gpus",
        "instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs",
    ),
    (
        with_group(kind="KIND_MODEL", gpus=[0]),
        "instance_group[0].gpus",
        "instance group m_0 of model m has kind KIND_MODEL but specifies one or more GPUs",
    ),
    # Ensembles
    (
        plain(platform="ensemble", ensemble_scheduling={"step": [{"model_name": "x"}]}),
        "backend",
        "Ensemble model 'm' must have platform type 'ensemble' and empty backend type",
    ),
    (
        plain(platform="ensemble", backend=""),
        "ensemble_scheduling",
        "ensemble scheduling must be set for ensemble m whose platform is ensemble",
    ),
    (
        plain(ensemble_scheduling={}),
        "platform",
        "ensemble scheduling cannot be set for model 'm' whose platform is not ensemble",
    ),
    # Warm-up: what the first request would be told
    (
        with_warmup(A={"data_type": "TYPE_FP64", "dims": [4], "zero_data": True}),
        "model_warmup[0].inputs['A'].data_type",
        "warmup sample 'w': inference input 'A' data-type is 'FP64', but model 'm' expects 'FP32'",
    ),
    (
        with_warmup(A={"data_type": "TYPE_STRING", "dims": [4], "zero_data": True}),
        "model_warmup[0].inputs['A'].data_type",
        "warmup sample 'w': inference input 'A' data-type is 'BYTES', but model 'm' expects 'FP32'",
    ),
    (
        with_warmup(A=TENSOR | {"dims": [5], "zero_data": True}),
        "model_warmup[0].inputs['A'].dims",
        "warmup sample 'w': unexpected shape for input 'A' for model 'm'. Expected [4], got [5].",
    ),
    (
        with_warmup(A=TENSOR | {"dims": [-1], "zero_data": True}),
        "model_warmup[0].inputs['A'].dims",
        "warmup sample 'w': warmup setting expects all variable-size dimensions are specified for input 'A'",
    ),
    (
        with_warmup(A=TENSOR),
        "model_warmup[0].inputs['A']",
        "warmup sample 'w': warmup setting expects input 'A' to have input_data_type set",
    ),
    (
        with_warmup(9, A=TENSOR | {"zero_data": True}),
        "model_warmup[0].batch_size",
        "warmup sample 'w': batch size 9 for 'm', max allowed is 8",
    ),
    # Metrics, from the messages of later releases; a tag that is no label ends the real server
    *(
        (
            plain(metric_tags={"fine": "x", "1": "y", tag: "z"}),
            f"metric_tags['{tag}']",
            f"metric tag '{tag}' is no name for a label, expected letters of ASCII, digits and '_', and no '_' first",
        )
        for tag in ("a b", "ü", "a-b", "_a", 'a"')
    ),
    (
        plain(model_metrics={"metric_control": [{"histogram_options": {"buckets": [1]}}]}),
        "model_metrics.metric_control[0].metric_identifier",
        "metric control must specify 'metric_identifier'",
    ),
    (
        plain(model_metrics={"metric_control": [{"metric_identifier": {}, "histogram_options": {"buckets": [1]}}]}),
        "model_metrics.metric_control[0].metric_identifier.family",
        "metric identifier must specify non-empty 'family'",
    ),
    (
        plain(model_metrics={"metric_control": [{"metric_identifier": {"family": "f"}}]}),
        "model_metrics.metric_control[0].histogram_options",
        "metric control must specify 'histogram_options'",
    ),
]


@pytest.mark.parametrize(("config", "field", "message"), WRONG, ids=[message[:60] for _, _, message in WRONG])
def test_what_is_wrong_is_said(config: Json, field: str, message: str) -> None:
    assert (field, message) in problems(config)


@pytest.mark.parametrize(
    "config",
    [
        plain(),
        plain(input=[], output=[]),
        with_input(dims=[2, 4, -1, 6], reshape={"shape": [8, -1, 1, 6]}),
        with_input(dims=[1], reshape={}),
        with_input(dims=[3, -1, -1], format="FORMAT_NCHW"),
        with_dynamic(priority_queue_policy={"3": {}}),
        with_dynamic(preserve_ordering=True, priority_levels=1, default_priority_level=1),
        with_sequences(state=[{"input_name": "SI", "output_name": "SO"}]),
        with_sequences(direct={"minimum_slot_utilization": 0.0}),
        with_group(count=-1),
        plain(instance_group=[{"name": "a"}, {"name": "a"}]),
        with_warmup(0, Z=TENSOR),
        with_warmup(A=TENSOR | {"random_data": True}),
        plain(platform="anything"),
    ],
)
def test_what_triton_loads_is_right(config: Json) -> None:
    assert problems(config) == []


def test_gpus_must_exist() -> None:
    assert problems(with_group(kind="KIND_GPU", gpus=[1]), gpu_count=2) == []
    assert problems(with_group(kind="KIND_GPU", gpus=[0, 2]), gpu_count=2) == [
        (
            "instance_group[0].gpus",
            (
                "instance group m_0 of model m specifies invalid or unsupported gpu id 2. GPUs that this server can"
                " use are: 0, 1"
            ),
        )
    ]


def test_profiles_are_for_tensorrt() -> None:
    assert problems(with_group(profile=["0"])) == [
        (
            "instance_group[0].profile",
            (
                "instance group m_0 of model m and platform specifies profile field which is only supported for"
                " TensorRT models"
            ),
        )
    ]
    tensorrt = with_group(profile=["0", "x"]) | {"platform": "tensorrt_plan", "backend": "tensorrt"}
    assert [message for _, message in problems(tensorrt)] == [
        (
            "instance group m_0 of model m and platform tensorrt_plan specifies invalid profile x. The field should"
            " contain the string representation of a non-negative integer."
        )
    ]


def test_platform_and_backend_must_go_together() -> None:
    config = plain(backend="onnxruntime", platform="tensorrt_plan")
    assert problems(config, backend=ONNX) == [
        (
            "platform",
            (
                "unexpected 'platform' and 'backend' pair, got:tensorrt_plan, onnxruntime; backend 'onnxruntime' has"
                " platform 'onnxruntime_onnx'"
            ),
        )
    ]
    assert problems(plain(platform="anything"), backend=PYTHON) == []


def test_warmup_may_feed_what_no_request_does() -> None:
    config = plain(
        sequence_batching={"control_input": [control("START", "START", fp32_false_true=[0, 1])]},
        model_warmup=[
            {"name": "w", "batch_size": 1, "inputs": {n: TENSOR | {"zero_data": True} for n in ("A", "START", "Z")}}
        ],
    )
    assert problems(config) == []


def test_warmup_must_give_all_inputs() -> None:
    assert problems(with_warmup()) == [
        ("model_warmup[0].inputs", "warmup sample 'w': missing required input(s) ['A'] of model 'm'")
    ]


def test_files_are_looked_for_where_the_folder_is_known(tmp_path: Path) -> None:
    config = with_warmup(A=TENSOR | {"input_data_file": "raw"})
    config["output"] = [{"name": "B", **TENSOR, "label_filename": "labels.txt"}]
    assert problems(config) == []
    assert problems(config, model_path=tmp_path) == [
        (
            "output[0].label_filename",
            f"failed to open text file for read {tmp_path}/labels.txt: No such file or directory",
        ),
        (
            "model_warmup[0].inputs['A'].input_data_file",
            f"failed to open text file for read {tmp_path}/warmup/raw: No such file or directory",
        ),
    ]
    (tmp_path / "labels.txt").touch()
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "raw").touch()
    assert problems(config, model_path=tmp_path) == []


def test_all_problems_come_in_one_error_with_field_and_file() -> None:
    config = parse_json_config(json.dumps(with_input(dims=[]) | {"max_batch_size": -1}), "test")
    normalize(config)
    with pytest.raises(InvalidArgumentError) as error:
        validate(config, origin="/models/m/config.pbtxt")
    assert str(error.value) == (
        "'max_batch_size' must be non-negative value for m (field 'max_batch_size' in /models/m/config.pbtxt); model"
        " input 'A' must specify 'dims' for m (field 'input[0].dims' in /models/m/config.pbtxt)"
    )
    with pytest.raises(InvalidArgumentError, match=r"for m \(field 'max_batch_size'\); model"):
        validate(config)


def test_a_good_configuration_is_let_through() -> None:
    config = parse_json_config(json.dumps(plain()), "test")
    normalize(config, backend=PYTHON)
    validate(config, backend=PYTHON)


def ensemble(*steps: tuple[str, dict[str, str], dict[str, str]], **changes: Any) -> Json:
    scheduling = {"step": [{"model_name": n, "input_map": i, "output_map": o} for n, i, o in steps]}
    return plain(platform="ensemble", backend="", ensemble_scheduling=scheduling) | changes


def test_an_ensemble_whose_tensors_connect_is_right() -> None:
    assert problems(ensemble(("a", {"i": "A"}, {"o": "t"}), ("b", {"i": "t"}, {"o": "B"}))) == []
    # The order of steps does not matter, and a tensor may be read twice.
    steps = [("b", {"i": "t", "j": "A"}, {"o": "B"}), ("a", {"i": "A"}, {"o": "t"})]
    assert problems(ensemble(*steps)) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ensemble(), [Problem("ensemble_scheduling.step", "must specify 'step' for ensemble 'm'")]),
        (
            ensemble(("", {}, {"o": "B"})),
            [
                Problem(
                    "ensemble_scheduling.step[0].model_name", "must specify 'model_name' in step 0 of ensemble 'm'"
                ),
                Problem("ensemble_scheduling.step[0].input_map", "must specify 'input_map' in step 0 of ensemble 'm'"),
            ],
        ),
        (
            ensemble(("a", {"i": "A"}, {"o": "B"}), ("b", {"i": "A"}, {"o": "B"})),
            [
                Problem(
                    "ensemble_scheduling.step[1].output_map",
                    "ensemble tensor 'B' can appear in an output map only once for ensemble 'm' step 1",
                )
            ],
        ),
        (
            ensemble(("a", {"i": "t"}, {"o": "B"})),
            [
                Problem("input[0].name", "ensemble input 'A' for ensemble 'm' is not used"),
                Problem(
                    "output[0].name",
                    "output 'B' for ensemble 'm' is not written: at least one of its depending tensors, 't', is not"
                    " connected",
                ),
                Problem("ensemble_scheduling.step", "ensemble tensor 't' is unused in ensemble 'm'"),
            ],
        ),
        (
            ensemble(("a", {"i": "A"}, {"o": "t"})),
            [
                Problem("output[0].name", "ensemble output 'B' for ensemble 'm' is not used"),
                Problem("ensemble_scheduling.step", "ensemble tensor 't' is unused in ensemble 'm'"),
            ],
        ),
        (
            ensemble(("a", {"i": "A", "j": "u"}, {"o": "t"}), ("b", {"i": "t"}, {"o": "u", "p": "B"})),
            [
                Problem(
                    "output[0].name",
                    "output 'B' for ensemble 'm' is not written: at least one of its depending tensors, 'u', is not"
                    " connected",
                ),
                Problem("ensemble_scheduling.step", "ensemble tensor 't' is unused in ensemble 'm'"),
                Problem("ensemble_scheduling.step", "ensemble tensor 'u' is unused in ensemble 'm'"),
            ],
        ),
        (
            ensemble(
                ("a", {"i": "A"}, {"o": "B"}),
                instance_group=[{}],
                optimization={},
                model_warmup=[{"name": "w"}],
            ),
            [
                Problem("instance_group", "instance group should not be specified for ensemble 'm'"),
                Problem("optimization", "optimization should not be specified for ensemble 'm'"),
                Problem("model_warmup", "model_warmup can not be specified for ensemble 'm'"),
            ],
        ),
    ],
)
def test_what_is_wrong_with_an_ensemble_is_said(config: Json, expected: list[Problem]) -> None:
    parsed = parse_json_config(json.dumps(config), "test")
    normalize(parsed)
    assert find_problems(parsed) == expected


@given(configs())
def test_any_configuration_can_be_judged(config: ModelConfig) -> None:
    normalize(config)
    for problem in find_problems(config, backend=ONNX, gpu_count=1):
        assert problem.field
        assert problem.message
