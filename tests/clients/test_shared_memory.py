"""Unmodified tritonclient with tensors in system shared memory, over HTTP, gRPC and a stream."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import tritonclient.utils.shared_memory as shm
from python_models import DOUBLE, ECHO, GATE, REPEAT
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor
from trivet.testing import RunningServer

SHOUT = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy() + b"!")])
                for request in requests]
"""
IN_PLACE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        for x in arrays:
            x *= 2
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]) for x in arrays]
"""
# Says that it has its inputs, and reads them when the test lets it.
HELD = """
import os, time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.folder = Path(args["model_repository"])

    def execute(self, requests):
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        (self.folder / "begun").touch()
        while not (self.folder / "open").exists():
            time.sleep(0.001)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", 2 * x)]) for x in arrays]
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input {{ name: "X" data_type: {0} dims: -1 }}
output {{ name: "Y" data_type: {0} dims: -1 }}
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"
COUNT = 16
SIZE = 4 * COUNT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trivet_server: Callable[..., RunningServer]) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    for name, code, datatype, more in (
        ("double", DOUBLE, "TYPE_FP32", "dynamic_batching {}"),
        ("shout", SHOUT, "TYPE_STRING", ""),
        ("echo", ECHO, "TYPE_FP32", ""),
        ("in_place", IN_PLACE, "TYPE_FP32", ""),
        ("gate", GATE, "TYPE_FP32", ""),
        ("held", HELD, "TYPE_FP32", ""),
        ("repeat", REPEAT, "TYPE_FP32", DECOUPLED),
    ):
        folder: Path = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(code)
        (folder.parent / "config.pbtxt").write_text(CONFIG.format(datatype) + more)
    return trivet_server(repository)


@pytest.fixture(params=["http", "grpc"])
def api(request: pytest.FixtureRequest) -> ModuleType:
    """The client library, over either transport."""
    return http_client if request.param == "http" else grpc_client


@pytest.fixture
def client(api: ModuleType, server: RunningServer) -> Iterator[Any]:
    url = server.http_url if api is http_client else server.grpc_url
    with api.InferenceServerClient(url) as connected:
        # As every example of the client library begins.
        connected.unregister_system_shared_memory()
        connected.unregister_cuda_shared_memory()
        yield connected
        connected.unregister_system_shared_memory()


@contextmanager
def region(client: Any, name: str, byte_size: int = SIZE) -> Iterator[Any]:
    """A region of the client's, registered with the server under the same name."""
    key = f"/trivet_test_{os.getpid()}_{name}"
    handle = shm.create_shared_memory_region(name, key, byte_size)
    try:
        client.register_system_shared_memory(name, key, byte_size)
        yield handle
    finally:
        shm.destroy_shared_memory_region(handle)


def shared_input(api: ModuleType, name: str, shape: tuple[int, ...], datatype: str = "FP32", **where: int) -> Any:
    tensor = api.InferInput("X", shape, datatype)
    tensor.set_shared_memory(name, **({"byte_size": SIZE} | where))
    return tensor


def shared_output(api: ModuleType, name: str, **where: int) -> Any:
    output = api.InferRequestedOutput("Y")
    output.set_shared_memory(name, **({"byte_size": SIZE} | where))
    return output


X = np.arange(COUNT, dtype=np.float32).reshape(1, COUNT)


def test_tensors_in_shared_memory_both_ways(api: ModuleType, client: Any) -> None:
    with region(client, "in") as source, region(client, "out") as target:
        shm.set_shared_memory_region(source, [X])
        result = client.infer(
            "double", [shared_input(api, "in", X.shape)], outputs=[shared_output(api, "out")], request_id="7"
        )
        described = result.get_output("Y")
        shape = described["shape"] if isinstance(described, dict) else described.shape
        assert list(shape) == list(X.shape)
        assert shm.get_contents_as_numpy(target, np.float32, X.shape).tolist() == (2 * X).tolist()


