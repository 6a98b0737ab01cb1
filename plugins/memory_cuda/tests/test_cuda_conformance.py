"""The kit for memory providers: on a GPU; and, as far as that goes, on the host in place of one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cuda_ledger import HANDLE, HostCuda
from cuda_peer import NEEDS_GPU, Peer
from trivet.testing.conformance import MemoryConformance
from trivet.testing.conformance.memory import ClientMemory
from trivet_memory_cuda import runtime


class TestCudaMemory(MemoryConformance):
    memory = "cuda"
    pytestmark = NEEDS_GPU

    @contextmanager
    def client_memory(self, content: bytes) -> Iterator[ClientMemory]:
        peer = Peer()
        peer.write(content)
        try:
            yield ClientMemory({"raw_handle": peer.handle, "device_id": 0}, lambda: peer.read(len(content)))
        finally:
            peer.close()


class TestCudaMemoryWithoutGpu(MemoryConformance):
    memory = "cuda"

    @pytest.fixture(autouse=True)
    def _host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "Cuda", HostCuda)

    @contextmanager
    def client_memory(self, content: bytes) -> Iterator[ClientMemory]:
        memory = (ctypes.c_uint8 * len(content)).from_buffer_copy(content)
        HostCuda.exported[HANDLE] = memory
        try:
            yield ClientMemory({"raw_handle": HANDLE, "device_id": 0}, lambda: bytes(memory))
        finally:
            del HostCuda.exported[HANDLE]
