"""A memory provider's pinned memory, as the batches before a backend use it, and its pools in the metrics."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from host_arena import HostArena
from numpy.typing import NDArray
from trivet import hookimpl
from trivet.backend import ArrayInstance, Backend, BackendModel, InstanceContext, ModelContext, OutputValue
from trivet.hookspecs import BackendPlugin, MemoryPlugin
from trivet.memory import PinnedMemory, PoolUsage, RegionSlice, RegionTable
from trivet.options import Settings
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import RunningServer, running_server

ROWS = 1 << 16
CONFIG = f"""
backend: "staging"
max_batch_size: 2
input {{ name: "X" data_type: TYPE_FP32 dims: {ROWS} }}
output {{ name: "Y" data_type: TYPE_FP32 dims: {ROWS} }}
dynamic_batching {{ preferred_batch_size: 2 max_queue_delay_microseconds: 60000000 }}
"""


class Provider(RegionTable[None]):
    """A provider whose pinned memory any machine has."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._arena = HostArena()

    @property
    def pinned(self) -> PinnedMemory:
        return self._arena

    def pools(self) -> Sequence[PoolUsage]:
        return [PoolUsage("pinned", 0, self._arena.memory.nbytes, self._arena.taken), PoolUsage("cuda", 1, 100, 50)]

    def map(self, byte_size: int, details: Mapping[str, Any]) -> tuple[None, Mapping[str, Any]]:
        raise NotImplementedError

    def part(self, mapped: None, offset: int, byte_size: int) -> RegionSlice:
        raise NotImplementedError


class Staging(Backend, BackendModel, ArrayInstance):
    """Notes where its inputs are."""

    def __init__(self) -> None:
        self.found: list[tuple[int, bool]] = []

    def load(self, context: ModelContext) -> BackendModel:
        self.batch_memory = context.pinned_memory
        return self

    def create_instance(self, context: InstanceContext) -> ArrayInstance:
        return self

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        x = inputs["X"].numpy()
        assert self.batch_memory is not None
        self.found.append((len(x), self.batch_memory.holds(x)))
        return {"Y": x}

    def close(self) -> None:
        """As instance and as model."""


class Plugin:
    """Both."""

    def __init__(self) -> None:
        self.backend = Staging()

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="staging", factory=lambda: self.backend)]

    @hookimpl
    def trivet_memory_providers(self) -> Sequence[MemoryPlugin]:
        return [MemoryPlugin(name="arena", factory=Provider)]


def ask(server: RunningServer, value: float, rows: int = 1) -> NDArray[np.float32]:
    x = grpc_client.InferInput("X", [rows, ROWS], "FP32")
    x.set_data_from_numpy(np.full((rows, ROWS), value, np.float32))
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        return client.infer("m", [x]).as_numpy("Y")


def metrics(server: RunningServer) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics", timeout=30) as response:
        text = response.read().decode()
    return {key: float(value) for key, value in re.findall(r"^(\S*_pool_\S*) (\S+)$", text, re.MULTILINE)}


def test_a_batch_is_put_together_in_pinned_memory_and_a_request_alone_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(CONFIG)
    plugin = Plugin()
    installed = [each for each in PluginRegistry.discover().plugins if each.name != "cuda_memory"]
    registry = PluginRegistry([*installed, *PluginRegistry.of(own=plugin).plugins])
    with running_server(tmp_path, registry=registry) as server:
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda value: ask(server, value), (1.0, 2.0)))
        assert [set(answer.ravel()) for answer in answers] == [{1}, {2}]
        assert set(ask(server, 3.0, rows=2).ravel()) == {3}
        assert metrics(server) == {
            "nv_pinned_memory_pool_total_bytes": 8 << 20,
            "nv_pinned_memory_pool_used_bytes": 2 * ROWS * 4,
            'trivet_cuda_memory_pool_total_bytes{gpu="1"}': 100,
            'trivet_cuda_memory_pool_used_bytes{gpu="1"}': 50,
        }
    assert plugin.backend.found == [(2, True), (2, False)]


def test_a_server_that_uses_no_gpu_takes_nothing_of_a_pool(tmp_path: Path) -> None:
    pytest.importorskip("trivet_memory_cuda")
    with running_server(tmp_path) as server:
        assert metrics(server) == {
            "nv_pinned_memory_pool_total_bytes": 256 << 20,
            "nv_pinned_memory_pool_used_bytes": 0,
        }
