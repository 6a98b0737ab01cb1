"""Models that call models, asked by an unmodified tritonclient over real sockets."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from onnx import TensorProto, helper
from trivet.testing import RunningServer

CONFIG = """
backend: "python"
input [{ name: "X" data_type: TYPE_FP32 dims: [2] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [2] }]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"

PRELUDE = f"""
import asyncio
import numpy as np
import triton_python_backend_utils as pb_utils
from {__name__} import EVENTS

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def request(model, x):
    inputs = [pb_utils.Tensor("X", np.asarray(x, np.float32))]
    return pb_utils.InferenceRequest(model_name=model, requested_output_names=["Y"], inputs=inputs)

def values(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response.output_tensors()[0].as_numpy()

def answer(y):
    return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.asarray(y, np.float32))])
"""

# The server runs in this process, so that a test and a model can tell each other how far they are.
EVENTS = {name: threading.Event() for name in ("entered", "cancelled", "ended")}

MODELS = {
    # Python to ONNX to Python.
    "increment": """
class TritonPythonModel:
    def execute(self, requests):
        return [answer(r.inputs()[0].as_numpy() + 1) for r in requests]
""",
    "chain": """
class TritonPythonModel:
    async def execute(self, requests):
        doubled = await asyncio.gather(*(request("twice", r.inputs()[0].as_numpy()).async_exec() for r in requests))
        return [answer(values(request("increment", values(y)).exec())) for y in doubled]
""",
    "count": """
class TritonPythonModel:
    def execute(self, requests):
        for r in requests:
            sender = r.get_response_sender()
            for i in range(int(r.inputs()[0].as_numpy()[0])):
                EVENTS["entered"].set()
                if sender.is_cancelled():
                    EVENTS["cancelled"].set()
                    break
                sender.send(answer([i, i]))
            sender.send(flags=FINAL)
""",
    "relay": """
class TritonPythonModel:
    async def execute(self, requests):
        for r in requests:
            sender = r.get_response_sender()
            async for response in await request("count", r.inputs()[0].as_numpy()).async_exec(decoupled=True):
                if response.has_error():
                    EVENTS["ended"].set()
                elif response.output_tensors():
                    sender.send(answer(values(response)))
            sender.send(flags=FINAL)
""",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trivet_server: Callable[..., RunningServer]) -> RunningServer:
    repository: Path = tmp_path_factory.mktemp("repository")
    for name, source in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(PRELUDE + source)
        group = "" if name in ("count", "relay") else "instance_group [{ count: 2 }]"
        decoupled = DECOUPLED if name in ("count", "relay") else ""
        (repository / name / "config.pbtxt").write_text(CONFIG + group + decoupled)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "XY")
    graph = helper.make_graph([helper.make_node("Add", ["X", "X"], ["Y"])], "twice", [x], [y])
    (repository / "twice" / "1").mkdir(parents=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), repository / "twice" / "1" / "model.onnx")
    return trivet_server(repository, model_control_mode="explicit", load_model=["*"])


def tensor(client: Any, *numbers: float) -> list[Any]:
    made = client.InferInput("X", [2], "FP32")
    made.set_data_from_numpy(np.array(numbers, np.float32))
    return [made]


def test_python_to_onnx_to_python_from_many_clients(server: RunningServer) -> None:
    def ask(i: int) -> list[float]:
        # A client of its own: the library's HTTP client belongs to one thread.
        with http_client.InferenceServerClient(server.http_url) as client:
            result: list[float] = client.infer("chain", tensor(http_client, i, -i)).as_numpy("Y").tolist()
        return result

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(60))) == [[2 * i + 1, -2 * i + 1] for i in range(60)]


def test_a_stream_through_a_coroutine(server: RunningServer) -> None:
    received: queue.Queue[tuple[grpc_client.InferResult, Exception | None]] = queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: received.put((result, error)))
        client.async_stream_infer("relay", tensor(grpc_client, 50, 0), enable_empty_final_response=True)
        found = []
        while True:
            result, error = received.get(timeout=60)
            assert error is None
            if result.get_response().parameters["triton_final_response"].bool_param:
                break
            found.append(result.as_numpy("Y").tolist())
        client.stop_stream()
    assert found == [[i, i] for i in range(50)]


def test_a_client_that_goes_away_cancels_what_was_made_for_it(server: RunningServer) -> None:
    for event in EVENTS.values():
        event.clear()
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: None)
        client.async_stream_infer("relay", tensor(grpc_client, 1e9, 0))
        assert EVENTS["entered"].wait(60)
        client.stop_stream(cancel_requests=True)
        assert EVENTS["cancelled"].wait(60)
        assert EVENTS["ended"].wait(60)
