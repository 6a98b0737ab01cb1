"""What a configuration leaves out is filled in from its backend, its file name and this machine's GPUs."""

from __future__ import annotations

import pytest
from config_samples import ONNX, TENSORFLOW, Json, configs
from config_shown import GROUP, shown
from hypothesis import given
from trivet.config import ModelConfig, normalize, to_dict


@given(configs())
def test_defaults_are_filled_in_once(config: ModelConfig) -> None:
    normalize(config, backend=ONNX, gpu_count=1)
    again = ModelConfig.FromString(config.SerializeToString())
    normalize(again, backend=ONNX, gpu_count=1)
    assert again == config


def test_a_backend_brings_platform_file_and_instances() -> None:
    config = shown({"name": "m", "platform": "onnxruntime_onnx"}, backend=ONNX)
    assert config["backend"] == "onnxruntime"
    assert config["default_model_filename"] == "model.onnx"
    assert config["instance_group"] == [GROUP | {"count": 2}]
    config = shown({"name": "m", "backend": "onnxruntime", "default_model_filename": "other.onnx"}, backend=ONNX)
    assert config["platform"] == "onnxruntime_onnx"
    assert config["default_model_filename"] == "other.onnx"


def test_a_file_name_tells_the_platform_and_the_other_way_round() -> None:
    by_file = shown(
        {"name": "m", "backend": "tensorflow", "default_model_filename": "model.graphdef"}, backend=TENSORFLOW
    )
    assert by_file["platform"] == "tensorflow_graphdef"
    by_platform = shown({"name": "m", "platform": "tensorflow_graphdef"}, backend=TENSORFLOW)
    assert by_platform["default_model_filename"] == "model.graphdef"
    neither = shown({"name": "m", "backend": "tensorflow"}, backend=TENSORFLOW)
    assert (neither["platform"], neither["default_model_filename"]) == ("tensorflow_savedmodel", "model.savedmodel")


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({}, {"kind": "KIND_GPU", "gpus": [0, 1]}),
        ({"gpus": [1]}, {"kind": "KIND_GPU", "gpus": [1]}),
        ({"gpus": [2]}, {"kind": "KIND_CPU", "gpus": [2], "count": 2}),  # and then refused, as in Triton
        ({"kind": "KIND_GPU", "count": 3}, {"kind": "KIND_GPU", "gpus": [0, 1], "count": 3}),
        ({"kind": "KIND_CPU"}, {"count": 2}),
    ],
)
def test_gpus_are_used_where_there_are_any(group: Json, expected: Json) -> None:
    config = shown({"name": "m", "instance_group": [group]}, backend=ONNX, gpu_count=2)
    assert config["instance_group"] == [GROUP | {"name": "m_0"} | expected]


def test_an_ensemble_gets_no_instances() -> None:
    config = ModelConfig(name="e", platform="ensemble", ensemble_scheduling={"step": [{"model_name": "a"}]})
    normalize(config)
    assert not config.instance_group
    assert not config.HasField("optimization")
    assert to_dict(config)["ensemble_scheduling"]["step"][0]["model_version"] == 0
