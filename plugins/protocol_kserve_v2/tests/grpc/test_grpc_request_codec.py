"""The protobuf codec alone: messages into requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.inference import InferenceRequest
from trivet_protocol_kserve_v2.codec import protobuf_request
from trivet_protocol_kserve_v2.codec.protobuf_request import decode_request, parse_request
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    ModelInferRequest,
)


def decode(message: ModelInferRequest) -> InferenceRequest:
    return decode_request(*parse_request(message.SerializeToString())).request


def one_input(datatype: str, shape: list[int], **contents: Any) -> ModelInferRequest:
    return ModelInferRequest(
        model_name="m", inputs=[{"name": "x", "datatype": datatype, "shape": shape, "contents": contents}]
    )


class TestTypedContents:
    @pytest.mark.parametrize(
        ("datatype", "field", "values"),
        [
            ("BOOL", "bool_contents", [True, False, True]),
            ("INT8", "int_contents", [-128, 0, 127]),
            ("INT16", "int_contents", [-32768, 0, 32767]),
            ("INT32", "int_contents", [-(2**31), 0, 2**31 - 1]),
            ("INT64", "int64_contents", [-(2**63), 0, 2**63 - 1]),
            ("UINT8", "uint_contents", [0, 1, 255]),
            ("UINT16", "uint_contents", [0, 1, 65535]),
            ("UINT32", "uint_contents", [0, 1, 2**32 - 1]),
            ("UINT64", "uint64_contents", [0, 1, 2**64 - 1]),
            ("FP32", "fp32_contents", [0.5, -0.0, float("inf")]),
            ("FP64", "fp64_contents", [0.1, -1e300, float("-inf")]),
            ("BYTES", "bytes_contents", [b"", b"a\x00", "ä".encode()]),
        ],
    )
    def test_every_datatype_that_has_a_field(self, datatype: str, field: str, values: list[Any]) -> None:
        tensor = decode(one_input(datatype, [3, 1], **{field: values})).inputs["x"]

        assert tensor.datatype is datatypes.BY_NAME[datatype]
        assert tensor.shape == (3, 1)
        assert tensor.numpy().reshape(-1).tolist() == values

    @given(st.lists(st.floats(width=32), min_size=1))
    def test_floats_keep_every_bit(self, values: list[float]) -> None:
        tensor = decode(one_input("FP32", [len(values)], fp32_contents=values)).inputs["x"]

        assert bytes(tensor.wire()) == np.array(values, "<f4").tobytes()

    def test_an_integer_that_does_not_fit_keeps_its_lowest_bytes(self) -> None:
        tensor = decode(one_input("INT8", [2], int_contents=[300, -200])).inputs["x"]

        assert tensor.numpy().tolist() == [44, 56]

    @pytest.mark.parametrize(("datatype", "shape"), [("FP32", [0]), ("BYTES", [2, 0])])
    def test_a_tensor_without_elements(self, datatype: str, shape: list[int]) -> None:
        assert decode(one_input(datatype, shape)).inputs["x"].numpy().shape == tuple(shape)

    def test_strings_too_few_are_left_for_validation(self) -> None:
        tensor = decode(one_input("BYTES", [3], bytes_contents=[b"a", b"bc"])).inputs["x"]

        assert bytes(tensor.wire()) == b"\x01\x00\x00\x00a\x02\x00\x00\x00bc"

    @pytest.mark.parametrize(
        ("datatype", "contents", "message"),
        [
            ("FP16", {"fp32_contents": [1.0]}, "of type 'FP32', expected datatype 'FP16'"),
            ("BF16", {"fp32_contents": [1.0]}, "of type 'FP32', expected datatype 'BF16'"),
            ("UINT8", {"int_contents": [1]}, "of type 'INT32', expected datatype 'UINT8'"),
            ("INT64", {"int_contents": [1]}, "of type 'INT32', expected datatype 'INT64'"),
            ("FP31", {"fp32_contents": [1.0]}, "of type 'FP32', expected datatype '<invalid>'"),
            ("FP32", {"fp32_contents": [1.0], "fp64_contents": [1.0]}, ", binary data was already supplied."),
        ],
    )
    def test_what_does_not_fit_is_refused(self, datatype: str, contents: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            decode(one_input(datatype, [1], **contents))

        where = "unexpected explicit tensor data for input tensor 'x' for model 'm'"
        separator = "" if message.startswith(",") else " "
        assert str(caught.value) == f"{where}{separator}{message}"


class TestRawContents:
    @pytest.mark.parametrize("size", [4, 100_000])
    def test_small_and_large(self, size: int) -> None:
        array = np.arange(size, dtype=np.float32)
        message = ModelInferRequest(model_name="m", raw_input_contents=[array.tobytes(), b"\x01"])
        message.inputs.add(name="x", datatype="FP32", shape=[size])
        message.inputs.add(name="y", datatype="BOOL", shape=[1])

        request = decode(message)

        np.testing.assert_array_equal(request.inputs["x"].numpy(), array)
        assert request.inputs["y"].numpy().tolist() == [True]

    def test_a_large_tensor_is_a_view_of_what_was_received(self) -> None:
        message = ModelInferRequest(model_name="m", raw_input_contents=[bytes(100_000)])
        message.inputs.add(name="x", datatype="UINT8", shape=[100_000])
        data = message.SerializeToString()

        wire = decode_request(*parse_request(data)).request.inputs["x"].wire()

        assert isinstance(wire, memoryview)
        assert wire.obj is data

    def test_more_than_inputs_are_ignored(self) -> None:
        message = ModelInferRequest(model_name="m", raw_input_contents=[b"\x01", b"\x02"])
        message.inputs.add(name="x", datatype="BOOL", shape=[1])

        assert decode(message).inputs.keys() == {"x"}

    def test_fewer_than_inputs_are_refused(self) -> None:
        message = ModelInferRequest(model_name="m", raw_input_contents=[b"\x01"])
        message.inputs.add(name="x", datatype="BOOL", shape=[1])
        message.inputs.add(name="y", datatype="BOOL", shape=[1])

        with pytest.raises(InvalidArgumentError, match=r"^unable to find data for input tensor 'y' for model 'm' in"):
            decode(message)

    def test_typed_contents_beside_them_are_refused(self) -> None:
        message = one_input("BOOL", [1], bool_contents=[True])
        message.raw_input_contents.append(b"\x01")

        with pytest.raises(InvalidArgumentError, match=r"^contents field must not be specified when using raw_input_c"):
            decode(message)

    def test_an_input_given_twice_is_refused(self) -> None:
        message = ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"\x01", b"\x01"])
        message.inputs.add(name="x", datatype="BOOL", shape=[1])
        message.inputs.add(name="x", datatype="BOOL", shape=[1])

        with pytest.raises(InvalidArgumentError, match=r"^\[request id: 7\] input 'x' already exists in request$"):
            decode(message)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_request_or_an_error_for_the_caller(data: bytes, large: bool) -> None:
    cut_from = protobuf_request._CUT_FROM
    protobuf_request._CUT_FROM = 0 if large else cut_from
    try:
        message, raw = parse_request(data)
        decode_request(message, raw)
    except TrivetError:
        pass
    finally:
        protobuf_request._CUT_FROM = cut_from


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x3a\xff\xff\x7f" + bytes(40_000)])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(InternalError, match=r"^Unable to parse request$"):
        parse_request(data)
