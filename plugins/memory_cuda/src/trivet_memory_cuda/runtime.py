"""The few calls of CUDA that shared memory needs, with errors as exceptions. Nothing else here touches CUDA.

Memory is the process's: an address is the same for every thread and for every framework, which all use the device's
primary context. Source: CUDA Runtime API, "Device Management" and "Memory Management"; ``cuMemGetAddressRange`` is the
driver's, as the runtime has nothing of the kind.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

from cuda.bindings import driver, runtime
from cuda.bindings.utils import get_cuda_native_handle
from trivet.errors import InternalError, UnavailableError

from trivet_memory_cuda.failures import ALREADY_MAPPED, WRONG_CONTEXT, CudaError
from trivet_memory_cuda.pool import Allocation

logger = logging.getLogger(__name__)

CLOSING_PATIENCE_S = 2.0
"""How long a new mapping waits for one that is in its way and no longer used."""

_OPENING = {
    WRONG_CONTEXT: "CUDA opens no handle in the process that made it, nor in one of the same number in another PID"
    " namespace: the client has to be another process, and containers to share theirs (--pid=host)",
    ALREADY_MAPPED: "requests still use what the client had at that address before: unregister it, and register this"
    " again when they are answered",
}


class Cuda:
    """The devices of this machine. Any thread."""

    def __init__(self) -> None:
        """Raises :class:`~trivet.errors.UnavailableError`, with CUDA's reason, where there is no device."""
        error, count = runtime.cudaGetDeviceCount()
        if error or not count:
            raise UnavailableError(f"this server has no CUDA device: {_text(error) if error else 'none was found'}")
        self.device_count = int(count)
        self._streams = threading.local()
        # Of this kind, as it may be put into while this thread is taking from it: a finalizer runs anywhere.
        self._closing: SimpleQueue[Callable[[], object]] = SimpleQueue()
        threading.Thread(target=self._close_all, name="cuda-closing", daemon=True).start()

    def open(self, handle: bytes, device: int) -> int:
        """Map what another process has exported, and return its address. ``handle`` is a ``cudaIpcMemHandle_t``.

        CUDA counts: memory that is mapped already gives the same address, and is mapped until it was closed as often.
        """
        exported = runtime.cudaIpcMemHandle_t()
        ctypes.memmove(exported.getPtr(), handle, runtime.CUDA_IPC_HANDLE_SIZE)
        try:
            return self._open(exported, device)
        except CudaError as error:
            if error.number != ALREADY_MAPPED:
                raise
        # What the client had at that address before, and has freed, is on its way out.
        self._closed(CLOSING_PATIENCE_S)
        return self._open(exported, device)

    def _open(self, handle: Any, device: int) -> int:
        failure = "failed to open CUDA IPC handle"
        with self.current(device):
            try:
                return int(_call(failure, runtime.cudaIpcOpenMemHandle, handle, runtime.cudaIpcMemLazyEnablePeerAccess))
            except CudaError as error:
                hint = _OPENING.get(error.number)
                raise CudaError(f"{error.message}; {hint}", error.number) from None if hint else error

    def close(self, address: int, device: int) -> None:
        """Undo one :meth:`open`, soon: CUDA waits for all that the device is doing, and so does a thread of its own."""
        self._closing.put(partial(self._close, address, device))

    def _closed(self, patience_s: float) -> None:
        """Wait until what was to be closed or freed before this is, but not for ever."""
        done = threading.Event()
        self._closing.put(done.set)
        done.wait(patience_s)

    def _close(self, address: int, device: int) -> None:
        with self.current(device):
            _call("failed to close CUDA IPC handle", runtime.cudaIpcCloseMemHandle, address)

    def _close_all(self) -> None:
        while True:
            close = self._closing.get()
            try:
                close()
            except InternalError as error:
                logger.warning("%s", error.message)

    def allocate_host(self, byte_size: int) -> Allocation:
        """Pinned host memory, for all devices."""
        failure = f"failed to pin {byte_size} bytes of host memory"
        address = int(_call(failure, runtime.cudaHostAlloc, byte_size, runtime.cudaHostAllocPortable))
        free = partial(_call, "failed to free pinned host memory", runtime.cudaFreeHost, address)
        return Allocation(address, partial(self._closing.put, free))

    def allocate(self, byte_size: int, device: int) -> Allocation:
        """Memory on a device."""
        with self.current(device):
            address = int(_call(f"failed to allocate {byte_size} bytes on GPU {device}", runtime.cudaMalloc, byte_size))
        free = partial(_call, "failed to free CUDA memory", runtime.cudaFree, address)
        return Allocation(address, partial(self._closing.put, free))

    def bytes_behind(self, address: int, device: int) -> int:
        """How many bytes there are from an address to the end of its allocation."""
        with self.current(device):
            start, size = _call("failed to find the size of CUDA memory", driver.cuMemGetAddressRange, address)
        return int(start) + int(size) - address

    def copy(self, target: int, parts: Sequence[tuple[int, int]], device: int) -> None:
        """Copy parts, each so many bytes at an address, one behind the other, and wait, without the interpreter lock.

        Any address may be on the host or on any device. What was begun on this thread's :meth:`stream` before is done
        first.
        """
        failure = "failed to copy CUDA memory"
        stream, kind = self.stream(device), runtime.cudaMemcpyKind.cudaMemcpyDefault
        try:
            for source, byte_size in parts:
                _call(failure, runtime.cudaMemcpyAsync, target, source, byte_size, kind, stream)
                target += byte_size
        finally:
            # Also after a failure: what was begun writes to memory that is about to be somebody else's.
            _call(failure, runtime.cudaStreamSynchronize, stream)

    def stream(self, device: int) -> int:
        """The stream of the calling thread on a device.

        It keeps the order of the default stream, where frameworks compute unless they are told otherwise: a bare DLPack
        capsule does not say what its tensor is still waiting for.
        """
        streams: dict[int, _Stream] = self._streams.__dict__.setdefault("by_device", {})
        stream = streams.get(device)
        if stream is None:
            with self.current(device):
                stream = streams[device] = _Stream()
        return stream.number

    @contextmanager
    def current(self, device: int) -> Iterator[None]:
        """Calls are for this device. Frameworks rely on the thread's current device, so it is as before afterwards."""
        failure = f"failed to set CUDA device {device}"
        previous = _call(failure, runtime.cudaGetDevice)
        if previous == device:
            yield
            return
        _call(failure, runtime.cudaSetDevice, device)
        try:
            yield
        finally:
            _call(failure, runtime.cudaSetDevice, previous)


class _Stream:
    """A stream that lives as long as the thread that uses it."""

    __slots__ = ("_stream", "number")

    def __init__(self) -> None:
        self._stream = _call("failed to create a CUDA stream", runtime.cudaStreamCreate)
        self.number = int(get_cuda_native_handle(self._stream))

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            (error,) = runtime.cudaStreamDestroy(self._stream)
            if error:
                logger.warning("failed to destroy a CUDA stream: %s", _text(error))


def _call(failure: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of CUDA gives beside its error, which is raised as :class:`CudaError`."""
    error, *results = function(*arguments)
    if error:
        # Whoever next asks the runtime for the last error, as libraries do after each launch, is not to get this one.
        runtime.cudaGetLastError()
        raise CudaError(f"{failure}: {_text(error)}", int(error))
    return results[0] if len(results) == 1 else results


def _text(error: Any) -> str:
    lookup = driver.cuGetErrorString if isinstance(error, driver.CUresult) else runtime.cudaGetErrorString
    _, text = lookup(error)
    return f"{text.decode()} ({error.name})" if text else str(error.name)
