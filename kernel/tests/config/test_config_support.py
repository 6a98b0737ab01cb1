"""Fields that nothing implements are refused or warned about, and none is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from config_samples import ONNX, configs, plain
from hypothesis import given
from trivet.config import ModelConfig, normalize, parse_json_config, unsupported
from trivet.config.descriptors import fields_of, map_parts
from trivet.config.support import IMPLEMENTED, NOT_IMPLEMENTED


def leaves(descriptor: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all fields that hold no other message."""
    for field in fields_of(descriptor):
        path = f"{prefix}.{field.name}" if prefix else field.name
        if field.message_type is None or map_parts(field) or not field.message_type.fields:
            yield path
        else:
            yield from leaves(field.message_type, path)


def covering(path: str, table: Any) -> list[str]:
    return [entry for entry in table if path == entry or path.startswith(f"{entry}.")]


ALL = list(leaves(ModelConfig.DESCRIPTOR))


@pytest.mark.parametrize("path", ALL)
def test_every_field_of_the_schema_is_accounted_for_once(path: str) -> None:
    """A part of what is not implemented may be listed apart from the rest."""
    assert len(covering(path, IMPLEMENTED)) == (not covering(path, NOT_IMPLEMENTED))


def test_every_entry_is_a_field_of_the_schema() -> None:
    for entry in [*IMPLEMENTED, *NOT_IMPLEMENTED]:
        assert any(path == entry or path.startswith(f"{entry}.") for path in ALL), entry


def found(config: dict[str, Any], *supported: str) -> list[tuple[str, str]]:
    parsed = parse_json_config(json.dumps(config), "test")
    return [(gap.field, gap.action) for gap in unsupported(parsed, supported)]


def test_what_is_implemented_is_not_reported() -> None:
    config = parse_json_config(json.dumps(plain(parameters={"a": {"string_value": "b"}})), "test")
    assert unsupported(config) == []
    normalize(config, backend=ONNX)
    assert unsupported(config) == []


def test_the_report_names_the_field_and_what_a_model_goes_without() -> None:
    (gap,) = unsupported(ModelConfig(sequence_batching={}))
    assert gap.refused
    assert gap.message == (
        "field 'sequence_batching' is not supported: requests of one sequence would go to any instance, without their"
        " controls"
    )
    (gap,) = unsupported(ModelConfig(metric_tags={"a": "b"}))
    assert not gap.refused
    assert gap.message == "field 'metric_tags' is ignored: the model's metrics go without it"


def test_a_field_is_reported_once_however_often_it_is_set() -> None:
    config = plain(input=[{"is_non_linear_format_io": True}, {"is_non_linear_format_io": True}], metric_tags={"a": "b"})
    assert found(config) == [("input.is_non_linear_format_io", "refused"), ("metric_tags", "warned")]


def test_a_plugin_claims_a_field_with_everything_below() -> None:
    config = plain(dynamic_batching={"preferred_batch_size": [4], "default_queue_policy": {"max_queue_size": 1}})
    assert found(config) == [("dynamic_batching", "warned")]
    assert found(config, "dynamic_batching") == []
    assert found(plain(dynamic_batching={})) == [("dynamic_batching", "warned")]
    assert found(plain(dynamic_batching={}), "dynamic_batching") == []


def test_a_plugin_may_claim_a_part() -> None:
    claim = "optimization.execution_accelerators.cpu_execution_accelerator"
    cpu = {"cpu_execution_accelerator": [{"name": "openvino"}]}
    gpu = {"gpu_execution_accelerator": [{"name": "tensorrt"}]}
    assert found(plain(optimization={"execution_accelerators": cpu}), claim) == []
    assert found(plain(optimization={"execution_accelerators": cpu | gpu}), claim) == [
        ("optimization.execution_accelerators.gpu_execution_accelerator.name", "warned")
    ]
    assert found(plain(model_operations={}), "model_operations.op_library_filename") == []
    assert found(plain(model_operations={})) == [("model_operations", "refused")]


def test_a_part_that_is_listed_apart_is_not_claimed_with_the_rest() -> None:
    """Nobody finds models by namespace, whoever runs ensembles."""
    step = {"model_name": "m", "model_namespace": "n", "input_map": {"a": "b"}}
    config = plain(ensemble_scheduling={"step": [step]})
    assert found(config, "ensemble_scheduling") == [("ensemble_scheduling.step.model_namespace", "warned")]
    assert found(config, "ensemble_scheduling", "ensemble_scheduling.step.model_namespace") == []


def test_asking_for_the_default_asks_for_nothing() -> None:
    assert found(plain(response_cache={"enable": False}, optimization={"input_pinned_memory": {"enable": True}})) == []
    assert found(plain(metric_tags={"a": "b"})) == [("metric_tags", "warned")]
    assert found(plain(optimization={"input_pinned_memory": {"enable": False}})) == [
        ("optimization.input_pinned_memory", "warned")
    ]


@given(configs())
def test_any_configuration_is_sorted_out(config: ModelConfig) -> None:
    for gap in unsupported(config):
        assert gap.field in NOT_IMPLEMENTED
    assert unsupported(config, NOT_IMPLEMENTED) == []
