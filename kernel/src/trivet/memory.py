"""Memory providers: regions that a client shares with the server, so that tensors need not travel, and pools of memory.

A protocol asks for a :class:`RegionSlice` when it reads a request, for inputs and for outputs alike. So a region that
is not there is refused before anything is computed, and what a request was granted stays mapped until it is answered.

Source: Triton's system shared memory and CUDA shared memory extensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from trivet.datatypes import DataType
from trivet.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from trivet.tensor import Buffer, Tensor

if TYPE_CHECKING:
    from trivet.dlpack import DeviceMemory
    from trivet.inference import InferenceRequest, InferenceResponse


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """A registered region. ``details`` are the provider's own fields (``key``, ``offset``; ``device_id``)."""

    name: str
    byte_size: int
    details: Mapping[str, Any]

    def check_part(self, offset: int, byte_size: int) -> None:
        """Whether a part, both numbers as the caller wrote them, lies within the region.

        Raises :class:`~trivet.errors.InvalidArgumentError`, in Triton's words, where it does not.
        """
        if not 0 <= offset < self.byte_size:
            raise InvalidArgumentError(f"Invalid offset for shared memory region: '{self.name}'")
        if byte_size <= 0 or offset + byte_size > self.byte_size:
            raise InvalidArgumentError(f"Invalid offset + byte size for shared memory region: '{self.name}'")


