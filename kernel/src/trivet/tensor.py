"""Tensors: a name, an element type, a shape, and memory that somebody else may own.

A :class:`Tensor` is a view. It comes from bytes on the wire, from a numpy array, or from any object that speaks DLPack
(a framework's tensor on host or device), and it is turned into one of the others only when somebody asks. Asking for
what it already is costs nothing and copies nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trivet import datatypes
from trivet.datatypes import BF16, BOOL, BYTES, DataType
from trivet.dlpack import HOST_DEVICES, BitPatterns, DeviceMemory, Rows, describe
from trivet.errors import InternalError, InvalidArgumentError

if TYPE_CHECKING:
    from trivet.memory import GpuMemory, PinnedMemory, RegionSlice

Buffer = bytes | bytearray | memoryview

_LENGTH = struct.Struct("<I")

_JOIN_LIMIT = 256 << 10
"""Up to so many bytes, joining wire layouts beats numpy, 40 times for 32 tensors of 64 bytes; but it keeps the
interpreter lock, which numpy does not, so that it must not be asked for much."""


class SupportsDLPack(Protocol):
    """A tensor of any framework, on any device. Source: the Python array API standard, ``__dlpack__``."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """A capsule with the tensor's description, for one consumer, whose work on ``stream`` may begin at once."""
        ...

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device, as ``DLDevice`` of ``dlpack.h``."""
        ...


class Tensor:
    """A named tensor over memory on the host or on a device.

    ``shape`` is a tuple of non-negative ints and includes the batch dimension where the model has one. Use
    :meth:`from_numpy`, :meth:`from_wire` or :meth:`from_dlpack`; whoever holds the tensor keeps the memory alive.
    Not synchronized: one thread uses a tensor at a time, as requests move from the event loop to an instance's thread.
    """

    __slots__ = ("_array", "_dlpack", "_region", "_wire", "datatype", "name", "shape")

    def __init__(self, name: str, datatype: DataType, shape: tuple[int, ...]) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape
        self._array: NDArray[Any] | None = None
        self._wire: Buffer | None = None
        self._dlpack: SupportsDLPack | None = None
        self._region: RegionSlice | None = None

    @classmethod
    def from_numpy(cls, name: str, array: NDArray[Any], datatype: DataType | None = None) -> Tensor:
        """View a host array. ``datatype`` is needed only for BF16, whose array holds ``uint16`` bit patterns.

        An array of another byte order than the machine's is copied: frameworks would read its bytes as they are. Raises
        :class:`TypeError` for a dtype that no tensor can have.
        """
        tensor = cls(name, datatype or datatypes.from_numpy(array.dtype), array.shape)
        tensor._array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        return tensor

    @classmethod
    def from_wire(
        cls, name: str, datatype: DataType, shape: tuple[int, ...], data: Buffer, *, region: RegionSlice | None = None
    ) -> Tensor:
        """View bytes in wire layout: row-major, little-endian; ``BYTES`` as length-prefixed elements.

        ``region`` is where a client shares them, if it does. Sizes are not checked here but when the tensor is used, or
        by the engine's validation before.
        """
        tensor = cls(name, datatype, shape)
        tensor._wire = data
        tensor._region = region
        return tensor

    @classmethod
    def from_dlpack(cls, name: str, array: SupportsDLPack, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        """View a framework's tensor, which stays on its device until :meth:`numpy` or :meth:`wire` is called."""
        tensor = cls(name, datatype, shape)
        tensor._dlpack = array
        return tensor

    @classmethod
    def concatenated(
        cls,
        tensors: Sequence[Tensor],
        shape: tuple[int, ...],
        memory: PinnedMemory | None = None,
        gpu_memory: GpuMemory | None = None,
    ) -> Tensor:
        """The elements of all, one tensor after the other, in memory of its own; ``shape`` has as many.

        Name and datatype are the first one's. ``memory`` is where numbers go; not small ones, for which it matters
        little where a device copies them from. ``gpu_memory`` is where those go that are all on a GPU; without it they
        are read to the host.
        """
        first = tensors[0]
        joined = cls(first.name, first.datatype, shape)
        if gpu_memory is not None and all(tensor.on_device for tensor in tensors):
            joined._dlpack = gpu_memory.joined(tensors, shape)
            if joined._dlpack is not None:
                return joined
        if 0 < element_count(shape) * first.datatype.itemsize <= _JOIN_LIMIT:
            parts = [tensor._wire for tensor in tensors if tensor._wire is not None]
            if len(parts) == len(tensors):
                joined._wire = bytearray().join(parts)
                return joined
        arrays = [tensor.numpy() for tensor in tensors]
        if len(shape) == 1 or memory is not None:
            arrays = [array.reshape(-1) for array in arrays]
        place = None
        if memory is not None and first.datatype is not BYTES:
            place = memory.take(element_count(shape) * first.datatype.itemsize).view(first.datatype.numpy)
        joined._array = np.concatenate(arrays, out=place).reshape(shape)
        return joined

    def divided(self, parts: Sequence[tuple[tuple[int, ...], int]]) -> list[Tensor]:
        """The opposite of :meth:`concatenated`: a tensor of each shape, as views of this one's memory on the host.

        ``parts`` are shapes, each with the number of its elements. They take the elements in order, and together no
        more than there are. What is not contiguous is copied once.
        """
        name, datatype = self.name, self.datatype
        divided: list[Tensor] = []
        start = 0
        if datatype is BYTES:
            elements = self.numpy().reshape(-1)
            for shape, count in parts:
                end = start + count
                divided.append(Tensor.from_numpy(name, elements[start:end].reshape(shape), datatype))
                start = end
            return divided
        # A slice of a memoryview is what a protocol sends; numpy's would have to be turned into one for each request.
        memory = memoryview(self.wire())
        itemsize = datatype.itemsize
        for shape, count in parts:
            end = start + count * itemsize
            part = Tensor(name, datatype, shape)
            part._wire = memory[start:end]
            divided.append(part)
            start = end
        return divided

    def rows_on_device(self, counts: Sequence[int]) -> list[Tensor] | None:
        """So many rows each, of the first dimension and in order, as views where they are.

        ``None`` where the elements are on the host, or not row-major.
        """
        whole = self._dlpack
        if whole is None or not self.on_device or not describe(whole.__dlpack__()).is_contiguous:
            return None
        rows: list[Tensor] = []
        first, tail = 0, self.shape[1:]
        for count in counts:
            part = Rows(whole, first, self.datatype, (count, *tail))
            rows.append(Tensor.from_dlpack(self.name, part, self.datatype, part.shape))
            first += count
        return rows

    def renamed(self, name: str) -> Tensor:
        """The same memory under another name, as an ensemble hands an output on as an input."""
        other = Tensor(name, self.datatype, self.shape)
        other._array, other._wire, other._dlpack = self._array, self._wire, self._dlpack
        other._region = self._region
        return other

    def read_only(self) -> Tensor:
        """The same elements for one of several readers: :meth:`writable` copies them, unless they are on a device."""
        other = self.renamed(self.name)
        if self._wire is not None and self._region is None:
            other._wire, other._array = memoryview(self._wire).toreadonly(), None
        elif self._region is None and not self.on_device:
            array = self.numpy().view()
            array.flags.writeable = False
            other._array, other._dlpack = array, None
        return other

    def reshaped(self, shape: tuple[int, ...]) -> Tensor:
        """The same elements under another shape of as many (``reshape`` of a model configuration).

        A view over the same memory, except of a framework's own tensor on a device: DLPack has no reshape, so that is
        read to the host.
        """
        other = Tensor(self.name, self.datatype, shape)
        other._wire, other._region = self._wire, self._region
        if self._array is not None:
            other._array = self._array.reshape(shape)
        elif isinstance(self._dlpack, DeviceMemory):
            other._dlpack = self._dlpack.reshaped(shape)
        elif self._dlpack is not None:
            other._array = self.numpy().reshape(shape)
        return other

    @property
    def on_device(self) -> bool:
        """True while the elements are only in device memory, so that :meth:`numpy` would have to copy them."""
        return (
            self._array is None
            and self._wire is None
            and self._dlpack is not None
            and self._dlpack.__dlpack_device__()[0] not in HOST_DEVICES
        )

    @property
    def region(self) -> RegionSlice | None:
        """Where a client shares the memory, and may write to it or take it away at any time; ``None`` for other memory.

        Of an input that a provider gave so (:meth:`from_wire`), renamed and reshaped too.
        """
        return self._region

    @property
    def wire_size(self) -> int | None:
        """How many bytes the wire layout takes, where that is known without encoding; ``None`` otherwise."""
        if self._wire is not None:
            return self._wire.nbytes if isinstance(self._wire, memoryview) else len(self._wire)
        if self.datatype is BYTES:
            return None
        if self._array is not None:
            return int(self._array.nbytes)
        return element_count(self.shape) * self.datatype.itemsize

    def numpy(self) -> NDArray[Any]:
        """A host array of this shape, in the machine's byte order; where possible a view, and then perhaps read-only.

        ``BYTES`` gives an object array of ``bytes``. Raises :class:`~trivet.errors.InvalidArgumentError` where bytes
        from the wire do not fit the shape, and :class:`~trivet.errors.InternalError` where a framework's tensor is of
        another type or cannot be read.
        """
        if self._array is None:
            if self._wire is not None:
                self._array = _decode(self.name, self.datatype, self.shape, self._wire)
            else:
                self._array = _host_copy(self.name, self._dlpack, self.datatype).reshape(self.shape)
        return self._array

    def writable(self, places: Collection[RegionSlice] = ()) -> NDArray[Any]:
        """The elements as a host array to write into, which changes nobody else's: a view where possible, else a copy.

        Of memory that a client shares, only what is written is copied, page by page. ``places`` are where outputs are
        to go (``request.regions``): an input that lies in just that place is to be written over anyway, and is given as
        it is.
        """
        array = self.numpy()
        data = None
        if self._region is not None and self.datatype is not BYTES:
            data = self._region.writable(in_place=self._region in places)
        if data is not None:
            return _decode(self.name, self.datatype, self.shape, data)
        return array if array.flags.writeable else array.copy()

    def wire(self) -> Buffer:
        """The elements in wire layout, without a copy where the memory is contiguous already."""
        if self._wire is None:
            self._wire = encode(self.datatype, self.numpy())
        return self._wire

    def dlpack(self) -> SupportsDLPack:
        """What a framework's ``from_dlpack`` takes: the device tensor, else the host array. Not for ``BYTES``."""
        return self._dlpack if self._dlpack is not None else self.numpy()

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {self.datatype}, {list(self.shape)})"


