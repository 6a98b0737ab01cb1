"""Decoding inference requests. As in Triton, what is not well-formed is an internal error (500)."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.errors import InternalError, InvalidArgumentError, NotFoundError, TrivetError
from trivet.inference import InferenceRequest
from trivet_protocol_kserve_v2.codec.json_request import decode_request


def model(max_batch_size: int = 0, **inputs: tuple[int, list[int]]) -> ModelSpec:
    config = ModelConfig(name="m", max_batch_size=max_batch_size)
    for name, (data_type, dims) in inputs.items():
        config.input.add(name=name, data_type=data_type, dims=dims)
    return ModelSpec.from_config(config)


SPEC = model(x=(11, [-1]))


def decode(document: Any, binary: bytes = b"", spec: ModelSpec = SPEC) -> InferenceRequest:
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_request(header + binary, len(header) if binary else None, spec)


def tensor(**fields: Any) -> dict[str, Any]:
    """A document with one input; a field of ``...`` is left out."""
    given = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **fields}
    return {"inputs": [{key: value for key, value in given.items() if value is not ...}]}


def of_size(size: Any, **fields: Any) -> dict[str, Any]:
    return tensor(data=..., parameters={"binary_data_size": size}, **fields)


class TestWholeRequest:
    def test_fields_of_their_own_and_the_rest_for_the_model(self) -> None:
        parameters = {
            "sequence_id": 7,
            "sequence_start": True,
            "sequence_end": True,
            "priority": 2,
            "timeout": 1000,
            "flag": True,
            "count": -3,
            "ratio": 0.5,
            "text": "hello",
            "big": 2**63,
        }
        request = decode({"id": "abc", "parameters": parameters, **tensor()})
        assert (request.id, request.correlation_id, request.priority, request.timeout_us) == ("abc", 7, 2, 1000)
        assert request.sequence_start
        assert request.sequence_end
        assert request.parameters == {"flag": True, "count": -3, "ratio": 0.5, "text": "hello", "big": 2.0**63}
        assert request.outputs is None
        assert not request.context.binary

    def test_a_sequence_may_be_named_by_text(self) -> None:
        assert decode({"parameters": {"sequence_id": "mine"}, **tensor()}).correlation_id == "mine"

    def test_outputs(self) -> None:
        outputs = [
            {"name": "a", "parameters": {"binary_data": True}},
            {"name": "b", "parameters": {"classification": 3}},
            {"name": "b", "parameters": {"classification": 5}},
            {"name": "c"},
        ]
        request = decode({"parameters": {"binary_data_output": True}, "outputs": outputs, **tensor()})
        assert request.outputs is not None
        assert [(o.name, o.classification) for o in request.outputs] == [("a", 0), ("b", 3), ("c", 0)]
        assert request.context.outputs == {"a": True, "b": False, "c": False}
        assert request.context.binary

    def test_no_outputs_named_is_all_outputs(self) -> None:
        assert decode({"outputs": [], **tensor()}).outputs is None

    def test_binary_and_json_mixed(self) -> None:
        inputs = [
            {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
            {"name": "b", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]},
            {"name": "c", "datatype": "UINT8", "shape": [0], "parameters": {"binary_data_size": 0}},
            {"name": "d", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 7}},
        ]
        request = decode({"inputs": inputs}, struct.pack("<hh", 1, -2) + struct.pack("<I", 3) + b"abc")
        values = {name: value.numpy().tolist() for name, value in request.inputs.items()}
        assert values == {"a": [1, -2], "b": [[True, False]], "c": [], "d": [b"abc"]}

    def test_binary_data_is_not_copied(self) -> None:
        header = json.dumps(of_size(8)).encode()
        body = bytearray(header + bytes(8))
        request = decode_request(body, len(header), SPEC)
        body[len(header) :] = struct.pack("<ff", 1, 2)
        assert request.inputs["x"].numpy().tolist() == [1, 2]


class TestJsonData:
    @pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[1], [[2, 3]], 4], [[[[1, 2, 3, 4]]]]])
    def test_nesting_means_nothing(self, data: Any) -> None:
        request = decode(tensor(shape=[2, 2], data=data))
        assert request.inputs["x"].numpy().tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("datatype", "value", "becomes"),
        [("INT8", 128, -128), ("INT8", -129, 127), ("UINT8", 256, 0), ("UINT32", 2**32, 0), ("INT32", 2**31, -(2**31))],
    )
    def test_integers_are_cut_to_size_as_in_triton(self, datatype: str, value: int, becomes: int) -> None:
        assert decode(tensor(datatype=datatype, shape=[1], data=[value])).inputs["x"].numpy().tolist() == [becomes]

    def test_a_number_too_large_for_fp32_is_infinite(self) -> None:
        assert decode(tensor(shape=[1], data=[1e300])).inputs["x"].numpy().tolist() == [np.inf]

    @pytest.mark.parametrize(
        ("datatype", "value", "problem"),
        [
            ("BOOL", 1, "non-boolean as boolean"),
            ("INT32", True, "non-signed-integer as signed-integer"),
            ("INT32", 1.0, "non-signed-integer as signed-integer"),
            ("INT64", 2**63, "non-signed-integer as signed-integer"),
            ("INT64", 2**64, "non-signed-integer as signed-integer"),
            ("UINT8", -1, "non-unsigned-integer as unsigned-integer"),
            ("UINT64", 2**64, "non-unsigned-integer as unsigned-integer"),
            ("FP32", True, "non-number as double"),
            ("FP64", "1", "non-number as double"),
            ("FP64", None, "non-number as double"),
            ("FP64", {}, "non-number as double"),
        ],
    )
    def test_elements_of_another_kind(self, datatype: str, value: Any, problem: str) -> None:
        with pytest.raises(InternalError, match=f"^Unable to parse 'data': attempt to access JSON {problem}$"):
            decode(tensor(datatype=datatype, shape=[1], data=[value]))

    @pytest.mark.parametrize("data", [[1], [1, 2, 3], []])
    def test_more_or_fewer_elements_than_the_shape_says(self, data: list[int]) -> None:
        with pytest.raises(InternalError, match=r"^Unable to parse 'data': Shape does not match true shape of 'data'"):
            decode(tensor(data=data))

    def test_a_kind_is_looked_at_before_the_count(self) -> None:
        with pytest.raises(InternalError, match="non-number"):
            decode(tensor(data=[1, "2", 3]))
        with pytest.raises(InternalError, match="Shape does not match"):
            decode(tensor(data=[1, 2, "3"]))

    @pytest.mark.parametrize("datatype", ["FP16", "BF16"])
    def test_datatypes_without_a_json_form(self, datatype: str) -> None:
        with pytest.raises(InvalidArgumentError, match=f"^receiving {datatype} data via JSON is not supported"):
            decode(tensor(datatype=datatype))

    def test_no_elements_need_no_data(self) -> None:
        assert decode(tensor(shape=[0, 3], data=["whatever"])).inputs["x"].numpy().shape == (0, 3)

    def test_a_scalar(self) -> None:
        assert decode(tensor(shape=[], data=[5])).inputs["x"].numpy().shape == ()

    def test_strings_are_utf8_or_the_bytes_that_came(self) -> None:
        text = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[3],"data":["a","\xc3\xa9","\xff"]}]}'
        assert decode(text).inputs["x"].numpy().tolist() == [b"a", "é".encode(), b"\xff"]

    def test_numbers_that_json_lacks(self) -> None:
        text = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}]}'
        assert str(decode(text).inputs["x"].numpy().tolist()) == "[nan, inf, -inf]"


class TestRefused:
    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ([], "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
            ({"inputs": {}}, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
            ({"id": 5, "inputs": []}, "Unable to parse 'id': attempt to access JSON non-string as string"),
            (tensor(name=...), "Unable to parse 'name': attempt to access non-existing object member 'name'"),
            (tensor(name=5), "Unable to parse 'name': attempt to access JSON non-string as string"),
            (tensor(datatype=5), "Unable to parse 'datatype': attempt to access JSON non-string as string"),
            (tensor(shape=5), "Unable to parse 'shape': attempt to access JSON non-array as array"),
            (
                tensor(shape=[-2]),
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer",
            ),
            (
                tensor(shape=[2.0]),
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer",
            ),
            (tensor(data={}), "Unable to parse 'data': attempt to access JSON non-array as array"),
            (
                tensor(datatype="BYTES"),
                "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
            ),
            ({**tensor(), "outputs": 5}, "Unable to parse 'outputs': attempt to access JSON non-array as array"),
            (
                {**tensor(), "outputs": [5]},
                "Unable to parse 'name': attempt to access non-existing object member 'name'",
            ),
            ({**tensor(), "parameters": []}, "failed to get request params.: attempt to get members for non-object"),
        ],
    )
    def test_not_well_formed(self, document: Any, message: str) -> None:
        with pytest.raises(InternalError) as caught:
            decode(document)
        assert str(caught.value) == message

    @pytest.mark.parametrize("value", [-1, "64", 64.0, None, True, 2**64])
    def test_a_size_that_is_none(self, value: Any) -> None:
        with pytest.raises(InternalError, match=r"^Unable to parse 'binary_data_size': attempt to access JSON non-uns"):
            decode(of_size(value), bytes(8))

    @pytest.mark.parametrize(
        ("document", "binary", "message"),
        [
            (of_size(9), bytes(8), "unexpected size for input 'x', expecting 1 additional bytes for model 'm'"),
            (of_size(2**63), bytes(8), f"unexpected size for input 'x', expecting {2**63 - 8} additional bytes"),
            (of_size(8), b"", "unexpected size for input 'x', expecting 8 additional bytes for model 'm'"),
            (of_size(7), bytes(8), "unexpected additional input data for model 'm'"),
            (tensor(), bytes(8), "unexpected additional input data for model 'm'"),
            (tensor(datatype="FP33"), b"", "invalid datatype for input x"),
            (tensor(data=...), b"", "'shared_memory_region' in 'parameters'. But no field is set"),
            (tensor(parameters={"binary_data_size": 8}), b"", "But set 'data' 'binary_data_size'"),
            ({"inputs": tensor()["inputs"] * 2}, b"", "[request id: <id_unknown>] input 'x' already exists in request"),
            (
                tensor(shape=[2**64 - 1]),
                b"",
                "All input dimensions should be specified for input 'x' for model 'm', got [-1]",
            ),
            ({"parameters": {"triton_x": 1}, **tensor()}, b"", "parameter keys starting with 'triton_' are reserved"),
            ({"parameters": {"a": None}, **tensor()}, b"", "parameter 'a' has invalid type."),
            ({"parameters": {"a": {}}, **tensor()}, b"", "parameter 'a' has invalid type."),
        ],
    )
    def test_contradictions(self, document: Any, binary: bytes, message: str) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            decode(document, binary)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("parameters", "what"),
        [
            ({"sequence_id": -1}, "sequence_id"),
            ({"sequence_start": 1}, "sequence_start"),
            ({"sequence_end": "yes"}, "sequence_end"),
            ({"priority": "1"}, "priority"),
            ({"timeout": -1}, "timeout"),
            ({"binary_data_output": 1}, "binary_data_output"),
        ],
    )
    def test_parameters_of_the_protocol(self, parameters: Any, what: str) -> None:
        with pytest.raises(InternalError, match=f"^Unable to parse '{what}': attempt to access JSON non-"):
            decode({"parameters": parameters, **tensor()})

    def test_shared_memory_that_nobody_registered(self) -> None:
        with pytest.raises(NotFoundError, match=r"^Unable to find shared memory region: 'r'$"):
            decode(tensor(data=..., parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8}))
        with pytest.raises(NotFoundError, match=r"^Unable to find shared memory region: 'r'$"):
            decode({**tensor(), "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]})

    @pytest.mark.parametrize("other", ["classification", "binary_data"])
    def test_shared_memory_excludes(self, other: str) -> None:
        parameters = {"shared_memory_region": "r", other: 1 if other == "classification" else True}
        with pytest.raises(InvalidArgumentError, match=f"^Output can't set both 'shared_memory_region' and '{other}'"):
            decode({**tensor(), "outputs": [{"name": "y", "parameters": parameters}]})


class TestRaw:
    """A header length of 0: the body is the only input's data."""

    def raw(self, body: bytes, spec: ModelSpec) -> Any:
        request = decode_request(body, 0, spec)
        assert request.context.binary
        (value,) = request.inputs.values()
        return value.numpy()

    def test_a_batch_of_one(self) -> None:
        assert self.raw(bytes(8), model(8, x=(11, [2]))).shape == (1, 2)

    def test_the_variable_dimension_is_found(self) -> None:
        assert self.raw(bytes(24), model(x=(11, [2, -1]))).shape == (2, 3)

    def test_one_string(self) -> None:
        assert self.raw(b"hello", model(4, x=(13, [1]))).tolist() == [[b"hello"]]

    @pytest.mark.parametrize(
        ("body", "spec", "message"),
        [
            (bytes(7), model(x=(11, [2])), "input byte size mismatch for input 'raw_input' for model 'm'. Expected 8,"),
            (bytes(8), model(x=(11, [2]), y=(11, [2])), "Raw request must only have 1 input (found 1) to be deduced"),
            (bytes(8), model(x=(11, [-1, -1])), "can not be deduced because there are more than one variable-sized"),
            (b"abc", model(x=(13, [-1])), "For BYTE datatype raw input 'x', the model must have input shape [1]"),
        ],
    )
    def test_refused(self, body: bytes, spec: ModelSpec, message: str) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            decode_request(body, 0, spec)
        assert message in str(caught.value)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([[], {}, [[]], "FP32", "BYTES", "x", 2**63, -1, [1, 2], [2], [0], ["a"]]),
)


