"""Instance groups that cannot be created here, and warm-up samples that would be refused as requests."""

from __future__ import annotations

from typing import Any

import pytest
from config_problems import Wrong, control, each, problems, with_warmup
from config_samples import TENSOR, Json, plain


def with_group(**fields: Any) -> Json:
    return plain(instance_group=[fields])


WRONG: list[Wrong] = [
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
]


@each(WRONG)
def test_what_is_wrong_is_said(config: Json, field: str, message: str) -> None:
    assert (field, message) in problems(config)


@pytest.mark.parametrize(
    "config",
    [
        with_group(count=-1),
        plain(instance_group=[{"name": "a"}, {"name": "a"}]),
        with_warmup(0, Z=TENSOR),
        with_warmup(A=TENSOR | {"random_data": True}),
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
