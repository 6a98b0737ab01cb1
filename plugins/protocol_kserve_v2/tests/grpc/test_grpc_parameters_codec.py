"""The protobuf codec alone: parameters of requests, inputs and outputs."""

from __future__ import annotations

from typing import Any

import pytest
from host_regions import HostRegions
from trivet.errors import InvalidArgumentError, NotFoundError
from trivet.inference import InferenceRequest
from trivet_protocol_kserve_v2.codec.protobuf_request import DecodedRequest, decode_request, parse_request
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    InferParameter,
    ModelInferRequest,
)


def decode(message: ModelInferRequest) -> InferenceRequest:
    return decode_request(*parse_request(message.SerializeToString())).request


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
        region = bytearray(16)
        region[offset : offset + 4] = b"abcd"
        parameters = {"shared_memory_region": REGION, "shared_memory_byte_size": SIZE}
        if offset:
            parameters["shared_memory_offset"] = {"int64_param": offset}
        message = ModelInferRequest(
            model_name="m", inputs=[{"name": "x", "datatype": "UINT8", "shape": [4], "parameters": parameters}]
        )

        memory = SharedMemory({"system": HostRegions(r=region)})
        request = decode_request(*parse_request(message.SerializeToString()), memory).request

        assert request.inputs["x"].numpy().tobytes() == b"abcd"

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
