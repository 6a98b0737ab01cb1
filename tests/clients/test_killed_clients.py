"""Clients that are killed at any moment of what they do: the server holds nothing of theirs afterwards."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as http_client
from trivet.testing import RunningServer, running_server

# Takes long enough for a client to be killed meanwhile, at each of its stages.
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.002)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())])
                for request in requests]
"""
STREAM = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for _ in range(50):
                if sender.is_cancelled():
                    break
                time.sleep(0.0005)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: -1 }
output { name: "Y" data_type: TYPE_FP32 dims: -1 }
"""
MODELS = {
    "slow": (MODEL, "dynamic_batching { } instance_group { count: 2 }"),
    "stream": (STREAM, "model_transaction_policy { decoupled: true } instance_group { count: 2 }"),
}

# Each begins to work, says so, and goes on until it is killed. Arguments: HTTP, gRPC, a name of its own.
SHARED_MEMORY = """
import sys
import numpy as np, tritonclient.{api} as triton, tritonclient.utils.shared_memory as shm

http, grpc, name = sys.argv[1:]
client = triton.InferenceServerClient({api})
size = 1 << 20
for way in ("in", "out"):
    shm.create_shared_memory_region(f"{{name}}_{{way}}", f"/{{name}}_{{way}}", size)
    client.register_system_shared_memory(f"{{name}}_{{way}}", f"/{{name}}_{{way}}", size)
x = triton.InferInput("X", [1, size // 4], "FP32")
x.set_shared_memory(f"{{name}}_in", size)
y = triton.InferRequestedOutput("Y")
y.set_shared_memory(f"{{name}}_out", size)
print("working", flush=True)
while True:
    client.infer("slow", [x], outputs=[y])
"""
UPLOAD = """
import sys
import numpy as np, tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1])
x = triton.InferInput("X", [1, 1 << 20], "FP32")
x.set_data_from_numpy(np.ones((1, 1 << 20), np.float32))
print("working", flush=True)
while True:
    client.infer("slow", [x])
"""
STREAMS = """
import sys, threading
import numpy as np, tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[2])
room = threading.Semaphore(8)

def answered(result, error):
    assert error is None, error
    if result.get_response().parameters["triton_final_response"].bool_param:
        room.release()

client.start_stream(callback=answered)
x = triton.InferInput("X", [1, 1024], "FP32")
x.set_data_from_numpy(np.ones((1, 1024), np.float32))
print("working", flush=True)
while True:
    room.acquire()
    client.async_stream_infer("stream", [x], enable_empty_final_response=True)
"""
CLIENTS = {
    "shared memory over HTTP": SHARED_MEMORY.format(api="http"),
    "shared memory over gRPC": SHARED_MEMORY.format(api="grpc"),
    "upload": UPLOAD,
    "streams": STREAMS,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    for name, (code, config) in MODELS.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text(code)
        (tmp_path / name / "config.pbtxt").write_text(CONFIG + config)
    with running_server(tmp_path) as running:
        yield running


def in_flight(server: RunningServer) -> int:
    count: int = server.call(lambda: sum(len(model.in_flight) for model in server.engine.ready_models()))
    return count


def held(server: RunningServer) -> set[str]:
    """The server's connections, and what its process has open and mapped of shared memory."""
    ports = {int(url.rpartition(":")[2]) for url in (server.http_url, server.grpc_url)}
    connections = psutil.Process().net_connections("tcp")
    found = {str(each) for each in connections if each.laddr.port in ports and each.status != psutil.CONN_LISTEN}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # that of this listing
        if target.startswith("/dev/shm/"):
            found.add(f"{entry.name} {target}")
    maps = Path("/proc/self/maps").read_text().splitlines()
    return found | {line for line in maps if "/dev/shm/" in line}


def wait_until(true: Callable[[], bool], describe: Callable[[], object] = str) -> None:
    """Nothing tells when a server has heard that its client is dead."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.01)


def kill_some(server: RunningServer, code: str, times: int, chance: random.Random) -> None:
    """Start clients side by side, and kill each at a random moment of its work."""
    names = [f"trivet_test_{os.getpid()}_{chance.getrandbits(32):x}" for _ in range(times)]
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", code, server.http_url, server.grpc_url, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"working\n"
        for client in clients:
            time.sleep(chance.uniform(0, 0.02))
            assert client.poll() is None
            client.kill()
    finally:
        for client in clients:
            client.kill()
            assert client.wait(30) == -signal.SIGKILL
            assert client.stdout is not None
            client.stdout.close()
        for name in names:
            for way in ("in", "out"):
                Path("/dev/shm", f"{name}_{way}").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_killed_client_leaves_nothing_behind(server: RunningServer, kind: str) -> None:
    chance = random.Random(kind)
    before = held(server)
    kill_some(server, CLIENTS[kind], 4, chance)
    wait_until(lambda: in_flight(server) == 0)
    with http_client.InferenceServerClient(server.http_url) as client:
        # Regions outlive their client, as in Triton, until anyone forgets them.
        assert len(client.get_system_shared_memory_status()) == (8 if "shared" in kind else 0)
        client.unregister_system_shared_memory()
        x = http_client.InferInput("X", [1, 4], "FP32")
        x.set_data_from_numpy(np.ones((1, 4), np.float32))
        assert client.infer("slow", [x]).as_numpy("Y").tolist() == [[1, 1, 1, 1]]
    gc.collect()  # as the server does from time to time: a request that was cut off may be part of a cycle
    wait_until(lambda: held(server) <= before, lambda: held(server) - before)
    assert server.call(lambda: [model.scheduler.queued for model in server.engine.ready_models()]) == [0, 0]


def test_memory_of_killed_uploads_is_given_back(server: RunningServer) -> None:
    """Each of them has 4 MB under way: were they kept, the second round would show it."""
    chance = random.Random(0)
    process = psutil.Process()
    kill_some(server, UPLOAD, 4, chance)
    wait_until(lambda: in_flight(server) == 0)
    settled = process.memory_info().rss
    for _ in range(3):
        kill_some(server, UPLOAD, 4, chance)
        wait_until(lambda: in_flight(server) == 0)
    assert process.memory_info().rss - settled < 24 << 20  # of the 48 MiB that went up and were cut off, at least
