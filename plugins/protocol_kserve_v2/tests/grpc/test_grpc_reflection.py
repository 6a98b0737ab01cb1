"""Server reflection, as grpcurl uses it: everything there is can be found, and called, without our classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from trivet.testing import RunningServer
from trivet_protocol_kserve_v2.proto.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from .rpc import Rpc


class Reflected:
    """Asks a server about itself, and gathers what it says in a pool of its own."""

    def __init__(self, rpc: Rpc, version: str) -> None:
        self._rpc = rpc
        self._path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        self.pool = descriptor_pool.DescriptorPool()

    def ask(self, **question: Any) -> ServerReflectionResponse:
        ask = self._rpc.channel.stream_stream(
            self._path,
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        (answer,) = ask(iter([ServerReflectionRequest(host="h", **question)]), timeout=20)
        return answer

    def services(self) -> list[str]:
        return [service.name for service in self.ask(list_services="*").list_services_response.service]

    def learn(self, symbol: str) -> None:
        answer = self.ask(file_containing_symbol=symbol)
        assert answer.WhichOneof("message_response") == "file_descriptor_response", answer.error_response
        files = [FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]
        for file in reversed(files):
            self.pool.Add(file)


@pytest.fixture
def rpc(server: RunningServer) -> Iterator[Rpc]:
    with Rpc(server.grpc_url) as connected:
        yield connected


@pytest.fixture(params=["v1", "v1alpha"])
def reflected(rpc: Rpc, request: pytest.FixtureRequest) -> Reflected:
    return Reflected(rpc, request.param)


def test_services_are_listed(reflected: Reflected) -> None:
    assert reflected.services() == [
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ]


def test_every_listed_service_is_described(reflected: Reflected) -> None:
    for name in reflected.services():
        reflected.learn(name)
        assert reflected.pool.FindServiceByName(name).methods

    methods = {method.name for method in reflected.pool.FindServiceByName("inference.GRPCInferenceService").methods}
    assert {"ModelInfer", "ModelStreamInfer", "LogSettings"} <= methods


def test_a_method_can_be_called_by_its_description_alone(reflected: Reflected, rpc: Rpc) -> None:
    reflected.learn("inference.GRPCInferenceService")
    method = reflected.pool.FindMethodByName("inference.GRPCInferenceService.ModelConfig")
    kinds = [message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)]

    answer = kinds[1].FromString(
        rpc.send("/inference.GRPCInferenceService/ModelConfig", kinds[0](name="double").SerializeToString())
    )

    assert answer.config.name == "double"


def test_a_file_by_name_comes_with_its_imports(reflected: Reflected) -> None:
    answer = reflected.ask(file_by_filename="grpc_service.proto")

    files = answer.file_descriptor_response.file_descriptor_proto
    assert [FileDescriptorProto.FromString(f).name for f in files] == ["grpc_service.proto", "model_config.proto"]
    assert answer.valid_host == "h"
    assert answer.original_request.file_by_filename == "grpc_service.proto"


def test_messages_have_no_extensions(reflected: Reflected) -> None:
    answer = reflected.ask(all_extension_numbers_of_type="inference.ModelConfig")

    assert answer.all_extension_numbers_response.base_type_name == "inference.ModelConfig"
    assert not answer.all_extension_numbers_response.extension_number


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "nope.proto"},
        {"file_containing_symbol": "no.Symbol"},
        {"all_extension_numbers_of_type": "no.Message"},
        {"file_containing_extension": ExtensionRequest(containing_type="inference.ModelConfig", extension_number=1)},
    ],
)
def test_what_does_not_exist_is_an_error_in_the_answer(reflected: Reflected, question: dict[str, Any]) -> None:
    error = reflected.ask(**question).error_response

    assert error.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert error.error_message


def test_a_question_that_asks_nothing(reflected: Reflected) -> None:
    assert reflected.ask().error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_question_that_is_no_message(rpc: Rpc) -> None:
    ask = rpc.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")

    with pytest.raises(grpc.RpcError) as caught:
        list(ask(iter([b"\xff\xff\xff"]), timeout=20))

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "Unable to parse request")