def test_shared_and_inline_tensors_mix(api: ModuleType, client: Any) -> None:
    inline = api.InferInput("X", X.shape, np_to_triton_dtype(X.dtype))
    inline.set_data_from_numpy(X)
    with region(client, "in") as source, region(client, "out") as target:
        client.infer("double", [inline], outputs=[shared_output(api, "out")])
        assert shm.get_contents_as_numpy(target, np.float32, X.shape).tolist() == (2 * X).tolist()
        shm.set_shared_memory_region(source, [X + 1])
        result = client.infer("double", [shared_input(api, "in", X.shape)], outputs=[api.InferRequestedOutput("Y")])
        assert result.as_numpy("Y").tolist() == (2 * X + 2).tolist()


def test_one_region_holds_inputs_and_outputs_side_by_side(api: ModuleType, client: Any) -> None:
    with region(client, "both", 2 * SIZE) as memory:
        shm.set_shared_memory_region(memory, [X])
        client.infer("double", [shared_input(api, "both", X.shape)], outputs=[shared_output(api, "both", offset=SIZE)])
        assert shm.get_contents_as_numpy(memory, np.float32, (2, COUNT)).tolist() == [*X.tolist(), *(2 * X).tolist()]


def test_a_model_that_gives_back_its_input(api: ModuleType, client: Any) -> None:
    big = np.arange(1 << 16, dtype=np.float32).reshape(1, -1)
    with region(client, "in", big.nbytes) as source, region(client, "out", big.nbytes) as target:
        for value in (1, 2):
            shm.set_shared_memory_region(source, [big * value])
            asked = shared_input(api, "in", big.shape, byte_size=big.nbytes)
            # In a region of its own, and where the input lies.
            client.infer("echo", [asked], outputs=[shared_output(api, "out", byte_size=big.nbytes)])
            assert (shm.get_contents_as_numpy(target, np.float32, big.shape) == big * value).all()
            client.infer("echo", [asked], outputs=[shared_output(api, "in", byte_size=big.nbytes)])
            assert (shm.get_contents_as_numpy(source, np.float32, big.shape) == big * value).all()


def test_a_model_that_works_in_place_changes_its_clients_input_only_where_the_output_is_to_be(
    api: ModuleType, client: Any
) -> None:
    """The client asks again with what it has put there once."""
    with region(client, "in") as source, region(client, "out") as target:
        shm.set_shared_memory_region(source, [X])
        asked = shared_input(api, "in", X.shape)
        for wanted in ([], [shared_output(api, "out")]):
            answer = client.infer("in_place", [asked], outputs=wanted or None)
            assert wanted or (answer.as_numpy("Y") == 2 * X).all()
            assert (shm.get_contents_as_numpy(source, np.float32, X.shape) == X).all()
        assert (shm.get_contents_as_numpy(target, np.float32, X.shape) == 2 * X).all()
        client.infer("in_place", [asked], outputs=[shared_output(api, "in")])
        assert (shm.get_contents_as_numpy(source, np.float32, X.shape) == 2 * X).all()


