"""The protobuf codec alone: messages into requests, responses into messages."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.errors import InternalError, InvalidArgumentError, NotFoundError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.memory import MemoryProvider, RegionSlice, RegionStatus
from trivet.tensor import Tensor
from trivet_protocol_kserve_v2.codec import protobuf_request, protobuf_response
from trivet_protocol_kserve_v2.codec.protobuf_request import DecodedRequest, decode_request, parse_request
from trivet_protocol_kserve_v2.codec.protobuf_response import (
    encode_response,
    encode_stream_end,
    encode_stream_error,
    encode_stream_refusal,
    encode_stream_response,
)
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
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


RESERVED = (
    "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with"
    " 'triton_' are allowed: triton_enable_empty_final_response"
)


class TestParameters:
    @staticmethod
    def with_parameter(key: str, **value: Any) -> DecodedRequest:
        message = ModelInferRequest(model_name="m")
        message.parameters[key].CopyFrom(InferParameter(**value))
        return decode_request(*parse_request(message.SerializeToString()))

    @pytest.mark.parametrize(
        ("key", "value", "field", "expected"),
        [
            ("sequence_id", {"int64_param": 5}, "correlation_id", 5),
            ("sequence_id", {"int64_param": -5}, "correlation_id", 2**64 - 5),
            ("sequence_id", {"string_param": "five"}, "correlation_id", "five"),
            ("sequence_start", {"bool_param": True}, "sequence_start", True),
            ("sequence_end", {"bool_param": True}, "sequence_end", True),
            ("priority", {"int64_param": 3}, "priority", 3),
            ("priority", {"uint64_param": 2**63}, "priority", 2**63),
            ("timeout", {"int64_param": 1_000_000}, "timeout_us", 1_000_000),
        ],
    )
    def test_those_with_a_meaning(self, key: str, value: dict[str, Any], field: str, expected: object) -> None:
        request = self.with_parameter(key, **value).request

        assert getattr(request, field) == expected
        assert not request.parameters

    @pytest.mark.parametrize(
        "value",
        [{"bool_param": False}, {"int64_param": -1}, {"string_param": ""}, {"double_param": 1.5}],
    )
    def test_the_callers_own_keep_their_type(self, value: dict[str, Any]) -> None:
        (expected,) = value.values()
        given = self.with_parameter("own", **value).request.parameters["own"]

        assert given == expected
        assert type(given) is type(expected)

    def test_an_empty_final_response_may_be_asked_for(self) -> None:
        asked = self.with_parameter("triton_enable_empty_final_response", bool_param=True)

        assert asked.enable_empty_final_response
        assert not asked.request.parameters

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (
                "sequence_id",
                {"bool_param": True},
                "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
            ),
            (
                "sequence_start",
                {"int64_param": 1},
                "invalid value type for 'sequence_start' parameter, expected bool_param.",
            ),
            ("sequence_end", {}, "invalid value type for 'sequence_end' parameter, expected bool_param."),
            (
                "priority",
                {"string_param": "1"},
                "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
            ),
            ("priority", {"int64_param": -1}, "invalid value for 'priority', expected value >= 0."),
            ("timeout", {"uint64_param": 1}, "invalid value type for 'timeout' parameter, expected int64_param."),
            (
                "triton_enable_empty_final_response",
                {"int64_param": 1},
                "invalid value type for 'triton_enable_empty_final_response' parameter, expected bool_param.",
            ),
            (
                "triton_else",
                {"int64_param": 1},
                RESERVED,
            ),
            (
                "own",
                {"uint64_param": 1},
                "invalid value type for 'own' parameter, expected int64_param, bool_param, or string_param.",
            ),
            ("own", {}, "invalid value type for 'own' parameter, expected int64_param, bool_param, or string_param."),
        ],
    )
    def test_wrong_ones_are_refused(self, key: str, value: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            self.with_parameter(key, **value)

        assert str(caught.value) == message


class OneRegion(MemoryProvider):
    """Sixteen bytes in this process, registered as ``r``."""

    def __init__(self) -> None:
        self.data = bytearray(16)

    def register(self, name: str, byte_size: int, details: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def unregister(self, name: str | None) -> None:
        raise NotImplementedError

    def regions(self) -> Mapping[str, RegionStatus]:
        return {"r": RegionStatus("r", len(self.data), {})}

    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        assert region == "r"
        return OneSlice(memoryview(self.data)[offset : offset + byte_size])


class OneSlice(RegionSlice):
    def __init__(self, view: memoryview) -> None:
        self._view = view

    def tensor(self, name: str, datatype: datatypes.DataType, shape: tuple[int, ...]) -> Tensor:
        return Tensor.from_wire(name, datatype, shape, self._view)

    def write(self, tensor: Tensor) -> int:
        data = tensor.wire()
        self._view[:] = data
        return len(self._view)


REGION = {"string_param": "r"}
SIZE = {"int64_param": 4}


class TestTensorParameters:
    @staticmethod
    def with_parameters(
        where: str, contents: dict[str, Any] | None = None, **parameters: dict[str, Any]
    ) -> InferenceRequest:
        message = ModelInferRequest(model_name="m", raw_input_contents=[] if contents else [b"\x01"])
        entry = message.inputs.add(name="x", datatype="BOOL", shape=[1], contents=contents)
        output = message.outputs.add(name="y")
        for key, value in parameters.items():
            (entry if where == "input" else output).parameters[key].CopyFrom(InferParameter(**value))
        return decode(message)

    @pytest.mark.parametrize("where", ["input", "output"])
    def test_unknown_ones_are_ignored(self, where: str) -> None:
        assert self.with_parameters(where, foo={"int64_param": 1}, binary_data_size={"int64_param": 1}).inputs

    def test_classification(self) -> None:
        (output,) = self.with_parameters("output", classification={"int64_param": 3}).outputs or ()

        assert (output.name, output.classification) == ("y", 3)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"int64_param": 0}, "invalid value for 'classification' parameter, expected >= 0"),
            ({"int64_param": -1}, "invalid value for 'classification' parameter, expected >= 0"),
            ({"string_param": "1"}, "invalid value type for 'classification' parameter, expected int64_param"),
        ],
    )
    def test_wrong_classification(self, value: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            self.with_parameters("output", classification=value)

        assert str(caught.value) == message

    @pytest.mark.parametrize(("where", "name"), [("input", "x"), ("output", "y")])
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            (
                {"shared_memory_region": REGION},
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for {}",
            ),
            (
                {"shared_memory_offset": SIZE},
                "'shared_memory_offset' can not be specified without 'shared_memory_region' parameter for {}",
            ),
            (
                {"shared_memory_byte_size": SIZE},
                "'shared_memory_byte_size' can not be specified without 'shared_memory_region' parameter for {}",
            ),
            (
                {"shared_memory_region": SIZE},
                "invalid value type for 'shared_memory_region' parameter for {}, expected string_param.",
            ),
            (
                {"shared_memory_region": REGION, "shared_memory_byte_size": REGION},
                "invalid value type for 'shared_memory_byte_size' parameter for {}, expected int64_param.",
            ),
        ],
    )
    def test_shared_memory_needs_region_and_size(
        self, where: str, name: str, parameters: dict[str, dict[str, Any]], message: str
    ) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            self.with_parameters(where, **parameters)

        assert str(caught.value) == message.format(f"tensor '{name}'")

    @pytest.mark.parametrize("where", ["input", "output"])
    def test_no_region_is_known(self, where: str) -> None:
        with pytest.raises(NotFoundError, match=r"^Unable to find shared memory region: 'r'$"):
            self.with_parameters(where, shared_memory_region=REGION, shared_memory_byte_size=SIZE)

    @pytest.mark.parametrize("offset", [0, 4])
    def test_inputs_are_read_from_a_region(self, offset: int) -> None:
        memory = OneRegion()
        memory.data[offset : offset + 4] = b"abcd"
        parameters = {"shared_memory_region": REGION, "shared_memory_byte_size": SIZE}
        if offset:
            parameters["shared_memory_offset"] = {"int64_param": offset}
        message = ModelInferRequest(
            model_name="m", inputs=[{"name": "x", "datatype": "UINT8", "shape": [4], "parameters": parameters}]
        )

        request = decode_request(*parse_request(message.SerializeToString()), SharedMemory({"test": memory})).request

        assert request.inputs["x"].numpy().tobytes() == b"abcd"

    def test_outputs_are_put_into_a_region(self) -> None:
        memory = OneRegion()
        parameters = {"shared_memory_region": REGION, "shared_memory_byte_size": SIZE}
        message = ModelInferRequest(model_name="m", outputs=[{"name": "y", "parameters": parameters}, {"name": "z"}])
        decoded = decode_request(*parse_request(message.SerializeToString()), SharedMemory({"test": memory}))
        decoded.request.model = TestResponses.request().model
        outputs = [Tensor.from_numpy(name, np.array([1, 2, 3, 4], np.uint8)) for name in ("y", "z")]

        encoded = encode_response(decoded.request, InferenceResponse(outputs), decoded.regions)

        answer = ModelInferResponse.FromString(encoded)
        assert [(output.name, list(output.shape)) for output in answer.outputs] == [("y", [4]), ("z", [4])]
        assert list(answer.raw_output_contents) == [b"", bytes((1, 2, 3, 4))]
        assert memory.data[:4] == bytes((1, 2, 3, 4))

    def test_shared_memory_excludes_contents_and_classes(self) -> None:
        with pytest.raises(InvalidArgumentError, match=r"^unexpected 'content' provided when using shared memory for"):
            self.with_parameters(
                "input",
                contents={"bool_contents": [True]},
                shared_memory_region=REGION,
                shared_memory_byte_size=SIZE,
            )
        with pytest.raises(InvalidArgumentError, match=r"^output can't set both 'shared_memory_region' and 'classif"):
            self.with_parameters(
                "output",
                shared_memory_region=REGION,
                shared_memory_byte_size=SIZE,
                classification={"int64_param": 1},
            )

    def test_an_output_asked_for_twice_is_one_output(self) -> None:
        message = ModelInferRequest(model_name="m", outputs=[{"name": "y"}, {"name": "z"}, {"name": "y"}])

        assert [output.name for output in decode(message).outputs or ()] == ["y", "z"]

    def test_without_outputs_all_are_asked_for(self) -> None:
        assert decode(ModelInferRequest(model_name="m")).outputs is None


class TestResponses:
    @staticmethod
    def request(**arguments: Any) -> InferenceRequest:
        request = InferenceRequest("m", {}, id="7", **arguments)
        # Only what identifies a model is read.
        request.model = SimpleNamespace(name="m", version=3, spec=SimpleNamespace(max_batch_size=0), labels={})  # type: ignore[assignment]
        return request

    def test_a_response(self) -> None:
        outputs = [
            Tensor.from_numpy("x", np.arange(4, dtype=np.int16).reshape(2, 2)),
            Tensor.from_numpy("s", np.array([b"a", b""], np.object_)),
            Tensor.from_numpy("e", np.empty((0, 3), np.float32)),
        ]
        parameters = {"flag": True, "count": -7, "ratio": 0.5, "text": "hello"}

        encoded = encode_response(self.request(), InferenceResponse(outputs, parameters=parameters))

        assert ModelInferResponse.FromString(encoded) == ModelInferResponse(
            model_name="m",
            model_version="3",
            id="7",
            parameters={
                "flag": InferParameter(bool_param=True),
                "count": InferParameter(int64_param=-7),
                "ratio": InferParameter(double_param=0.5),
                "text": InferParameter(string_param="hello"),
            },
            outputs=[
                {"name": "x", "datatype": "INT16", "shape": [2, 2]},
                {"name": "s", "datatype": "BYTES", "shape": [2]},
                {"name": "e", "datatype": "FP32", "shape": [0, 3]},
            ],
            raw_output_contents=[bytes((0, 0, 1, 0, 2, 0, 3, 0)), b"\x01\0\0\0a\0\0\0\0", b""],
        )

    def test_classes_replace_the_scores(self) -> None:
        request = self.request(outputs=[RequestedOutput("x", 2)])
        scores = Tensor.from_numpy("x", np.array([0.25, 1, 0.5], np.float32))

        message = ModelInferResponse.FromString(encode_response(request, InferenceResponse([scores])))

        assert (message.outputs[0].datatype, list(message.outputs[0].shape)) == ("BYTES", [2])
        assert message.raw_output_contents[0] == b"\x0a\0\0\x001.000000:1\x0a\0\0\x000.500000:2"

    @pytest.mark.parametrize("final", [True, False])
    def test_in_a_stream(self, final: bool) -> None:
        response = InferenceResponse([Tensor.from_numpy("x", np.zeros(50, np.float64))], final=final)

        message = ModelStreamInferResponse.FromString(encode_stream_response(self.request(), response))

        assert not message.error_message
        assert message.infer_response.parameters["triton_final_response"].bool_param is final
        assert message.infer_response.raw_output_contents[0] == bytes(400)

    def test_ends_and_errors_name_the_model_as_the_caller_did(self) -> None:
        request = self.request(model_version="")
        expected = {"model_name": "m", "id": "7", "parameters": {"triton_final_response": {"bool_param": True}}}

        end = ModelStreamInferResponse.FromString(encode_stream_end(request))
        error = ModelStreamInferResponse.FromString(encode_stream_error(request, "no", final=True))

        assert end == ModelStreamInferResponse(infer_response=expected)
        assert error == ModelStreamInferResponse(error_message="no", infer_response=expected)

    def test_a_refusal_tells_only_whose_it_is(self) -> None:
        message = ModelStreamInferResponse.FromString(encode_stream_refusal("7", "no"))

        assert message == ModelStreamInferResponse(error_message="no", infer_response={"id": "7"})

    def test_a_message_too_large_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protobuf_response, "MAX_MESSAGE_SIZE", 100)
        response = InferenceResponse([Tensor.from_numpy("x", np.zeros(100, np.int8))])

        with pytest.raises(InvalidArgumentError, match=r"^Response has byte size 1\d\d which exceeds gRPC's byte size"):
            encode_response(self.request(), response)