class RegionSlice(ABC):
    """Part of a registered region, for one tensor of one request.

    Whoever holds it, or a tensor that it gave, keeps the memory mapped, also when the region is unregistered meanwhile.
    Its methods may be called from any thread: the event loop makes it, an instance's thread reads and fills it.
    """

    on_device: bool = False
    """Whether its memory is on a GPU, so that an output on its way there should not pass through the host."""

    @abstractmethod
    def tensor(self, name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        """View the slice as a tensor, without a copy: an input, or the place that an output is computed into.

        Raises :class:`~trivet.errors.InvalidArgumentError` where a tensor of that size does not fit.
        """

    @abstractmethod
    def write(self, tensor: Tensor) -> int:
        """Copy an output into the slice, in wire layout, and return the bytes written.

        Raises :class:`~trivet.errors.TrivetError` where it does not fit.
        """

    def check(self) -> None:
        """Raise :class:`~trivet.errors.TrivetError` where the client has taken memory of the slice away.

        Asked when an input that lies there was read: what was read is then perhaps not what the client put there.
        """
        return

    def writable(self, *, in_place: bool) -> Buffer | None:
        """The slice's bytes for a model that writes into its inputs; ``None`` where it needs a copy for that.

        The client sees what is written only ``in_place``, where it wants an output. Slices of one place are equal.
        """
        return None


def place(request: InferenceRequest, response: InferenceResponse) -> None:
    """Put the outputs for which the caller gave a region where it wants them.

    An instance's thread does so, since large outputs take their time; for a response that comes from elsewhere (an
    ensemble, a cache) the protocol does, before it encodes the rest. Nothing is written for a caller that has given up:
    it may use the memory for something else by now. Raises :class:`~trivet.errors.TrivetError` where an output does not
    fit.
    """
    regions = request.regions
    if regions is None or response.placed or request.cancelled:
        return
    for tensor in response.outputs:
        region = regions.get(tensor.name)
        if region is not None:
            region.write(tensor)
    response.placed = True


class PinnedMemory(ABC):
    """Page-locked host memory, which a GPU reads and writes directly, for staging tensors. Any thread."""

    @abstractmethod
    def take(self, byte_size: int) -> NDArray[np.uint8]:
        """An array of that many bytes, uninitialized; in ordinary memory if no pinned memory is left.

        The memory goes back with the last view of the array, so keep a view until an asynchronous copy is complete. The
        first call pins the whole pool, which takes a tenth of a second: take a byte when an instance is created, on its
        thread, so that no request has to wait for that.
        """

    @abstractmethod
    def holds(self, array: NDArray[Any]) -> bool:
        """Whether an array lies in this memory, and needs no copy to get there."""


class GpuMemory(ABC):
    """Memory of GPUs, for batches of what is there already. Any thread."""

    @abstractmethod
    def joined(self, tensors: Sequence[Tensor], shape: tuple[int, ...]) -> DeviceMemory | None:
        """The elements of all, one tensor after the other, on the GPU where they are; ``shape`` has as many.

        They are there when this returns, at an address that every kernel takes. ``None`` where they are not all on one
        GPU, row-major, or where it has no memory left.
        """


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """How much of a pool is in use. As in Triton, ``total_bytes`` is its size even before it is allocated, which is at
    the first use, and if that fails.
    """

    kind: Literal["pinned", "cuda"]
    """Of the host, or of a GPU."""
    device: int
    """The GPU, counted from 0; 0 for the host."""
    total_bytes: int
    used_bytes: int


class MemoryProvider(ABC):
    """One kind of shared memory. Every method is called on the event loop and must not block for long.

    Names of regions are unique over all providers; the protocol that registers them sees to it.
    """

    @abstractmethod
    def register(self, name: str, byte_size: int, details: Mapping[str, Any]) -> None:
        """Map a region.

        Raises :class:`~trivet.errors.AlreadyExistsError`, :class:`~trivet.errors.InvalidArgumentError` where key, size
        or handle are wrong, and :class:`~trivet.errors.UnavailableError` where this machine has no such memory.
        """

    @abstractmethod
    def unregister(self, name: str | None) -> None:
        """Forget one region or, with ``None``, all; a name that is not registered is nothing to forget."""

    @abstractmethod
    def regions(self) -> Mapping[str, RegionStatus]:
        """What is registered now, by name."""

    @abstractmethod
    def __contains__(self, region: object) -> bool:
        """Whether a region of that name is registered now; asked for each tensor in shared memory."""

    @abstractmethod
    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        """Part of a region, offset and size in bytes.

        Raises :class:`~trivet.errors.NotFoundError` where the region is not registered, and
        :class:`~trivet.errors.InvalidArgumentError` where the part leaves it.
        """

    @property
    def pinned(self) -> PinnedMemory | None:
        """For backends that copy to devices; ``None`` where the provider has none."""
        return None

    @property
    def gpu(self) -> GpuMemory | None:
        """For batches of what is on GPUs; ``None`` where the provider has none."""
        return None

    def pools(self) -> Sequence[PoolUsage]:
        """For exporters: each pool that the provider has or may make."""
        return ()


Mapped = TypeVar("Mapped")


class RegionTable(MemoryProvider, Generic[Mapped]):
    """A provider that keeps its regions by name, which all do; a kind of memory says how to map one.

    ``Mapped`` is whatever stands for the mapping, and ends it with its last reference: a slice has to hold it.
    """

    def __init__(self) -> None:
        self._regions: dict[str, tuple[RegionStatus, Mapped]] = {}

    @abstractmethod
    def map(self, byte_size: int, details: Mapping[str, Any]) -> tuple[Mapped, Mapping[str, Any]]:
        """Map what a client describes: the mapping, and the details to show in a status.

        Raises as :meth:`MemoryProvider.register` does, with nothing left mapped.
        """

    @abstractmethod
    def part(self, mapped: Mapped, offset: int, byte_size: int) -> RegionSlice:
        """Part of a mapping, within the region."""

    def register(self, name: str, byte_size: int, details: Mapping[str, Any]) -> None:
        if name in self._regions:
            raise AlreadyExistsError(f"shared memory region '{name}' already in manager")
        mapped, shown = self.map(byte_size, details)
        self._regions[name] = RegionStatus(name, byte_size, shown), mapped

    def unregister(self, name: str | None) -> None:
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def regions(self) -> Mapping[str, RegionStatus]:
        return {name: status for name, (status, _) in self._regions.items()}

    def __contains__(self, region: object) -> bool:
        return region in self._regions

    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        found = self._regions.get(region)
        if found is None:
            raise NotFoundError(f"Unable to find shared memory region: '{region}'")
        status, mapped = found
        status.check_part(offset, byte_size)
        return self.part(mapped, offset, byte_size)