def test_regions_may_overlap(api: ModuleType, client: Any) -> None:
    key = f"/trivet_test_{os.getpid()}_whole"
    whole = shm.create_shared_memory_region("whole", key, 3 * SIZE)
    try:
        client.register_system_shared_memory("left", key, 2 * SIZE)
        client.register_system_shared_memory("right", key, 2 * SIZE, SIZE)
        shm.set_shared_memory_region(whole, [X], offset=SIZE)
        # The second half of the one is the first of the other, and the output lies on half of its own input.
        output = shared_output(api, "left", offset=SIZE // 2)
        client.infer("double", [shared_input(api, "right", X.shape)], outputs=[output])
        assert (shm.get_contents_as_numpy(whole, np.float32, X.shape, offset=SIZE // 2) == 2 * X).all()
    finally:
        shm.destroy_shared_memory_region(whole)


def test_a_region_that_is_forgotten_while_a_request_uses_it(
    api: ModuleType, client: Any, server: RunningServer
) -> None:
    opened = Path(server.engine.options.model_repositories[0], "gate", "open")
    opened.unlink(missing_ok=True)
    url = server.http_url if api is http_client else server.grpc_url

    def ask() -> None:
        with api.InferenceServerClient(url) as other:
            other.infer("gate", [shared_input(api, "in", X.shape)], outputs=[shared_output(api, "out")])

    with region(client, "in") as source, region(client, "out") as target, ThreadPoolExecutor(1) as threads:
        shm.set_shared_memory_region(source, [X])
        asked = threads.submit(ask)
        deadline = time.monotonic() + 30
        while not server.call(lambda: len(server.engine.model("gate").in_flight)):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        client.unregister_system_shared_memory()
        opened.touch()
        asked.result(30)
        assert (shm.get_contents_as_numpy(target, np.float32, X.shape) == 2 * X).all()
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
            client.infer("gate", [shared_input(api, "in", X.shape)])


def test_text_in_shared_memory(api: ModuleType, client: Any) -> None:
    words = np.array([[b"ab", b""]], object)
    wire = b"\2\0\0\0ab\0\0\0\0"
    with region(client, "in", len(wire)) as source, region(client, "out") as target:
        shm.set_shared_memory_region(source, [serialize_byte_tensor(words)])
        client.infer(
            "shout",
            [shared_input(api, "in", words.shape, "BYTES", byte_size=len(wire))],
            outputs=[shared_output(api, "out")],
        )
        assert shm.get_contents_as_numpy(target, np.object_, words.shape).tolist() == [[b"ab!", b"!"]]


def test_requests_that_share_a_batch_each_get_their_own(api: ModuleType, client: Any, server: RunningServer) -> None:
    with region(client, "in", 8 * SIZE) as source, region(client, "out", 8 * SIZE) as target:
        x = np.arange(8 * COUNT, dtype=np.float32).reshape(8, COUNT)
        shm.set_shared_memory_region(source, [x])
        url = server.http_url if api is http_client else server.grpc_url
        options = {"concurrency": 8} if api is http_client else {}
        with api.InferenceServerClient(url, **options) as many:
            answers: queue.Queue[Any] = queue.Queue()
            for row in range(8):
                asked = [shared_input(api, "in", X.shape, offset=row * SIZE)]
                wanted = [shared_output(api, "out", offset=row * SIZE)]
                if api is http_client:
                    answers.put(many.async_infer("double", asked, outputs=wanted))
                else:
                    many.async_infer("double", asked, callback=lambda result, error: answers.put(error), outputs=wanted)
            for _ in range(8):
                answer = answers.get(timeout=30)
                assert answer is None or answer.get_result()
        assert shm.get_contents_as_numpy(target, np.float32, x.shape).tolist() == (2 * x).tolist()


def test_a_decoupled_model_writes_each_response(server: RunningServer) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc_url) as client, region(client, "out") as target:
        client.start_stream(callback=lambda result, error: answers.put(error))
        x = grpc_client.InferInput("X", X.shape, "FP32")
        x.set_data_from_numpy(X)
        client.async_stream_infer("repeat", [x], outputs=[shared_output(grpc_client, "out")])
        assert [answers.get(timeout=30) for _ in range(3)] == [None] * 3
        client.stop_stream()
        assert shm.get_contents_as_numpy(target, np.float32, X.shape).tolist() == (3 * X).tolist()
        client.unregister_system_shared_memory("out")


def test_an_output_that_does_not_fit_fails_its_request_and_no_other(api: ModuleType, client: Any) -> None:
    with region(client, "in") as source, region(client, "out") as target:
        shm.set_shared_memory_region(source, [X])
        with pytest.raises(InferenceServerException, match=r"output 'Y' \(32 bytes\) should be at least 64 bytes"):
            client.infer(
                "double", [shared_input(api, "in", X.shape)], outputs=[shared_output(api, "out", byte_size=32)]
            )
        assert not shm.get_contents_as_numpy(target, np.float32, X.shape).any()
        client.infer("double", [shared_input(api, "in", X.shape)], outputs=[shared_output(api, "out")])
        assert shm.get_contents_as_numpy(target, np.float32, X.shape).any()


def test_regions_that_are_not_there_or_became_smaller_cost_their_request_alone(api: ModuleType, client: Any) -> None:
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'in'"):
        client.infer("double", [shared_input(api, "in", X.shape)])
    with region(client, "in") as source:
        shm.set_shared_memory_region(source, [X])
        os.truncate(f"/dev/shm/trivet_test_{os.getpid()}_in", 10)
        with pytest.raises(InferenceServerException, match="has 10 bytes, expected at least 64"):
            client.infer("double", [shared_input(api, "in", X.shape)])
        os.truncate(f"/dev/shm/trivet_test_{os.getpid()}_in", SIZE)
        assert client.infer("double", [shared_input(api, "in", X.shape)]).as_numpy("Y").shape == X.shape


def test_a_key_that_is_no_text_is_shown_as_far_as_it_can_be(server: RunningServer) -> None:
    key = f"trivet_test_{os.getpid()}_".encode() + b"\xff"
    path = Path("/dev/shm", os.fsdecode(key))
    path.write_bytes(bytes(8))
    body = b'{"key":"%b","byte_size":8}' % key
    base = f"http://{server.http_url}/v2/systemsharedmemory"
    try:
        urlopen(Request(f"{base}/region/odd/register", body)).close()
        with urlopen(f"{base}/status") as response:
            assert response.read() == b'[{"name":"odd","key":"%b","offset":0,"byte_size":8}]' % key
        with grpc_client.InferenceServerClient(server.grpc_url) as client:
            status = client.get_system_shared_memory_status()
            assert status.regions["odd"].key == key[:-1].decode() + r"\udcff"
            client.unregister_system_shared_memory()
    finally:
        path.unlink()


def test_an_object_that_becomes_smaller_under_a_model_costs_its_request_alone(
    api: ModuleType, client: Any, server: RunningServer
) -> None:
    folder = Path(server.engine.options.model_repositories[0], "held")
    for name in ("begun", "open"):
        (folder / name).unlink(missing_ok=True)
    url = server.http_url if api is http_client else server.grpc_url
    big = np.ones((1, 1 << 18), np.float32)

    def ask(tensor: Any) -> Any:
        with api.InferenceServerClient(url) as other:
            return other.infer("held", [tensor])

    inline = api.InferInput("X", big.shape, "FP32")
    inline.set_data_from_numpy(big)
    with region(client, "in", big.nbytes) as source, ThreadPoolExecutor(2) as threads:
        shm.set_shared_memory_region(source, [big])
        shared = threads.submit(ask, shared_input(api, "in", big.shape, byte_size=big.nbytes))
        deadline = time.monotonic() + 30
        while not (folder / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        behind = threads.submit(ask, inline)
        os.truncate(f"/dev/shm/trivet_test_{os.getpid()}_in", 8)
        (folder / "open").touch()
        with pytest.raises(InferenceServerException, match=f"has 8 bytes, expected at least {big.nbytes}"):
            shared.result(30)
        assert (behind.result(30).as_numpy("Y") == 2 * big).all()


CLIENT = """
import os, signal, sys
import numpy as np, tritonclient.http as triton, tritonclient.utils.shared_memory as shm

client = triton.InferenceServerClient(sys.argv[1])
handle = shm.create_shared_memory_region("dead", sys.argv[2], 64)
client.register_system_shared_memory("dead", sys.argv[2], 64)
x = triton.InferInput("X", [1, 16], "FP32")
x.set_shared_memory("dead", 64)
client.infer("double", [x])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_client_that_dies_leaves_a_region_that_anyone_may_forget(server: RunningServer) -> None:
    key = f"trivet_test_{os.getpid()}_dead"
    died = subprocess.run([sys.executable, "-c", CLIENT, server.http_url, f"/{key}"], check=False)
    assert died.returncode == -signal.SIGKILL
    Path("/dev/shm", key).unlink(missing_ok=True)
    with http_client.InferenceServerClient(server.http_url) as client:
        assert [each["name"] for each in client.get_system_shared_memory_status()] == ["dead"]
        client.unregister_system_shared_memory("dead")
        assert client.get_system_shared_memory_status() == []
    mapped = Path("/proc/self/maps").read_text()
    assert key not in mapped
