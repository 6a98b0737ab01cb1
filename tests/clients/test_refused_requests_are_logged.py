"""The access log has one line for a request that is refused, whoever refuses it: protocol or engine."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import queue
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from python_models import ECHO
from tritonclient.utils import InferenceServerException
from trivet import access_log
from trivet.testing import RunningServer, running_server

CONFIG = """
backend: "python"
input { name: "X" data_type: TYPE_FP32 dims: 1 }
output { name: "Y" data_type: TYPE_FP32 dims: 1 }
"""
GOOD = json.dumps({"id": "7", "inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1]}]}).encode()
TWO = json.dumps({"id": "7", "inputs": [{"name": "X", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}).encode()
GZIP = {"content-encoding": "gzip"}
KEY, SECRET = "x-key", "secret"
METHOD = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module", params=["aio", "native"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = tmp_path_factory.mktemp("models")
    (models / "m" / "1").mkdir(parents=True)
    (models / "m" / "1" / "model.py").write_text(ECHO)
    (models / "m" / "config.pbtxt").write_text(CONFIG)
    with running_server(
        models,
        log_access=True,
        grpc_server=request.param,
        http_max_decompressed_size=1000,
        http_restricted_api=[f"inference:{KEY}={SECRET}"],
        grpc_restricted_protocol=[f"inference:{KEY}={SECRET}"],
    ) as running:
        yield running


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the access log has had since the test began."""
    found: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Lines()
    with caplog.at_level(logging.INFO, access_log.logger.name):
        access_log.logger.addHandler(handler)
        yield found
        access_log.logger.removeHandler(handler)


def post(server: RunningServer, path: str, body: bytes, headers: Mapping[str, str], *, key: str = SECRET) -> str:
    """The error that the server answers with."""
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{path}", body, {KEY: key, **headers})
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status >= 400
        return str(answer["error"])
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "body", "headers", "named"),
    [
        ("nobody/infer", GOOD, {}, "model=nobody"),
        ("m/versions/9/infer", GOOD, {}, "model=m version=9"),
        ("m/versions/first/infer", GOOD, {}, "model=m version=first"),
        ("m/infer", b"{", {}, "model=m"),
        ("m/infer", GOOD, {"inference-header-content-length": "9999"}, "model=m"),
        ("m/infer", TWO, {}, "model=m request_id=7"),
        ("m/infer", GOOD, GZIP, "model=m"),
        ("m/infer", gzip.compress(TWO), GZIP, "model=m request_id=7"),
        ("m/infer", gzip.compress(bytes(2000)), GZIP, "model=m"),
        ("m/infer", GOOD, {"content-encoding": "br"}, "model=m"),
        ("nobody/infer", GOOD, {"accept-encoding": "gzip"}, "model=nobody"),
        ("nobody/generate", b"{}", {}, "model=nobody"),
        ("m/generate", b"[]", {}, "model=m"),
        ("m/generate", b"{}", {}, "model=m"),
        ("m/generate_stream", b"{", {}, "model=m"),
        ("m/generate_stream", b"{}", {"content-encoding": "gzip"}, "model=m"),
    ],
)
def test_over_http(
    server: RunningServer, lines: list[str], path: str, body: bytes, headers: Mapping[str, str], named: str
) -> None:
    error = post(server, path, body, headers)
    (line,) = lines
    assert line.startswith(f"{named} status=")
    assert line.endswith(f" error={error!r}")


def test_over_http_without_the_secret(server: RunningServer, lines: list[str]) -> None:
    errors = [post(server, f"m/{what}", GOOD, {}, key="guess") for what in ("infer", "generate", "generate_stream")]
    assert lines == [f"model=m status=unavailable error={error!r}" for error in errors]


def test_only_inference_requests_are_logged(server: RunningServer, lines: list[str]) -> None:
    post(server, "nobody/trace/setting", b"{}", {})
    assert lines == []


def in_region(name: str) -> triton.InferInput:
    x = triton.InferInput("X", (1,), "FP32")
    x.set_shared_memory(name, 4)
    return x


def request(model: str = "m", datatype: str = "FP32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    x = triton.InferInput("X", shape, datatype)
    x.set_data_from_numpy(np.ones(shape, np.float32 if datatype == "FP32" else np.int32))
    return {"model_name": model, "inputs": [x], "request_id": "7"}


REFUSED = [
    (request("nobody"), "model=nobody request_id=7 status='not found'"),
    (request() | {"model_version": "9"}, "model=m version=9 request_id=7 status='not found'"),
    (request() | {"inputs": [in_region("nowhere")]}, "model=m request_id=7 status='not found'"),
    (request(datatype="INT32"), "model=m request_id=7 status='invalid argument'"),
    (request(shape=(2,)), "model=m request_id=7 status='invalid argument'"),
]
WITH_SECRET = {f"triton-grpc-protocol-{KEY}": SECRET}


@pytest.mark.parametrize(("asked", "line"), REFUSED)
def test_over_grpc(server: RunningServer, lines: list[str], asked: dict[str, Any], line: str) -> None:
    with triton.InferenceServerClient(server.grpc_url) as client, pytest.raises(InferenceServerException) as raised:
        client.infer(**asked, headers=WITH_SECRET)
    assert lines == [f"{line} error={raised.value.message()!r}"]


@pytest.mark.parametrize(("asked", "line"), REFUSED)
def test_over_a_stream(server: RunningServer, lines: list[str], asked: dict[str, Any], line: str) -> None:
    answers: queue.Queue[tuple[Any, InferenceServerException]] = queue.Queue()
    with triton.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=WITH_SECRET)
        client.async_stream_infer(**asked)
        _, error = answers.get(timeout=30)
        client.stop_stream()
    assert lines == [f"{line} error={error.message()!r}"]


@pytest.mark.parametrize("metadata", [(), tuple(WITH_SECRET.items())], ids=["without the secret", "no message"])
def test_what_is_no_message_or_must_not_be_asked_has_no_model(
    server: RunningServer, lines: list[str], metadata: tuple[tuple[str, str], ...]
) -> None:
    with grpc.insecure_channel(server.grpc_url) as channel, pytest.raises(grpc.RpcError) as unary:
        channel.unary_unary(METHOD + "ModelInfer")(b"\xff", metadata=metadata, timeout=30)
    with grpc.insecure_channel(server.grpc_url) as channel, pytest.raises(grpc.RpcError) as streamed:
        list(channel.stream_stream(METHOD + "ModelStreamInfer")(iter((b"\xff",)), metadata=metadata, timeout=30))
    status = "internal" if metadata else "unavailable"
    assert lines == [f"status={status} error={raised.value.details()!r}" for raised in (unary, streamed)]
