"""Health, metadata, configuration, statistics and model control over gRPC, on both servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import trivet
from trivet.testing import RunningServer
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb
from trivet_protocol_kserve_v2.proto import health_pb2

from .models import GATE
from .rpc import Rpc, int32, request


@pytest.fixture
def rpc(server: RunningServer) -> Iterator[Rpc]:
    with Rpc(server.grpc_url) as connected:
        yield connected


def refusal(rpc: Rpc, method: str, message: Any = None) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.call(method, message)
    return caught.value.code(), caught.value.details()


def health(rpc: Rpc, service: str = "") -> int:
    payload = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    return health_pb2.HealthCheckResponse.FromString(rpc.send("/grpc.health.v1.Health/Check", payload)).status


def test_the_server_is_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "anything"])
def test_grpcs_own_health_check_tells_readiness(rpc: Rpc, service: str) -> None:
    assert health(rpc, service) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("double", "", True), ("double", "1", True), ("double", "7", False), ("nope", "", False), ("", "", False)],
)
def test_readiness_of_a_model(rpc: Rpc, name: str, version: str, ready: bool) -> None:
    assert rpc.call("ModelReady", pb.ModelReadyRequest(name=name, version=version)).ready is ready


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_a_version_that_is_no_number(rpc: Rpc, method: str) -> None:
    message = getattr(pb, f"{method}Request")(name="double", version="x")

    code, details = refusal(rpc, method, message)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == (
        "failed to get model version from specified version string 'x' (details: stol), version should be an integral"
        " value > 0"
    )


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
def test_what_does_not_exist(rpc: Rpc, method: str) -> None:
    kind = getattr(pb, f"{method}Request")

    assert refusal(rpc, method, kind(name="nope")) == (
        grpc.StatusCode.NOT_FOUND,
        "Request for unknown model: 'nope' is not found",
    )
    assert refusal(rpc, method, kind(name="double", version="7")) == (
        grpc.StatusCode.NOT_FOUND,
        "Request for unknown model: 'double' version 7 is not found",
    )


def test_server_metadata(client: triton.InferenceServerClient, server: RunningServer) -> None:
    metadata = client.get_server_metadata()

    assert (metadata.name, metadata.version) == (server.engine.server_name, trivet.__version__)
    assert list(metadata.extensions) == list(server.engine.extensions)


def test_model_metadata(rpc: Rpc) -> None:
    assert rpc.call("ModelMetadata", pb.ModelMetadataRequest(name="double")) == pb.ModelMetadataResponse(
        name="double",
        versions=["1"],
        platform="models",
        inputs=[{"name": "INPUT0", "datatype": "FP32", "shape": [-1, 16]}],
        outputs=[{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, 16]}],
    )


def test_metadata_of_a_model_without_batches(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("repeat", "1")

    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in metadata.inputs] == [("IN", "INT32", [-1])]


def test_model_configuration(client: triton.InferenceServerClient, server: RunningServer) -> None:
    config = client.get_model_config("double").config

    # What the client's classes read is what the kernel has, byte for byte.
    assert config.SerializeToString(deterministic=True) == server.engine.model("double").config.SerializeToString(
        deterministic=True
    )
    assert (config.name, config.max_batch_size, config.input[0].dims[0]) == ("double", 8, 16)


def test_statistics(rpc: Rpc, client: triton.InferenceServerClient) -> None:
    def counts() -> Any:
        (stats,) = client.get_inference_statistics("double", "1").model_stats
        return stats

    before = counts()
    for rows in (1, 3):
        rpc.call("ModelInfer", request("double", INPUT0=np.zeros((rows, 16), np.float32)))
    after = counts()

    assert (after.name, after.version) == ("double", "1")
    assert after.inference_count - before.inference_count == 4
    assert after.execution_count - before.execution_count == 2
    assert after.inference_stats.success.count - before.inference_stats.success.count == 2
    assert after.inference_stats.queue.ns > before.inference_stats.queue.ns
    assert after.last_inference >= before.last_inference
    assert {1, 3} <= {batch.batch_size for batch in after.batch_stats}
    assert after.inference_stats.HasField("cache_miss")


def test_statistics_of_all_models(rpc: Rpc) -> None:
    names = {stats.name for stats in rpc.call("ModelStatistics").model_stats}

    assert {"double", "echo", "gate", "parameters", "repeat"} <= names


@pytest.mark.parametrize(
    ("version", "details"),
    [("", "requested model 'nope' is not available"), ("1", "requested model 'nope' is not available")],
)
def test_statistics_of_an_unknown_model(rpc: Rpc, version: str, details: str) -> None:
    message = pb.ModelStatisticsRequest(name="nope", version=version)

    assert refusal(rpc, "ModelStatistics", message) == (grpc.StatusCode.INVALID_ARGUMENT, details)


def test_repository_index(rpc: Rpc) -> None:
    models = {(entry.name, entry.version, entry.state, entry.reason) for entry in rpc.call("RepositoryIndex").models}

    assert ("double", "1", "READY", "") in models


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"])
def test_a_repository_cannot_be_named(rpc: Rpc, method: str) -> None:
    message = getattr(pb, f"{method}Request")(repository_name="x")

    assert refusal(rpc, method, message) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "'repository_name' specification is not supported",
    )


@pytest.mark.parametrize(
    ("method", "key", "value", "details"),
    [
        (
            "RepositoryModelLoad",
            "config",
            {"int64_param": 1},
            "invalid value type for load parameter 'config', expected string_param.",
        ),
        (
            "RepositoryModelLoad",
            "file:1/model",
            {"string_param": "x"},
            "invalid value type for load parameter 'file:1/model', expected bytes_param.",
        ),
        ("RepositoryModelLoad", "foo", {"string_param": "x"}, "unrecognized load parameter 'foo'."),
        (
            "RepositoryModelUnload",
            "unload_dependents",
            {"int64_param": 1},
            "invalid value type for 'unload_dependents' parameter, expected bool_param.",
        ),
    ],
)
def test_control_parameters_are_checked(rpc: Rpc, method: str, key: str, value: dict[str, Any], details: str) -> None:
    message = getattr(pb, f"{method}Request")(model_name="double", parameters={key: value})

    assert refusal(rpc, method, message) == (grpc.StatusCode.INVALID_ARGUMENT, details)


def test_loading_what_no_repository_holds(rpc: Rpc) -> None:
    assert refusal(rpc, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nope")) == (
        grpc.StatusCode.INTERNAL,
        "failed to load 'nope', failed to poll from model repository",
    )


def test_unload_and_load(serve: Callable[..., Any], grpc_server: str) -> None:
    with serve(grpc_server=grpc_server) as server, triton.InferenceServerClient(server.grpc_url) as client:
        client.unload_model("double")
        assert not client.is_model_ready("double")
        with Rpc(server.grpc_url) as rpc:
            code, _ = refusal(rpc, "ModelInfer", request("double", INPUT0=np.zeros((1, 16), np.float32)))
            assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)

        config = '{"backend": "models", "max_batch_size": 2, "input": [{"name": "INPUT0", "data_type": "TYPE_FP32",'
        config += ' "dims": [4]}], "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [4]}]}'
        client.load_model("double", config=config)
        assert client.get_model_config("double").config.max_batch_size == 2

        client.load_model("double")
        assert client.get_model_config("double").config.max_batch_size == 8


def test_a_caller_that_gives_up_does_not_stop_an_unload(serve: Callable[..., Any], grpc_server: str) -> None:
    with serve(grpc_server=grpc_server) as server, Rpc(server.grpc_url) as rpc:
        call = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
            request("gate", IN=int32(1201)).SerializeToString()
        )
        GATE.request(1201)
        unload = rpc.channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload").future(
            pb.RepositoryModelUnloadRequest(model_name="gate").SerializeToString()
        )
        unload.cancel()
        GATE.open(1201)

        assert pb.ModelInferResponse.FromString(call.result(20)).model_name == "gate"


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
def test_a_failure_of_the_server_is_an_internal_error_and_logged(
    rpc: Rpc, server: RunningServer, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(server.engine, "model", fail)

    assert refusal(rpc, method) == (grpc.StatusCode.INTERNAL, "Unexpected RuntimeError: no such luck")
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [RuntimeError]
    caplog.clear()


def test_a_server_that_stops_is_not_ready_and_lets_requests_finish(serve: Callable[..., Any], grpc_server: str) -> None:
    with serve(grpc_server=grpc_server) as server, Rpc(server.grpc_url) as rpc:
        call = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
            request("gate", IN=int32(1202)).SerializeToString()
        )
        GATE.request(1202)
        server.call(server.engine.begin_drain)

        assert not rpc.call("ServerReady").ready
        assert health(rpc) == health_pb2.HealthCheckResponse.NOT_SERVING
        code, _ = refusal(rpc, "ModelInfer", request("gate", IN=int32(1)))
        assert code is grpc.StatusCode.UNAVAILABLE
        GATE.open(1202)
        assert pb.ModelInferResponse.FromString(call.result(20)).model_name == "gate"
