"""Control inputs in every form that a configuration can ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from trivet.config.model_config_pb2 import ModelConfig
from trivet_scheduler_sequence.controls import Controls


def controls(text: str, max_batch_size: int = 4) -> Controls:
    config = f'name: "m" max_batch_size: {max_batch_size} sequence_batching {{ {text} }}'
    return Controls(text_format.Parse(config, ModelConfig()))


def flag(kind: str, values: str) -> Controls:
    return controls(f'control_input {{ name: "C" control {{ kind: CONTROL_SEQUENCE_{kind} {values} }} }}')


@pytest.mark.parametrize(
    ("values", "dtype", "false", "true"),
    [
        ("int32_false_true: [ 0, 1 ]", np.int32, 0, 1),
        ("int32_false_true: [ -5, 7 ]", np.int32, -5, 7),
        ("fp32_false_true: [ 0.5, -1 ]", np.float32, 0.5, -1),
        ("bool_false_true: [ false, true ]", np.bool_, False, True),
        ("bool_false_true: [ true, false ]", np.bool_, True, False),
    ],
)
def test_flags_have_the_type_and_the_values_of_the_configuration(
    values: str, dtype: Any, false: Any, true: Any
) -> None:
    def given(kind: str, start: bool, end: bool) -> Any:
        array = flag(kind, values).step(start, end)["C"].numpy()
        assert array.dtype == dtype
        assert array.shape == (1, 1)
        return array.item()

    assert [given("START", start, False) for start in (False, True)] == [false, true]
    assert [given("END", False, end) for end in (False, True)] == [false, true]
    assert given("READY", False, False) == true
    assert flag("READY", values).not_ready["C"].numpy().item() == false


@pytest.mark.parametrize(
    ("datatype", "id", "expected"),
    [
        ("TYPE_UINT64", 2**64 - 1, 2**64 - 1),
        ("TYPE_INT64", 2**64 - 1, -1),
        ("TYPE_UINT32", 2**32 + 7, 7),
        ("TYPE_INT32", 2**32 - 2, -2),
        ("TYPE_STRING", "speaker 1", b"speaker 1"),
        ("TYPE_STRING", "fünf", "fünf".encode()),
        ("TYPE_STRING", 42, b"42"),
    ],
)
def test_a_correlation_id_has_the_type_of_its_control(datatype: str, id: int | str, expected: Any) -> None:
    made = controls(f'control_input {{ name: "C" control {{ kind: CONTROL_SEQUENCE_CORRID data_type: {datatype} }} }}')
    made.check(id)
    assert made.correlation_id(id)["C"].numpy().tolist() == [[expected]]
    assert made.correlation_id(id)["C"].datatype.config_name == datatype
    assert not made.not_ready["C"].numpy().item()


def test_without_a_batch_dimension_a_control_has_none() -> None:
    made = controls(
        'control_input { name: "S" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }'
        'control_input { name: "C" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }',
        max_batch_size=0,
    )
    assert made.step(True, False)["S"].shape == (1,)
    assert made.correlation_id("a")["C"].shape == (1,)


def test_a_model_without_controls_gets_none() -> None:
    made = controls("")
    assert {**made.step(True, True), **made.correlation_id(1), **made.not_ready} == {}


def test_flags_are_shared_and_nobody_can_write_to_them() -> None:
    made = flag("START", "int32_false_true: [ 0, 1 ]")
    array = made.step(True, False)["C"].numpy()
    with pytest.raises(ValueError, match="read-only"):
        array[:] = 0
