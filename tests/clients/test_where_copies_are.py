"""Where a tensor is copied on its way, and where not: what "Moving tensors without copies" says, by addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import shared_memory
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from numpy.typing import NDArray
from trivet import hookimpl
from trivet.backend import ArrayInstance, Backend, BackendModel, InstanceContext, ModelContext, OutputValue
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import RunningServer, running_server

COLUMNS = 1 << 18
TENSORS = f"""
max_batch_size: 4
input {{ name: "X" data_type: TYPE_FP32 dims: {COLUMNS} }}
output {{ name: "Y" data_type: TYPE_FP32 dims: {COLUMNS} }}
"""
STEP = """step {{ model_name: "{}" model_version: -1
  input_map {{ key: "X" value: "{}" }} output_map {{ key: "Y" value: "{}" }} }}"""
MODELS = {
    "first": f'backend: "watching" {TENSORS}',
    "second": f'backend: "watching" {TENSORS}',
    "batched": f"""backend: "watching" {TENSORS}
        dynamic_batching {{ preferred_batch_size: 2 max_queue_delay_microseconds: 60000000 }}""",
    "chain": f"""platform: "ensemble" {TENSORS}
        ensemble_scheduling {{ {STEP.format("first", "X", "between")} {STEP.format("second", "between", "Y")} }}""",
    "calls": f"""backend: "python" {TENSORS}
        output {{ name: "ADDRESS" data_type: TYPE_INT64 dims: 1 }}""",
}
CALLS = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request.inputs()[0].as_numpy() * 3) for request in requests]

    def answer(self, x):
        call = pb_utils.InferenceRequest(
            model_name="second", inputs=[pb_utils.Tensor("X", x)], requested_output_names=["Y"])
        (y,) = call.exec().output_tensors()
        address = np.array([[x.ctypes.data]], np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", y.as_numpy()), pb_utils.Tensor("ADDRESS", address)])
"""


class Execution(NamedTuple):
    """What a model was given and gave."""

    message: memoryview
    """The memory that its input is a part of."""
    x: NDArray[np.float32]
    y: NDArray[np.float32]


class Watching(Backend):
    """Keeps what passes through, so that its memory is not used again."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Execution]] = {}

    def load(self, context: ModelContext) -> BackendModel:
        self.seen[context.name] = []
        return WatchedModel(self.seen[context.name])


class WatchedModel(BackendModel):
    def __init__(self, seen: list[Execution]) -> None:
        self._seen = seen

    def create_instance(self, context: InstanceContext) -> ArrayInstance:
        return WatchedInstance(self._seen)


class WatchedInstance(ArrayInstance):
    def __init__(self, seen: list[Execution]) -> None:
        self._seen = seen

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        x = inputs["X"].numpy()
        self._seen.append(Execution(memoryview(memoryview(inputs["X"].wire()).obj), x, x * 2))
        return {"Y": self._seen[-1].y}


class Server(NamedTuple):
    running: RunningServer
    seen: Mapping[str, list[Execution]]
    sent: list[int]
    """Addresses of the outputs that went to callers."""

    def ask(self, api: Any, model: str, x: NDArray[np.float32]) -> Any:
        """Infer over one of the client libraries."""
        given = api.InferInput("X", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        url = self.running.http_url if api is http_client else self.running.grpc_url
        with api.InferenceServerClient(url) as client:
            return client.infer(model, [given])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    (repository / "calls" / "1" / "model.py").write_text(CALLS)
    watching, sent = Watching(), list[int]()

    class Plugin:
        @hookimpl
        def trivet_backends(self) -> Sequence[BackendPlugin]:
            return [BackendPlugin(name="watching", factory=lambda: watching)]

    def finished(_: InferenceRequest, response: InferenceResponse) -> None:
        sent.extend(address_of(np.frombuffer(output.wire(), np.uint8)) for output in response.outputs)

    registry = PluginRegistry([*PluginRegistry.discover().plugins, *PluginRegistry.of(watching=Plugin()).plugins])
    with running_server(repository, registry=registry) as running:
        running.engine.on_finished.append(finished)
        yield Server(running, watching.seen, sent)


@pytest.fixture(params=[http_client, grpc_client], ids=["http", "grpc"])
def api(request: pytest.FixtureRequest) -> Any:
    """Either of Triton's client libraries."""
    return request.param


def address_of(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


X = np.arange(COLUMNS, dtype=np.float32).reshape(1, COLUMNS)


def test_an_input_is_a_view_of_the_message_that_brought_it(server: Server, api: Any) -> None:
    server.ask(api, "first", X)
    seen = server.seen["first"][-1]
    assert X.nbytes < seen.message.nbytes < X.nbytes + 1000  # head and tensor together
    assert np.shares_memory(np.frombuffer(seen.message, np.uint8), seen.x)


def test_an_output_goes_out_from_where_the_model_left_it(server: Server, api: Any) -> None:
    """Over gRPC as far as the message, which has a copy."""
    assert (server.ask(api, "first", X).as_numpy("Y") == 2 * X).all()
    assert server.sent[-1] == address_of(server.seen["first"][-1].y)


def test_a_model_has_its_input_in_the_memory_that_its_client_shares(server: Server, api: Any) -> None:
    region = shared_memory.SharedMemory(create=True, size=X.nbytes)
    try:
        there: NDArray[np.float32] = np.ndarray(X.shape, np.float32, region.buf)
        there[:] = X
        url = server.running.http_url if api is http_client else server.running.grpc_url
        with api.InferenceServerClient(url) as client:
            client.register_system_shared_memory("r", region.name, X.nbytes)
            given = api.InferInput("X", list(X.shape), "FP32")
            given.set_shared_memory("r", X.nbytes)
            client.infer("first", [given])
            client.unregister_system_shared_memory("r")
        there[:] = 7
        assert (server.seen["first"][-1].x == 7).all()
        del there
    finally:
        region.close()
        region.unlink()


def test_the_next_step_of_an_ensemble_has_the_output_where_the_step_before_left_it(server: Server, api: Any) -> None:
    assert (server.ask(api, "chain", X).as_numpy("Y") == 4 * X).all()
    assert address_of(server.seen["second"][-1].x) == address_of(server.seen["first"][-1].y)


def test_a_model_that_is_called_computes_on_the_callers_array_and_cannot_write_it(server: Server, api: Any) -> None:
    answer = server.ask(api, "calls", X)
    assert (answer.as_numpy("Y") == 6 * X).all()
    seen = server.seen["second"][-1]
    assert answer.as_numpy("ADDRESS").item() == address_of(seen.x)
    assert not seen.x.flags.writeable


def test_several_requests_are_copied_once_and_each_is_answered_with_a_view(server: Server, api: Any) -> None:
    with ThreadPoolExecutor(2) as threads:
        ask: Callable[[int], Any] = lambda factor: server.ask(api, "batched", factor * X).as_numpy("Y")  # noqa: E731
        first, second = threads.map(ask, (1, 2))
    assert (first == 2 * X).all()
    assert (second == 4 * X).all()
    (*_, seen) = server.seen["batched"]
    assert seen.x.shape == (2, COLUMNS)
    assert sorted(server.sent[-2:]) == [address_of(seen.y), address_of(seen.y) + X.nbytes]


def test_what_came_by_http_may_be_written_and_a_message_of_grpc_may_not(server: Server) -> None:
    """So a model that writes into its inputs, as Triton's Python models may, gets a copy of the latter."""
    for api, writable in ((http_client, True), (grpc_client, False)):
        server.ask(api, "first", X)
        assert server.seen["first"][-1].x.flags.writeable is writable
