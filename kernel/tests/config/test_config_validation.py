"""Configurations that cannot be served are refused in Triton's words: tensors, ragged batches, metrics, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_problems import Wrong, each, problems, with_warmup
from config_samples import ONNX, PYTHON, TENSOR, Json, configs, plain
from hypothesis import given
from trivet.config import ModelConfig, find_problems, normalize, parse_json_config, validate
from trivet.errors import InvalidArgumentError


def with_input(**changes: Any) -> Json:
    return plain(input=[{"name": "A", **TENSOR} | changes])


DIMENSION = "must be integer >= 1, or -1 to indicate a variable-size dimension for m"

WRONG: list[Wrong] = [
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


@each(WRONG)
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
        plain(platform="anything"),
    ],
)
def test_what_triton_loads_is_right(config: Json) -> None:
    assert problems(config) == []


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


@given(configs())
def test_any_configuration_can_be_judged(config: ModelConfig) -> None:
    normalize(config)
    for problem in find_problems(config, backend=ONNX, gpu_count=1):
        assert problem.field
        assert problem.message
