"""The provider: regions by name. On the event loop; its slices on any thread."""

from __future__ import annotations

from collections import abc
from typing import TYPE_CHECKING, Any

from trivet.errors import (
    AlreadyExistsError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    TrivetError,
    UnavailableError,
)
from trivet.memory import MemoryProvider, RegionSlice, RegionStatus
from trivet.options import Settings

from trivet_memory_cuda.region import CudaSlice, Mapping

if TYPE_CHECKING:
    from trivet_memory_cuda.runtime import Cuda

HANDLE_SIZE = 64
"""Bytes of a ``cudaIpcMemHandle_t`` (``CUDA_IPC_HANDLE_SIZE``)."""

_FAILED = "failed to register shared memory region"


class CudaMemory(MemoryProvider):
    """Triton's CUDA shared memory extension. The details of a region are its ``raw_handle`` and ``device_id``.

    CUDA is first touched when a client registers something, so that a server whose clients do not costs no memory on
    any device.
    """

    def __init__(self, settings: Settings) -> None:
        self._regions: dict[str, tuple[RegionStatus, Mapping]] = {}
        self._cuda: Cuda | None = None

    def register(self, name: str, byte_size: int, details: abc.Mapping[str, Any]) -> None:
        """Where nothing else has used the device yet, this makes CUDA's context on it, which takes a moment."""
        if name in self._regions:
            raise AlreadyExistsError(f"shared memory region '{name}' already in manager")
        handle, device = details["raw_handle"], details["device_id"]
        if byte_size <= 0:
            raise InvalidArgumentError(f"{_FAILED}: 'byte_size' is {byte_size}, expected at least 1")
        if len(handle) != HANDLE_SIZE:
            raise InvalidArgumentError(
                f"{_FAILED}: 'raw_handle' has {len(handle)} bytes, expected the {HANDLE_SIZE} of a cudaIpcMemHandle_t"
            )
        cuda = self._devices()
        if not 0 <= device < cuda.device_count:
            raise InvalidArgumentError(
                f"{_FAILED}: there is no CUDA device {device}; this server has {cuda.device_count}, counted from 0"
            )
        mapping = _map(cuda, handle, device, byte_size)
        self._regions[name] = RegionStatus(name, byte_size, {"device_id": device}), mapping

    def _devices(self) -> Cuda:
        """The devices, asked for until there are any: a driver may be installed while the server runs."""
        if self._cuda is None:
            try:
                from trivet_memory_cuda.runtime import Cuda  # noqa: PLC0415 - a tenth of a second, for those who use it

                self._cuda = Cuda()
            except (UnavailableError, ImportError) as error:
                reason = error.message if isinstance(error, TrivetError) else str(error)
                raise UnavailableError(f"{_FAILED}: {reason}") from error
        return self._cuda

    def unregister(self, name: str | None) -> None:
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def regions(self) -> abc.Mapping[str, RegionStatus]:
        return {name: status for name, (status, _) in self._regions.items()}

    def __contains__(self, region: object) -> bool:
        return region in self._regions

    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        found = self._regions.get(region)
        if found is None:
            raise NotFoundError(f"Unable to find shared memory region: '{region}'")
        status, mapping = found
        status.check_part(offset, byte_size)
        return CudaSlice(mapping, mapping.address + offset, byte_size)


def _map(cuda: Cuda, handle: bytes, device: int, byte_size: int) -> Mapping:
    try:
        mapping = Mapping(cuda, handle, device)
        there = cuda.bytes_behind(mapping.address, device)
    except InternalError as error:
        raise InvalidArgumentError(f"{_FAILED}: {error.message}") from error
    if byte_size > there:
        raise InvalidArgumentError(f"{_FAILED}: the memory has {there} bytes, expected at least {byte_size}")
    return mapping
