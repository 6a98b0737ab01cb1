"""Which versions are served, and the view of a configuration that requests are checked against."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from trivet import datatypes
from trivet.config import ModelConfig, select_versions
from trivet.config.spec import ModelSpec, TensorSpec


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, [10]),
        ({"latest": {"num_versions": 1}}, [10]),
        ({"latest": {"num_versions": 2}}, [3, 10]),
        ({"latest": {"num_versions": 99}}, [1, 2, 3, 10]),
        ({"latest": {}}, []),
        ({"all": {}}, [1, 2, 3, 10]),
        ({}, [1, 2, 3, 10]),
        ({"specific": {"versions": [3, 1, 3]}}, [1, 3]),
        ({"specific": {}}, []),
    ],
)
def test_the_policy_selects(policy: dict[str, Any] | None, expected: list[int]) -> None:
    config = ModelConfig(name="m", version_policy=policy)
    assert select_versions(config, [3, 1, 10, 2]) == expected


def test_no_versions_are_no_versions() -> None:
    policies: list[dict[str, Any] | None] = [None, {"all": {}}, {"latest": {"num_versions": 1}}]
    for policy in policies:
        assert select_versions(ModelConfig(version_policy=policy), []) == []


def test_a_missing_version_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    config = ModelConfig(name="m", version_policy={"specific": {"versions": [2, 7, 7]}})
    with caplog.at_level(logging.ERROR):
        assert select_versions(config, [1, 2]) == [2]
    assert caplog.messages == ["version 7 is specified for model 'm', but the version directory is not present"]


def test_the_view_holds_what_a_request_needs() -> None:
    config = ModelConfig(
        name="m",
        max_batch_size=4,
        input=[
            {"name": "z", "data_type": "TYPE_FP32", "dims": [2, -1], "reshape": {"shape": [-1, 2]}},
            {"name": "a", "data_type": "TYPE_STRING", "dims": [1], "optional": True, "allow_ragged_batch": True},
        ],
        output=[{"name": "y", "data_type": "TYPE_BF16", "dims": [1], "reshape": {}, "label_filename": "labels.txt"}],
        model_transaction_policy={"decoupled": True},
    )
    spec = ModelSpec.from_config(config)
    assert (spec.name, spec.max_batch_size, spec.decoupled) == ("m", 4, True)
    assert list(spec.inputs) == ["z", "a"]
    assert spec.inputs["z"] == TensorSpec("z", datatypes.FP32, (2, -1), reshape=(-1, 2))
    assert spec.inputs["a"] == TensorSpec("a", datatypes.BYTES, (1,), optional=True, allow_ragged_batch=True)
    labelled = TensorSpec("y", datatypes.BF16, (1,), reshape=(), label_filename="labels.txt", byte_size=2)
    assert spec.outputs == {"y": labelled}
    assert spec.output_names == ("y",)
    assert spec.reshaped_inputs == {"z"}
    assert spec.reshaped_outputs == {"y"}
