"""Unmodified tritonclient, in all four forms and streaming, against a whole server over real sockets."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from trivet.testing import RunningServer

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            numbers = pb_utils.get_input_tensor_by_name(request, "NUMBERS").as_numpy()
            words = pb_utils.get_input_tensor_by_name(request, "WORDS").as_numpy()
            shouted = np.array([word.decode().upper() for word in words.reshape(-1)], dtype=object).reshape(words.shape)
            answers.append(pb_utils.InferenceResponse([
                pb_utils.Tensor("DOUBLED", numbers * 2), pb_utils.Tensor("SHOUTED", shouted)]))
        return answers
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "NUMBERS" data_type: TYPE_FP32 dims: [-1] }, { name: "WORDS" data_type: TYPE_STRING dims: [-1] }]
output [{ name: "DOUBLED" data_type: TYPE_FP32 dims: [-1] }, { name: "SHOUTED" data_type: TYPE_STRING dims: [-1] }]
"""

NUMBERS = np.array([[1.5, -2.0, 3.0]], np.float32)
WORDS = np.array([["grüße", ""]], dtype=object)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trivet_server: Callable[..., RunningServer]) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    folder: Path = repository / "mixed" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    return trivet_server(repository, model_control_mode="explicit", load_model=["*"])


def inputs(client: Any) -> list[Any]:
    numbers = client.InferInput("NUMBERS", NUMBERS.shape, "FP32")
    numbers.set_data_from_numpy(NUMBERS)
    words = client.InferInput("WORDS", WORDS.shape, "BYTES")
    words.set_data_from_numpy(WORDS)
    return [numbers, words]


def check(result: Any) -> None:
    assert result.as_numpy("DOUBLED").tolist() == (NUMBERS * 2).tolist()
    words = result.as_numpy("SHOUTED").reshape(-1)
    # The client gives text as str where it came as JSON, and as bytes where it came as binary data.
    assert [word if isinstance(word, str) else word.decode() for word in words] == ["GRÜSSE", ""]


def test_http(server: RunningServer) -> None:
    with http_client.InferenceServerClient(server.http_url, concurrency=4) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("mixed")
        assert client.get_model_metadata("mixed")["inputs"][0] == {
            "name": "NUMBERS",
            "datatype": "FP32",
            "shape": [-1, -1],
        }
        assert client.get_model_config("mixed")["max_batch_size"] == 8
        check(client.infer("mixed", inputs(http_client)))
        plain = [http_client.InferRequestedOutput(name, binary_data=False) for name in ("SHOUTED", "DOUBLED")]
        check(client.infer("mixed", inputs(http_client), outputs=plain, request_id="7"))
        for algorithm in ("gzip", "deflate"):
            check(
                client.infer(
                    "mixed",
                    inputs(http_client),
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
            )
        for waiting in [client.async_infer("mixed", inputs(http_client)) for _ in range(8)]:
            check(waiting.get_result())
        statistics = client.get_inference_statistics("mixed")["model_stats"][0]
        assert statistics["inference_stats"]["success"]["count"] >= 12
        with pytest.raises(http_client.InferenceServerException, match="unknown model: 'nope' is not found"):
            client.infer("nope", inputs(http_client))
        check(client.infer("mixed", inputs(http_client)))


@pytest.mark.anyio
async def test_http_asyncio(server: RunningServer) -> None:
    async with http_aio.InferenceServerClient(server.http_url) as client:
        assert await client.is_server_ready()
        check(await client.infer("mixed", inputs(http_aio)))


def test_grpc(server: RunningServer) -> None:
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("mixed").inputs[0].datatype == "FP32"
        assert client.get_model_config("mixed").config.max_batch_size == 8
        check(client.infer("mixed", inputs(grpc_client)))
        check(client.infer("mixed", inputs(grpc_client), compression_algorithm="gzip"))
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.async_infer("mixed", inputs(grpc_client), callback=lambda result, error: answers.put((result, error)))
        result, error = answers.get(timeout=60)
        assert error is None
        check(result)
        with pytest.raises(grpc_client.InferenceServerException, match=r"StatusCode\.NOT_FOUND"):
            client.infer("nope", inputs(grpc_client))


def test_grpc_stream(server: RunningServer) -> None:
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(5):
            client.async_stream_infer("mixed", inputs(grpc_client), request_id=str(number))
        for number in range(5):
            result, error = answers.get(timeout=60)
            assert error is None
            check(result)
            assert result.get_response().id == str(number)
        client.async_stream_infer("nope", inputs(grpc_client))
        result, error = answers.get(timeout=60)
        assert result is None
        assert "'nope' is not found" in str(error)
        client.stop_stream()


@pytest.mark.anyio
async def test_grpc_asyncio_and_its_stream(server: RunningServer) -> None:
    async with grpc_aio.InferenceServerClient(server.grpc_url) as client:
        assert await client.is_model_ready("mixed")
        check(await client.infer("mixed", inputs(grpc_aio)))

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in range(3):
                yield {"model_name": "mixed", "inputs": inputs(grpc_aio), "request_id": str(number)}

        seen = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            check(result)
            seen.append(result.get_response().id)
        assert seen == ["0", "1", "2"]


def test_models_are_controlled_over_both(server: RunningServer) -> None:
    with (
        http_client.InferenceServerClient(server.http_url) as http,
        grpc_client.InferenceServerClient(server.grpc_url) as grpc,
    ):
        http.unload_model("mixed")
        assert not grpc.is_model_ready("mixed")
        grpc.load_model("mixed")
        assert http.is_model_ready("mixed")
        index = http.get_model_repository_index()
        assert index == [{"name": "mixed", "version": "1", "state": "READY"}]