def element_count(shape: Sequence[int]) -> int:
    """Product of the dimensions, in Python's unbounded integers so that a hostile shape cannot overflow."""
    count = 1
    for dim in shape:
        count *= dim
    return count


def encode(datatype: DataType, array: NDArray[Any]) -> Buffer:
    """Wire layout of a host array; a view where it is contiguous and little-endian."""
    if datatype is BYTES:
        return encode_bytes(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    contiguous = np.ascontiguousarray(array)
    # A memoryview of a zero-sized array cannot be cast, and there is nothing in it to view.
    return contiguous.reshape(-1).view(np.uint8).data if contiguous.size else b""


def encode_bytes(array: NDArray[Any]) -> bytes:
    """Length-prefixed elements, row-major. Text elements are encoded as UTF-8."""
    parts: list[bytes] = []
    pack = _LENGTH.pack
    for item in array.reshape(-1).tolist():
        data = item if isinstance(item, bytes) else str(item).encode()
        parts.append(pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def decode_bytes(name: str, data: Buffer, count: int, model: str = "") -> list[bytes]:
    """The ``count`` length-prefixed elements of ``data``.

    Raises :class:`~trivet.errors.InvalidArgumentError` where lengths and data disagree; it names ``model`` if given.
    """
    where = f"inference input '{name}' for model '{model}'" if model else f"inference input '{name}'"
    view = memoryview(data)
    total = view.nbytes
    items: list[bytes] = []
    offset = 0
    unpack = _LENGTH.unpack_from
    while offset < total:
        start = offset + 4
        if start > total:
            raise InvalidArgumentError(
                f"incomplete string length indicator for {where}, expecting 4 bytes but only {total - offset} bytes"
                " available. Please make sure the string length indicator is in one buffer."
            )
        end = start + unpack(view, offset)[0]
        if end > total:
            raise InvalidArgumentError(
                f"incomplete string data for inference input '{name}', expecting string of length {end - start}"
                f" but only {total - start} bytes available"
            )
        if len(items) == count:
            raise InvalidArgumentError(
                f"unexpected number of string elements {count + 1} for {where}, expecting {count}"
            )
        items.append(bytes(view[start:end]))
        offset = end
    if len(items) != count:
        raise InvalidArgumentError(f"expected {count} string elements for {where}, got {len(items)}")
    return items


def object_array(items: Sequence[object], shape: tuple[int, ...]) -> NDArray[Any]:
    """An object array of ``items``, bytes or text; numpy would make a bare list fixed-width and drop trailing zeros."""
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array.reshape(shape)


def _decode(name: str, datatype: DataType, shape: tuple[int, ...], data: Buffer) -> NDArray[Any]:
    try:
        if datatype is BYTES:
            return object_array(decode_bytes(name, data, element_count(shape)), shape)
        return np.frombuffer(data, dtype=datatype.numpy).reshape(shape)
    except ValueError:
        # Also where there is no data: frombuffer takes none of that.
        return _empty(name, datatype, shape, memoryview(data).nbytes)


def _empty(name: str, datatype: DataType, shape: tuple[int, ...], size: int) -> NDArray[Any]:
    """The array for no data; for ``size`` bytes of it, and a shape that is none, the caller's error."""
    expected = element_count(shape) * datatype.itemsize
    if size != expected and datatype is not BYTES:
        raise InvalidArgumentError(
            f"input '{name}' has {size} bytes of data, expected {expected} for {datatype} of shape {list(shape)}"
        )
    try:
        if size == 0:
            return np.empty(shape, dtype=datatype.numpy)
    except ValueError:
        pass
    # Two negative dimensions make a size that is right, and so does any number beside a 0.
    raise InvalidArgumentError(
        f"input '{name}' has shape {list(shape)}, which no array can have; expected dimensions that are not negative,"
        " and not too large either where one of them is 0"
    )


def _host_copy(name: str, array: SupportsDLPack | None, datatype: DataType) -> NDArray[Any]:
    """A framework's tensor as a host array; a view where it is on the host already."""
    if array is None:
        raise ValueError("tensor has no data")
    if datatype is BF16:
        array = BitPatterns(array)
    try:
        if array.__dlpack_device__()[0] in HOST_DEVICES:
            host = np.from_dlpack(array)
        else:
            # numpy asks the producer for a host copy through DLPack's copy protocol (array API 2023.12).
            host = np.from_dlpack(array, device="cpu", copy=True)
    except (BufferError, RuntimeError, TypeError) as error:
        # TypeError: the producer knows an earlier standard, and no `dl_device`.
        raise InternalError(f"tensor '{name}' cannot be read from its framework: {error}") from error
    if host.dtype == datatype.numpy:
        return host
    if datatype is BOOL and host.dtype == np.uint8:
        return host.view(np.bool_)  # as frameworks say it whose DLPack has no truth values
    raise InternalError(f"tensor '{name}' is {host.dtype} in its framework, expected {datatype}")
