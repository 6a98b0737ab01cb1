"""Several requests in one batch, whose tensors are on a GPU: they stay there. On any machine: its own memory stands for
a GPU's, which is seen in the copies that are made of it.
"""

from __future__ import annotations

import base64
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as http_client
from cuda_ledger import HANDLE, HostCuda
from host_gpu import InHostMemory
from numpy.typing import NDArray
from trivet import hookimpl
from trivet.backend import ArrayInstance, Backend, BackendModel, InstanceContext, ModelContext, OutputValue
from trivet.datatypes import FP32
from trivet.dlpack import describe
from trivet.hookspecs import BackendPlugin
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import RunningServer, running_server
from trivet_memory_cuda import runtime

ROWS, COLUMNS = 3, 1000
BYTE_SIZE = 4 * COLUMNS
"""Of a row."""
CONFIG = f"""
backend: "kernel"
max_batch_size: {ROWS}
input {{ name: "X" data_type: TYPE_FP32 dims: {COLUMNS} %s }}
output {{ name: "Y" data_type: TYPE_FP32 dims: {COLUMNS} %s }}
dynamic_batching {{ preferred_batch_size: {ROWS} max_queue_delay_microseconds: 60000000 }}
"""


class Kernel(Backend, BackendModel, ArrayInstance):
    """Doubles what is on the GPU, and leaves it there for those who want it there."""

    def __init__(self) -> None:
        self.found: list[tuple[tuple[int, ...], bool, set[str]]] = []

    def load(self, context: ModelContext) -> BackendModel:
        self.batch_gpu_memory = context.gpu_memory
        return self

    def create_instance(self, context: InstanceContext) -> ArrayInstance:
        return self

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        x = inputs["X"]
        self.found.append((x.shape, x.on_device, set(self.placed)))
        y = 2 * (_behind(x) if x.on_device else x.numpy())
        return {"Y": InHostMemory(y, FP32) if "Y" in self.placed else y}

    def close(self) -> None:
        """As instance and as model."""

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="kernel", factory=lambda: self)]


def _behind(tensor: Tensor) -> NDArray[np.float32]:
    found = describe(tensor.dlpack().__dlpack__())
    elements = (ctypes.c_float * (found.byte_size // 4)).from_address(found.address)
    return np.frombuffer(elements, np.float32).reshape(found.shape)


class Memory:
    """A client's: a place for each request's input, then for its output."""

    def __init__(self) -> None:
        self._memory = (ctypes.c_uint8 * (2 * ROWS * BYTE_SIZE))()
        HostCuda.exported[HANDLE] = self._memory
        self.array = np.frombuffer(self._memory, np.float32).reshape(2 * ROWS, COLUMNS)
        self.array[:ROWS] = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    monkeypatch.setattr(runtime, "Cuda", HostCuda)
    yield Memory()
    HostCuda.exported.clear()


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture(params=["", "reshape { shape: [ 10, 100 ] }"], ids=["plain", "reshaped"])
def server(request: pytest.FixtureRequest, tmp_path: Path, kernel: Kernel, memory: Memory) -> Iterator[RunningServer]:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(CONFIG % (request.param, request.param))
    registry = PluginRegistry([*PluginRegistry.discover().plugins, *PluginRegistry.of(kernel=kernel).plugins])
    with running_server(tmp_path, registry=registry) as running:
        with http_client.InferenceServerClient(running.http_url) as client:
            client.register_cuda_shared_memory("r", base64.b64encode(HANDLE), 0, 2 * ROWS * BYTE_SIZE)
        yield running


def copies(server: RunningServer) -> list[tuple[int, int, int, int]]:
    cuda: Any = server.server._memory["cuda"]._cuda  # type: ignore[attr-defined]
    found: list[tuple[int, int, int, int]] = cuda.copies
    return found


def ask(
    server: RunningServer, row: int, *, inline_input: NDArray[np.float32] | None = None, inline: bool = False
) -> Any:
    x = http_client.InferInput("X", [1, COLUMNS], "FP32")
    if inline_input is None:
        x.set_shared_memory("r", BYTE_SIZE, row * BYTE_SIZE)
    else:
        x.set_data_from_numpy(inline_input)
    y = http_client.InferRequestedOutput("Y")
    if not inline:
        y.set_shared_memory("r", BYTE_SIZE, (ROWS + row) * BYTE_SIZE)
    with http_client.InferenceServerClient(server.http_url) as client:
        return client.infer("m", [x], outputs=[y])


def test_inputs_are_put_together_on_the_gpu_and_each_gets_its_rows_there(
    server: RunningServer, kernel: Kernel, memory: Memory
) -> None:
    with ThreadPoolExecutor(ROWS) as threads:
        list(threads.map(lambda row: ask(server, row), range(ROWS)))
    assert (memory.array[ROWS:] == 2 * memory.array[:ROWS]).all()
    ((shape, on_device, placed),) = kernel.found
    assert (shape[0], on_device, placed) == (ROWS, True, {"Y"})
    # Each input into the batch, and each output into its place: nothing went by the host.
    start = memory.array.ctypes.data
    made = copies(server)
    assert sorted(source - start for _, source, _, _ in made[:ROWS]) == [row * BYTE_SIZE for row in range(ROWS)]
    assert sorted(target - start for target, *_ in made[ROWS:]) == [(ROWS + row) * BYTE_SIZE for row in range(ROWS)]


def test_where_not_all_are_on_the_gpu_the_batch_is_on_the_host(
    server: RunningServer, kernel: Kernel, memory: Memory
) -> None:
    inline = np.full((1, COLUMNS), 7, np.float32)
    with ThreadPoolExecutor(ROWS) as threads:
        given = threads.submit(ask, server, 0, inline_input=inline)
        read = threads.submit(ask, server, 1, inline=True)
        ask(server, 2)
        given.result()
        assert (read.result().as_numpy("Y") == 2 * memory.array[1]).all()
    assert (memory.array[ROWS] == 14).all()
    assert (memory.array[ROWS + 2] == 2 * memory.array[2]).all()
    ((shape, on_device, placed),) = kernel.found
    assert (shape[0], on_device, placed) == (ROWS, False, set())
