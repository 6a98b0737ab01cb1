"""Ensembles through tritonclient over real sockets: both protocols, a stream, and clients that go away."""

from __future__ import annotations

import queue
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from ensemble_models import Operations, Repository
from tritonclient.utils import InferenceServerException
from trivet.plugins import PluginRegistry
from trivet.testing import RunningServer, running_server

ONE = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.fixture
def server(tmp_path: Path, operations: Operations) -> Iterator[RunningServer]:
    models = Repository(tmp_path)
    models.model("m")
    models.model("r", "repeat")
    models.model("slow", "wait")
    models.ensemble("chain", ("m", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    models.ensemble("stream", ("r", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    models.ensemble("waits", ("m", {"x": "I"}, {"y": "t"}), ("slow", {"x": "t"}, {"y": "O"}))
    registry = PluginRegistry([*PluginRegistry.discover().plugins, operations.registry().plugins[0]])
    with running_server(tmp_path, registry=registry, model_control_mode="explicit", load_model=["*"]) as running:
        yield running
        operations.gates["slow"].set()


def given(client: Any, value: np.ndarray[Any, Any] = ONE) -> list[Any]:
    tensor = client.InferInput("I", value.shape, "FP32")
    tensor.set_data_from_numpy(value)
    return [tensor]


@pytest.mark.parametrize("client", [http_client, grpc_client], ids=["http", "grpc"])
def test_a_request_and_its_failures(server: RunningServer, client: Any) -> None:
    url = server.http_url if client is http_client else server.grpc_url
    with client.InferenceServerClient(url) as connection:
        result = connection.infer("chain", given(client), request_id="7")
        np.testing.assert_array_equal(result.as_numpy("O"), ONE + 2)
        with pytest.raises(InferenceServerException, match="in ensemble 'chain', negative input"):
            connection.infer("chain", given(client, -ONE))
        connection.unload_model("m")
        assert not connection.is_model_ready("chain")
        with pytest.raises(
            InferenceServerException, match="Request for unknown model: 'chain' has no available versions"
        ):
            connection.infer("chain", given(client))
        connection.load_model("m")
        assert connection.is_model_ready("chain")


def test_a_stream_has_a_response_for_each_of_the_decoupled_model(server: RunningServer) -> None:
    arrived: queue.Queue[Any] = queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc_url) as connection:
        connection.start_stream(lambda result, error: arrived.put(error or result.as_numpy("O")[0, 0]))
        for count in (3, 2):
            connection.async_stream_infer("stream", given(grpc_client, np.full((1, 4), count, np.float32)))
            assert [arrived.get(timeout=30) for _ in range(count)] == [count + number + 1 for number in range(count)]
        connection.stop_stream()


def test_a_cancelled_call_reaches_the_model_of_a_step(server: RunningServer, operations: Operations) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc_url) as connection:
        call = connection.async_infer("waits", given(grpc_client), lambda result, error: answers.put(error))
        assert operations.started["slow"].wait(30)
        call.cancel()
        assert "cancel" in str(answers.get(timeout=30)).lower()
    assert operations.cancelled("slow")


def test_a_client_that_hangs_up_frees_the_model_of_a_step(server: RunningServer, operations: Operations) -> None:
    host, port = server.http_url.split(":")
    body = b'{"inputs":[{"name":"I","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
    head = b"POST /v2/models/waits/infer HTTP/1.1\r\nHost: trivet\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + body)
        assert operations.started["slow"].wait(30)
    assert operations.cancelled("slow")


def test_metrics_count_an_ensemble_like_any_model(server: RunningServer) -> None:
    with http_client.InferenceServerClient(server.http_url) as connection:
        connection.infer("chain", given(http_client))
    with urlopen(f"http://{server.url('metrics')}/metrics", timeout=30) as response:
        metrics = response.read().decode()
    assert re.search(r'nv_inference_request_success{model="chain",version="1"} 1(\.0)?\n', metrics)
    assert re.search(r'nv_inference_request_success{model="m",version="1"} 2(\.0)?\n', metrics)