@given(
    st.dictionaries(
        st.sampled_from(["id", "parameters", "inputs", "outputs"]),
        ODD
        | st.lists(
            st.dictionaries(
                st.sampled_from(["name", "datatype", "shape", "data", "parameters"]),
                ODD
                | st.dictionaries(
                    st.sampled_from(["binary_data_size", "binary_data", "classification", "shared_memory_region"]), ODD
                ),
            ),
            max_size=3,
        ),
    ),
    st.binary(max_size=9),
)
def test_documents_with_anything_anywhere(document: Any, binary: bytes) -> None:
    with contextlib.suppress(TrivetError):
        decode(document, binary)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_a_request_or_refused(body: bytes, json_size: int) -> None:
    with contextlib.suppress(TrivetError):
        decode_request(body, min(json_size, len(body)), SPEC)


@pytest.mark.parametrize("datatype", datatypes.ALL, ids=repr)
def test_every_datatype_comes_in_as_bytes(datatype: datatypes.DataType) -> None:
    data = struct.pack("<I", 2) + b"ab" if datatype is datatypes.BYTES else bytes(datatype.itemsize)
    request = decode(of_size(len(data), datatype=datatype.name, shape=[1]), data)
    assert request.inputs["x"].datatype is datatype
    assert bytes(request.inputs["x"].wire()) == data
