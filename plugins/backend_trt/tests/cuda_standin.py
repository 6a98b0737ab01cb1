"""CUDA over host memory, where there is no GPU: what the backend calls of ``cuda.bindings.runtime`` and the driver."""

# ruff: noqa: N802, N815 - names are those of CUDA
from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

DEVICES = 2
OK = cudart.cudaError_t.cudaSuccess


class HostCuda:
    """What ``cuda.bindings.runtime`` has, over host memory. Work on a stream is done as it is begun."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrMemoryPoolsSupported=115)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaError_t = cudart.cudaError_t
    cudaGetErrorString = staticmethod(cudart.cudaGetErrorString)
    cudaStreamPerThread = 2

    def __init__(self) -> None:
        self.device = threading.local()
        self.memory: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.events: set[int] = set()
        self.graphs: dict[int, list[Callable[[], Any]]] = {}
        self.capturing: dict[int, list[Callable[[], Any]]] = {}
        self.copies: list[tuple[int, int, int]] = []
        self.current_at_copies: list[int] = []
        """Of those on the calling thread's stream of the device that is current."""
        self.launched = 0
        self.limit = 1 << 30
        self.capture_fails = OK
        self.fails = cudart.cudaError_t.cudaSuccess
        self._next = 16

    def number(self) -> int:
        self._next += 1
        return self._next

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        self.device.current = device
        return (cudart.cudaError_t.cudaErrorInvalidDevice if device >= DEVICES else OK,)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return OK, getattr(self.device, "current", 0)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Any, ...]:
        return OK, 1

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self.limit, self.limit

    def cudaDeviceGetStreamPriorityRange(self) -> tuple[Any, ...]:
        return OK, 0, -5

    def cudaStreamCreateWithPriority(self, flags: int, priority: int) -> tuple[Any, ...]:
        stream = self.number()
        self.streams.add(stream)
        return OK, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self.streams.remove(stream)
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        event = self.number()
        self.events.add(event)
        return OK, event

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        self.events.remove(event)
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        return (self.fails,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return (OK,)

    def _allocate(self, kept: dict[int, Any], size: int) -> tuple[Any, ...]:
        if size > self.limit:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        block = np.full(size + 256, 0xAB, np.uint8)  # not zeros: nobody may rely on them
        address = -(-block.ctypes.data // 256) * 256
        kept[address] = block
        return OK, address

    def cudaMallocAsync(self, size: int, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        return self._allocate(self.memory, size)

    def cudaFreeAsync(self, address: int, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        del self.memory[address]
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:
        self.copies.append((target, source, size))
        if stream == self.cudaStreamPerThread:
            self.current_at_copies.append(self.cudaGetDevice()[1])
        ctypes.memmove(target, source, size)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.capturing[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        work = self.capturing.pop(stream)
        if self.capture_fails:
            return self.capture_fails, None
        graph = self.number()
        self.graphs[graph] = work
        return OK, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        executable = self.number()
        self.graphs[executable] = self.graphs[graph]
        return OK, executable

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self.graphs[graph]
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:
        for work in self.graphs[graph]:
            work()
        self.launched += 1
        return (OK,)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (OK,)

    def held(self) -> tuple[int, ...]:
        """How many of each thing are not freed."""
        return tuple(map(len, (self.memory, self.streams, self.events, self.graphs)))


class Driver:
    """What ``libcuda.so.1`` answers."""

    capabilities = ((8, 6), (8, 9))

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = DEVICES
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = self.capabilities[handle.value][{75: 0, 76: 1}[attribute]]
        return 0
