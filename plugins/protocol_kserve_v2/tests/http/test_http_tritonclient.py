"""An unmodified ``tritonclient`` over HTTP, and its asyncio version: all that its documentation shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from trivet.testing import RunningServer

triton = pytest.importorskip("tritonclient.http")
triton_aio = pytest.importorskip("tritonclient.http.aio")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

VALUES = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)


@pytest.fixture
def triton_client(server: RunningServer) -> Iterator[Any]:
    connected = triton.InferenceServerClient(server.http_url, concurrency=4)
    yield connected
    connected.close()


def input_tensor(module: Any, name: str, values: Any, datatype: str, binary: bool = True) -> Any:
    tensor = module.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def test_management(triton_client: Any) -> None:
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("double")
    assert not triton_client.is_model_ready("nope")
    assert triton_client.get_server_metadata()["name"] == "trivet"
    assert triton_client.get_model_metadata("double", "1")["versions"] == ["1"]
    assert triton_client.get_model_config("double")["max_batch_size"] == 8
    assert triton_client.get_inference_statistics("double")["model_stats"][0]["name"] == "double"
    assert {"name": "double", "version": "1", "state": "READY"} in triton_client.get_model_repository_index()


def test_model_control(triton_client: Any) -> None:
    config = {**triton_client.get_model_config("double"), "max_batch_size": 4}
    triton_client.load_model("double", config=json.dumps(config))
    assert triton_client.get_model_config("double")["max_batch_size"] == 4
    triton_client.unload_model("double", unload_dependents=True)
    assert not triton_client.is_model_ready("double")
    triton_client.load_model("double")
    assert triton_client.get_model_config("double")["max_batch_size"] == 8


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_inference(triton_client: Any, binary_in: bool, binary_out: bool, coding: str | None) -> None:
    result = triton_client.infer(
        "double",
        [input_tensor(triton, "INPUT0", VALUES, "FP32", binary_in)],
        outputs=[triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out)],
        request_id="abc",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), VALUES * 2)
    assert result.get_response()["id"] == "abc"


@pytest.mark.parametrize("binary", [True, False])
def test_text(triton_client: Any, binary: bool) -> None:
    words = np.array(["ant", "", "bée"], dtype=np.object_)
    outputs = [triton.InferRequestedOutput("O_BYTES", binary_data=binary)]
    result = triton_client.infer("echo", [input_tensor(triton, "I_BYTES", words, "BYTES", binary)], outputs=outputs)
    given = result.as_numpy("O_BYTES").tolist()
    assert [item.decode() if isinstance(item, bytes) else item for item in given] == words.tolist()


def test_bfloat16(triton_client: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1.0, -2.5, 0.0], dtype=ml_dtypes.bfloat16)
    result = triton_client.infer("echo", [input_tensor(triton, "I_BF16", values, "BF16")])
    np.testing.assert_array_equal(result.as_numpy("O_BF16"), values)


def test_classes(triton_client: Any) -> None:
    outputs = [triton.InferRequestedOutput("OUTPUT0", class_count=2)]
    result = triton_client.infer("double", [input_tensor(triton, "INPUT0", VALUES, "FP32")], outputs=outputs)
    assert result.as_numpy("OUTPUT0").shape == (2, 2)
    assert result.as_numpy("OUTPUT0")[1][0] == b"2.000000:15"


def test_parameters(triton_client: Any) -> None:
    result = triton_client.infer(
        "parameters",
        [input_tensor(triton, "IN", np.array([1], np.int32), "INT32")],
        sequence_id=9,
        sequence_start=True,
        sequence_end=True,
        priority=3,
        timeout=5_000_000,
        headers={"x-fwd-a": "1"},
        parameters={"mine": True},
    )
    said = json.loads(result.as_numpy("OUT")[0])
    assert said["parameters"] == {"mine": True, "x-fwd-a": "1"}
    assert (said["correlation_id"], said["priority"], said["timeout_us"]) == (9, 3, 5_000_000)


def test_errors(triton_client: Any) -> None:
    wrong = input_tensor(triton, "INPUT0", np.zeros((1, 15), np.float32), "FP32")
    with pytest.raises(InferenceServerException) as caught:
        triton_client.infer("double", [wrong])
    assert caught.value.status() == "400"
    assert "unexpected shape for input 'INPUT0'" in caught.value.message()


def test_many_at_once(triton_client: Any) -> None:
    tensor = input_tensor(triton, "INPUT0", VALUES, "FP32")
    pending = [triton_client.async_infer("double", [tensor], request_id=str(number)) for number in range(40)]
    assert {request.get_result().get_response()["id"] for request in pending} == set(map(str, range(40)))


@pytest.mark.anyio
async def test_the_asyncio_client(server: RunningServer) -> None:
    async with triton_aio.InferenceServerClient(server.http_url) as client:
        assert await client.is_model_ready("double")
        result = await client.infer("double", [input_tensor(triton_aio, "INPUT0", VALUES, "FP32")])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), VALUES * 2)
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
            await client.get_model_metadata("nope")
