"""Configurations are read from text, YAML and JSON, and mistakes are named with place, field and fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from config_samples import configs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trivet.config import (
    ModelConfig,
    find_config,
    parse_json_config,
    parse_text_config,
    parse_yaml_config,
    read_config,
    to_dict,
    to_json,
)
from trivet.errors import InvalidArgumentError

TEXT = """
backend: "python"  # who runs it
max_batch_size: 8
input [
  { name: "A", data_type: TYPE_FP32, dims: [ 4, -1 ] },
  { name: "C" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output { name: "B" data_type: TYPE_BF16 dims: 4 label_filename: "labels.txt" }
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 }
parameters { key: "p" value { string_value: "v" } }
"""
YAML = """
backend: python
max_batch_size: 8
input:
  - {name: A, data_type: TYPE_FP32, dims: [4, -1]}
  - name: C
    data_type: TYPE_STRING
    dims: [1]
    optional: true
output:
  - {name: B, data_type: TYPE_BF16, dims: [4], label_filename: labels.txt}
dynamic_batching: {preferred_batch_size: [2, 4], max_queue_delay_microseconds: 100}
parameters:
  p: {string_value: v}
"""
JSON = json.dumps(yaml.safe_load(YAML))


def model(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_three_notations_say_the_same(tmp_path: Path) -> None:
    read = [
        read_config(model(tmp_path / "text", config_pbtxt=TEXT), "m"),
        read_config(model(tmp_path / "yaml", config_yaml=YAML), "m"),
        read_config(model(tmp_path / "yml", config_yml=YAML), "m"),
        read_config(model(tmp_path / "json", config_json=JSON), "m"),
    ]
    first = read[0]
    assert first.name == "m"
    assert [tensor.name for tensor in first.input] == ["A", "C"]
    assert first.input[0].dims == [4, -1]
    assert first.parameters["p"].string_value == "v"
    assert all(config == first for config in read)


def test_no_file_is_an_empty_configuration_of_that_name(tmp_path: Path) -> None:
    assert read_config(tmp_path, "m") == ModelConfig(name="m")
    assert find_config(tmp_path) is None


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    assert read_config(model(tmp_path / "a", config_pbtxt=""), "m") == ModelConfig(name="m")
    assert read_config(model(tmp_path / "b", config_yaml="# nothing\n"), "m") == ModelConfig(name="m")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b'\xef\xbb\xbfbackend: "python"')
    assert read_config(tmp_path, "m").backend == "python"


def test_two_files_are_one_too_many(tmp_path: Path) -> None:
    model(tmp_path, config_pbtxt=TEXT, config_yaml=YAML)
    with pytest.raises(InvalidArgumentError) as error:
        read_config(tmp_path, "m")
    assert str(error.value) == (
        f"{tmp_path}/config.pbtxt and {tmp_path}/config.yaml are both there, and a model has one configuration; remove"
        " one of them"
    )


def test_a_named_configuration_comes_first_and_the_common_one_stands_in(tmp_path: Path) -> None:
    model(tmp_path, config_pbtxt="max_batch_size: 3", configs__h100_pbtxt="max_batch_size: 5")
    assert read_config(tmp_path, "m").max_batch_size == 3
    assert read_config(tmp_path, "m", "h100").max_batch_size == 5
    assert read_config(tmp_path, "m", "other").max_batch_size == 3
    with pytest.raises(InvalidArgumentError, match="must be the name of a file in 'configs/'"):
        read_config(tmp_path, "m", "../secret")


def test_a_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    model(tmp_path, config_pbtxt='name: "other"')
    with pytest.raises(InvalidArgumentError) as error:
        read_config(tmp_path, "m")
    assert str(error.value).startswith(
        "unexpected directory name 'm' for model 'other', directory name must equal model name; rename the directory"
    )


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgumentError, match=r"config\.pbtxt: not UTF-8 text"):
        read_config(tmp_path, "m")


def text_error(parse: Callable[[str, str], ModelConfig], text: str) -> str:
    with pytest.raises(InvalidArgumentError) as error:
        parse(text, "f")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch_size: 8\ninput { name: 'A'\n  data_typ: TYPE_FP32 }",
            "f:3:3: ModelInput has no field 'data_typ'; did you mean 'data_type'?",
        ),
        ("dynamc_batching {}", "f:1:1: ModelConfig has no field 'dynamc_batching'; did you mean 'dynamic_batching'?"),
        (
            "input { data_type: FP32 }",
            "f:1:20: DataType has no value 'FP32'; did you mean 'TYPE_FP32'?",
        ),
        ("max_batch_size: 'x'", "f:1:17: Couldn't parse integer: 'x'"),
        ("max_batch_size: 99999999999", "f:1:17: Value out of range: 99999999999"),
        (
            "dynamic_batching {} sequence_batching {}",
            'f:1:21: Field "sequence_batching" is specified along with field "dynamic_batching"',
        ),
        ("input {", 'f:1:7: Expected "}".'),
    ],
)
def test_mistakes_in_text_are_explained(text: str, message: str) -> None:
    assert text_error(parse_text_config, text).startswith(message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"foo": 1}', "f:1:2: foo: unknown field"),
        ('{"batch_size": 1}', "f:1:2: batch_size: unknown field; did you mean 'max_batch_size'?"),
        (
            '{\n "input": [\n  {"name": "A"},\n  {"nme": "B"}\n ]}',
            "f:4:4: input[1].nme: unknown field; did you mean 'name'?",
        ),
        (
            '{"input": [{"data_type": "TYPE_FP33"}]}',
            "f:1:13: input[0].data_type: has no value 'TYPE_FP33'; did you mean 'TYPE_FP32'?",
        ),
        ('{"max_batch_size": "x"}', "f:1:2: max_batch_size: must be a whole number, not 'x'"),
        ('{"max_batch_size": true}', "f:1:2: max_batch_size: must be a whole number, not 'true'"),
        ('{"max_batch_size": 1.5}', "f:1:2: max_batch_size: must be a whole number, not '1.5'"),
        (
            '{"max_batch_size": 1099511627776}',
            "f:1:2: max_batch_size: must be from -2147483648 to 2147483647, not '1099511627776'",
        ),
        ('{"input": [{"dims": [1, "y"]}]}', "f:1:25: input[0].dims[1]: must be a whole number, not 'y'"),
        ('{"input": {}}', "f:1:2: input: must be a list, not a mapping; write it in [ ]"),
        ('{"optimization": []}', "f:1:2: optimization: must be a mapping of fields, not a list"),
        (
            '{"parameters": {"a": {"string_value": 4}}}',
            'f:1:23: parameters.a.string_value: must be text, not a number; write it in quotes: "4"',
        ),
        ('{"response_cache": {"enable": 1}}', "f:1:21: response_cache.enable: must be true or false, not '1'"),
        (
            '{"dynamic_batching": {}, "sequence_batching": {}}',
            "f:1:26: sequence_batching: cannot be set beside 'dynamic_batching'; keep one of them",
        ),
        (
            '{"max_batch_size": 1, "maxBatchSize": 2}',
            "f:1:23: maxBatchSize: cannot be set beside 'max_batch_size'; keep one of them",
        ),
        ('{"backend": "\\ud800"}', "f:1:2: backend: is not valid Unicode: it holds half of a surrogate pair"),
        ('{"backend": "python",}', "f:1:22: not valid JSON: "),
        ("", "f:1:1: not valid JSON: Expecting value"),
        ("[1]", "f:1:1: must be a mapping of fields, not a list"),
        ("null", "f:1:1: must be a mapping of fields, not nothing"),
        ('{"name": "a", "name": "b"}', "f: not valid JSON: 'name' is there twice in one object"),
    ],
)
def test_mistakes_in_json_are_explained(value: str, message: str) -> None:
    assert text_error(parse_json_config, value).startswith(message)


def test_every_mistake_is_named_at_once() -> None:
    text = '{"max_batch_size": "x",\n "input": [{"dims": "y", "shape": 1}]}'
    assert text_error(parse_json_config, text).splitlines() == [
        "f:1:2: max_batch_size: must be a whole number, not 'x'",
        "f:2:13: input[0].dims: must be a list, not text; write it in [ ]",
        "f:2:26: input[0].shape: unknown field; did you mean 'reshape'?",
    ]


def test_a_document_of_mistakes_ends_after_some() -> None:
    text = json.dumps({"k" * 1000 + str(index): index for index in range(10_000)})
    lines = text_error(parse_json_config, text).splitlines()
    assert len(lines) == 20
    assert all(len(line) < 200 for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backend: python\nmax_batchsize: 2\n", "f:2:1: max_batchsize: unknown field; did you mean 'max_batch_size'?"),
        ("input:\n- name: yes\n", 'f:2:3: input[0].name: must be text, not a boolean; write it in quotes: "true"'),
        ("input:\n- dims: 4\n", "f:2:3: input[0].dims: must be a list, not a number; write it in [ ]"),
        ("input:\n- dims: [1,\n    a]\n", "f:3:5: input[0].dims[1]: must be a whole number, not 'a'"),
        ("backend: [", "f:1:11: not valid YAML: "),
        ("backend: a\nbackend: b\n", "f:2:1: not valid YAML: 'backend' is there twice in one mapping"),
        ("a: &x [*x]", "f: not valid: nested too deeply, or an alias contains itself"),
        ("- 1", "f:1:1: must be a mapping of fields, not a list"),
        ("? [1]\n: 2", "f:1:3: not valid YAML: a key must be plain text"),
    ],
)
def test_mistakes_in_yaml_are_explained(text: str, message: str) -> None:
    assert text_error(parse_yaml_config, text).startswith(message)


def test_yaml_may_share_parts() -> None:
    text = "input:\n- &a {name: A, dims: [1]}\n- &b {<<: *a, name: B}\n- *b\n- {<<: *b, dims: [2]}\n"
    tensors = [(t.name, list(t.dims)) for t in parse_yaml_config(text, "f").input]
    assert tensors == [("A", [1]), ("B", [1]), ("B", [1]), ("B", [2])]


def test_json_takes_what_protobuf_takes() -> None:
    text = """{"maxBatchSize": "7", "platform": null, "input": [{"data_type": "type_fp32", "dims": [4.0, "-1"]},
      {"data_type": 11}], "dynamic_batching": {"priority_queue_policy": {"3": {"max_queue_size": 1}}},
      "sequence_batching": null,
      "model_metrics": {"metric_control": [{"histogram_options": {"buckets": [1, "NaN"]}}]}}"""
    config = parse_json_config(text, "f")
    assert config.max_batch_size == 7
    assert [list(tensor.dims) for tensor in config.input] == [[4, -1], []]
    assert [tensor.data_type for tensor in config.input] == [11, 11]
    assert config.dynamic_batching.priority_queue_policy[3].max_queue_size == 1


@pytest.mark.parametrize("parse", [parse_json_config, parse_yaml_config])
def test_deep_nesting_is_refused(parse: Callable[[str, str], ModelConfig]) -> None:
    assert "nested too deeply" in text_error(parse, '{"input":' + "[" * 100_000)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    assert "not valid JSON" in text_error(parse_json_config, '{"max_batch_size": ' + "9" * 5000 + "}")


# Drawing any configuration takes a while on a machine that is busy; that is no fault of what is tested.
_PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])


@_PATIENT
@given(configs())
@example(ModelConfig(sequence_batching={"control_input": [{"control": [{"fp32_false_true": [-0.0, 1]}]}]}))
def test_what_is_shown_as_json_reads_back(config: ModelConfig) -> None:
    assert parse_json_config(to_json(config), "f") == config


@_PATIENT
@given(configs())
def test_what_is_written_as_yaml_reads_back(config: ModelConfig) -> None:
    # Written with escapes: as it is, PyYAML writes U+0085 in a way that it reads back as a line break.
    assert parse_yaml_config(yaml.safe_dump(to_dict(config)), "f") == config


@_PATIENT
@given(configs())
def test_what_is_written_as_text_reads_back(config: ModelConfig) -> None:
    assert parse_text_config(str(config), "f") == config


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["input", "name", "dims", "data_type", "latest", "x", "0"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([*ModelConfig.DESCRIPTOR.fields_by_name, "x"]), _VALUES, max_size=3))
def test_any_json_object_is_read_or_refused(value: dict[str, object]) -> None:
    for parse, text in ((parse_json_config, json.dumps(value)), (parse_yaml_config, yaml.safe_dump(value))):
        with suppress(InvalidArgumentError):
            parse(text, "f")


@settings(max_examples=200)
@given(st.text(alphabet="{}[]:,\"'\n -#&*!|<\\abc01", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_json_config, parse_yaml_config, parse_text_config):
        with suppress(InvalidArgumentError):
            parse(text, "f")
