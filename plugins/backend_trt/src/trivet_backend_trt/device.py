"""The calls of CUDA that an instance makes, with errors as exceptions. Nothing else here touches CUDA.

All work of an instance is on one stream of its own, ordered by it alone; nothing waits for the whole device. Memory is
allocated and freed in the order of the stream too, where the device can (``cudaMallocAsync``).

Source: CUDA Runtime API, "Stream Management", "Event Management", "Stream Ordered Memory Allocator", "Graph
Management".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cuda.bindings import runtime
from trivet.errors import InternalError, ResourceExhaustedError

logger = logging.getLogger(__name__)

_KIND = runtime.cudaMemcpyKind.cudaMemcpyDefault
_NON_BLOCKING = 1  # cudaStreamNonBlocking: not ordered with the default stream
_WITHOUT_TIMING, _SLEEPING = 2, 1  # cudaEventDisableTiming, cudaEventBlockingSync


class Device:
    """A GPU. TensorRT and CUDA work on the one that is current on the calling thread."""

    def __init__(self, index: int) -> None:
        """Raises :class:`~trivet.errors.InternalError` where CUDA does not take it; ask the driver before."""
        self.index = index
        pools = runtime.cudaDeviceAttr.cudaDevAttrMemoryPoolsSupported
        self.has_pools = bool(call("failed to ask a CUDA device", runtime.cudaDeviceGetAttribute, pools, index))

    def make_current(self) -> None:
        """For good, on an instance's own thread."""
        call(f"failed to set CUDA device {self.index}", runtime.cudaSetDevice, self.index)

    @contextmanager
    def current(self) -> Iterator[None]:
        """For a while, on a thread that others use too, whose frameworks rely on the device that is current."""
        previous = call("failed to ask for the CUDA device", runtime.cudaGetDevice)
        self.make_current()
        try:
            yield
        finally:
            if previous != self.index:
                call(f"failed to set CUDA device {previous}", runtime.cudaSetDevice, previous)

    def free_bytes(self) -> int:
        """Of its memory, now."""
        free, _ = call("failed to ask for free CUDA memory", runtime.cudaMemGetInfo)
        return int(free)


class Stream:
    """A stream of a device, on which everything of one instance happens. It lives as long as its memory is used."""

    def __init__(self, device: Device, priority: int = 0, *, busy_wait: bool = False) -> None:
        """``priority``: -1 first, 1 last. ``busy_wait``: waiting takes a core and wakes sooner."""
        self.device = device
        least, greatest = call("failed to ask a CUDA device", runtime.cudaDeviceGetStreamPriorityRange)
        chosen = {0: 0, -1: greatest, 1: least}[priority]
        self._stream = call(
            "failed to create a CUDA stream", runtime.cudaStreamCreateWithPriority, _NON_BLOCKING, chosen
        )
        self.handle = int(self._stream)
        flags = _WITHOUT_TIMING if busy_wait else _WITHOUT_TIMING | _SLEEPING
        self._done = call("failed to create a CUDA event", runtime.cudaEventCreateWithFlags, flags)

    def copy(self, target: int, source: int, byte_size: int) -> None:
        """Begin to copy between any two addresses."""
        call("failed to copy CUDA memory", runtime.cudaMemcpyAsync, target, source, byte_size, _KIND, self._stream)

    def wait(self) -> None:
        """Until everything on this stream is done, without the interpreter lock."""
        call("failed to record a CUDA event", runtime.cudaEventRecord, self._done, self._stream)
        call("failed to execute on the GPU", runtime.cudaEventSynchronize, self._done)

    def allocate(self, byte_size: int) -> int:
        """Device memory, aligned to 256 bytes at least, for what follows on this stream.

        A device without memory pools, which are few, waits for everything when it frees. Raises
        :class:`~trivet.errors.ResourceExhaustedError` where there is none.
        """
        if self.device.has_pools:
            return int(_allocate(byte_size, runtime.cudaMallocAsync, byte_size, self._stream))
        return int(_allocate(byte_size, runtime.cudaMalloc, byte_size))

    def free(self, address: int) -> None:
        """Give memory back when the stream has come so far. From any thread, and at any time: it does not raise."""
        if self.device.has_pools:
            (error,) = runtime.cudaFreeAsync(address, self._stream)
        else:
            (error,) = runtime.cudaFree(address)
        if error:
            logger.warning("failed to free CUDA memory: %s", error_text(error))

    def capture(self, work: Callable[[], None]) -> Graph:
        """What ``work`` begins on this stream, as a graph that can be launched again and again."""
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call("failed to begin the capture of a CUDA graph", runtime.cudaStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            error, graph = runtime.cudaStreamEndCapture(self._stream)
            if not error and graph:
                runtime.cudaGraphDestroy(graph)
            # Or a call of somebody else's would answer with what went wrong here.
            runtime.cudaGetLastError()
            raise
        captured = call("failed to capture a CUDA graph", runtime.cudaStreamEndCapture, self._stream)
        try:
            return Graph(call("failed to make a CUDA graph", runtime.cudaGraphInstantiate, captured, 0))
        finally:
            runtime.cudaGraphDestroy(captured)

    def launch(self, graph: Graph) -> None:
        """Begin the work of a graph."""
        call("failed to launch a CUDA graph", runtime.cudaGraphLaunch, graph.executable, self._stream)

    def __del__(self) -> None:
        for what, destroy in (("_done", runtime.cudaEventDestroy), ("_stream", runtime.cudaStreamDestroy)):
            if hasattr(self, what):
                (error,) = destroy(getattr(self, what))
                if error:
                    logger.warning("failed to destroy a CUDA stream: %s", error_text(error))


class Graph:
    """A graph that can be launched."""

    __slots__ = ("executable",)

    def __init__(self, executable: Any) -> None:
        self.executable = executable

    def __del__(self) -> None:
        runtime.cudaGraphExecDestroy(self.executable)


def _allocate(byte_size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    error, address = function(*arguments)
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        # Or every later call would answer with it.
        runtime.cudaGetLastError()
        raise ResourceExhaustedError(f"failed to allocate {byte_size} bytes: {error_text(error)}")
    if error:
        raise InternalError(f"failed to allocate {byte_size} bytes: {error_text(error)}")
    return address


def call(failure: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of CUDA gives beside its error, which is raised as :class:`~trivet.errors.InternalError`."""
    error, *results = function(*arguments)
    if error:
        raise InternalError(f"{failure}: {error_text(error)}")
    return results[0] if len(results) == 1 else results


def error_text(error: Any) -> str:
    """A CUDA error in words."""
    _, text = runtime.cudaGetErrorString(error)
    return f"{text.decode()} ({error.name})" if text else str(error.name)


def copy_to_host(device: Device, target: int, source: int, byte_size: int) -> None:
    """Copy from the device and wait, on any thread and beside what instances' streams are doing."""
    if byte_size:
        # Of the device that is current.
        stream = runtime.cudaStreamPerThread
        with device.current():
            call("failed to copy CUDA memory", runtime.cudaMemcpyAsync, target, source, byte_size, _KIND, stream)
            call("failed to copy CUDA memory", runtime.cudaStreamSynchronize, stream)
