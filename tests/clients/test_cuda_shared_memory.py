"""Unmodified tritonclient with tensors in CUDA shared memory, over HTTP and gRPC: what is answered without a GPU, and
tensors that never leave one.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from cuda.bindings import runtime
from python_models import DOUBLE
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer

# It fails where anything was read to the host for it.
DEVICE = """
import torch
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = request.inputs()[0]
            assert not x.is_cpu()
            y = 2 * torch.from_dlpack(x)
            assert y.is_cuda
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("Y", y)]))
        return responses
"""
CONFIG = """
backend: "python"
max_batch_size: 0
input { name: "X" data_type: TYPE_FP32 dims: [ 1, -1 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ 1, -1 ] }
"""
STAYS = """
parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: { string_value: "no" } }
"""

_ERROR, _COUNT = runtime.cudaGetDeviceCount()
HAS_GPU = not _ERROR and _COUNT > 0
X = np.arange(16, dtype=np.float32).reshape(1, 16)
HANDLE = base64.b64encode(bytes(range(64)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trivet_server: Callable[..., RunningServer]) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    for name, code, more in (("host", DOUBLE, ""), ("device", DEVICE, STAYS)):
        if name == "device" and not HAS_GPU:
            continue
        folder: Path = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(code)
        (folder.parent / "config.pbtxt").write_text(CONFIG + more)
    return trivet_server(repository)


@pytest.fixture(params=["http", "grpc"])
def api(request: pytest.FixtureRequest) -> ModuleType:
    """The client library, over either transport."""
    return http_client if request.param == "http" else grpc_client


@pytest.fixture
def client(api: ModuleType, server: RunningServer) -> Iterator[Any]:
    with api.InferenceServerClient(_url(api, server)) as connected:
        connected.unregister_cuda_shared_memory()
        yield connected
        connected.unregister_cuda_shared_memory()


def _url(api: ModuleType, server: RunningServer) -> str:
    return server.http_url if api is http_client else server.grpc_url


@pytest.mark.skipif(HAS_GPU, reason="this machine has a CUDA device")
def test_without_a_gpu_registering_is_unavailable_and_everything_else_works(api: ModuleType, client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.register_cuda_shared_memory("r", HANDLE, 0, 64)
    assert caught.value.status() in ("503", "StatusCode.UNAVAILABLE")
    assert caught.value.message().startswith(
        "failed to register shared memory region: this server has no CUDA device: "
    )
    listed = client.get_cuda_shared_memory_status()
    assert not (listed if isinstance(listed, list) else listed.regions)
    with pytest.raises(InferenceServerException, match="Unable to find cuda shared memory region: 'r'"):
        client.get_cuda_shared_memory_status("r")
    client.unregister_cuda_shared_memory("r")

    x = api.InferInput("X", X.shape, "FP32")
    x.set_shared_memory("r", 64)
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'r'"):
        client.infer("host", [x])
    x.set_data_from_numpy(X)
    assert client.infer("host", [x]).as_numpy("Y").tolist() == (2 * X).tolist()


def test_it_is_announced(client: Any) -> None:
    metadata = client.get_server_metadata()
    assert "cuda_shared_memory" in (metadata["extensions"] if isinstance(metadata, dict) else metadata.extensions)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_handle_of_another_size_is_refused(client: Any, size: int) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.register_cuda_shared_memory("r", base64.b64encode(bytes(size)), 0, 64)
    assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    assert "'raw_handle'" in caught.value.message()


CLIENT = """
import sys
import numpy as np, tritonclient.utils.cuda_shared_memory as shm
api, url, model, count = sys.argv[1:]
if api == "http":
    import tritonclient.http as triton
else:
    import tritonclient.grpc as triton

x = np.arange(int(count), dtype=np.float32).reshape(1, -1)
client = triton.InferenceServerClient(url)
handles = {name: shm.create_shared_memory_region(name, x.nbytes, 0) for name in ("in", "out")}
for name, handle in handles.items():
    client.register_cuda_shared_memory(name, shm.get_raw_handle(handle), 0, x.nbytes)
try:
    given = triton.InferInput("X", x.shape, "FP32")
    given.set_shared_memory("in", x.nbytes)
    wanted = triton.InferRequestedOutput("Y")
    wanted.set_shared_memory("out", x.nbytes)
    for factor in (1, 3):
        shm.set_shared_memory_region(handles["in"], [factor * x])
        client.infer(model, [given], outputs=[wanted])
        assert (shm.get_contents_as_numpy(handles["out"], np.float32, x.shape) == 2 * factor * x).all()
    if model == "host":
        inline = client.infer(model, [given], outputs=[triton.InferRequestedOutput("Y")])
        assert (inline.as_numpy("Y") == 6 * x).all()
finally:
    for name in handles:
        client.unregister_cuda_shared_memory(name)
print("done")
"""


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device; this machine has none")
@pytest.mark.parametrize("count", [16, 1 << 22])
@pytest.mark.parametrize("model", ["host", "device"])
def test_tensors_in_gpu_memory_both_ways(api: ModuleType, server: RunningServer, model: str, count: int) -> None:
    if model == "device":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")
    # A process of its own: CUDA opens no handle where it was made, and the server is in this one.
    arguments = [api.__name__.rsplit(".", 1)[1], _url(api, server), model, str(count)]
    ran = subprocess.run(
        [sys.executable, "-c", CLIENT, *arguments], check=False, capture_output=True, text=True, timeout=100
    )
    assert ran.stdout.strip() == "done", ran.stderr
