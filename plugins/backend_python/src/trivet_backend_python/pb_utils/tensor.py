"""``pb_utils.Tensor``: a named array that goes into or comes out of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import BF16, BYTES
from trivet.dlpack import HOST_DEVICES, describe, relabel
from trivet.memory import RegionSlice
from trivet.tensor import SupportsDLPack, encode_bytes
from trivet.tensor import Tensor as KernelTensor

from trivet_backend_python.memory import SMALL, is_released, read_only
from trivet_backend_python.pb_utils.datatypes import of_dtype
from trivet_backend_python.pb_utils.errors import TritonModelException
from trivet_backend_python.pb_utils.frameworks import adopted, readable


class Tensor:
    """An input or output of a model.

    Made by a model from a numpy array, which it goes on sharing, or with :meth:`from_dlpack`. Not synchronized.
    """

    __slots__ = ("_array", "_datatype", "_name", "_source")

    # A tensor has its elements in `_array`, or still in `_source`: what the caller sent, or a framework's tensor.
    _array: NDArray[Any] | None
    _source: KernelTensor | None

    def __init__(self, name: str, array: NDArray[Any], /) -> None:
        """Raises :class:`TritonModelException` for an empty name or a dtype that no tensor has, :class:`TypeError` for
        what is no array.
        """
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"Tensor '{name}' takes a numpy.ndarray, got {type(array).__name__}; wrap it: numpy.array(value)"
            )
        if not name or not isinstance(name, str):
            _check_name(name)
        datatype = of_dtype(array.dtype)
        if datatype is None:
            raise TritonModelException(
                f"NumPy dtype is not supported. Tensor '{name}' has dtype {array.dtype}; cast it, and put text into an"
                " array of dtype object"
            )
        self._name = name
        self._datatype = datatype
        self._array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        self._source = None

    @classmethod
    def _of(
        cls, source: KernelTensor, to_host: bool, *, copy: bool = False, places: Collection[RegionSlice] = ()
    ) -> Tensor:
        """An input of a request; with ``to_host`` elements on a device are copied to the host.

        ``copy``: what is written into it must not show in ``source``, whoever else sees that or not. ``places`` are
        where the request's outputs are to go.
        """
        tensor = cls.__new__(cls)
        tensor._name = source.name
        tensor._datatype = source.datatype
        tensor._array = None
        if to_host or not source.on_device:
            tensor._array = source.numpy().copy() if copy else source.writable(places)
        tensor._source = source
        return tensor

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """View any framework's tensor, or a capsule, without a copy.

        Raises :class:`TritonModelException` for a tensor that is not contiguous in C order, or whose element type or
        device no tensor can have.
        """
        _check_name(name)
        if type(tensor).__name__ == "PyCapsule":
            description = describe(tensor)
            tensor = adopted(tensor, description.device)
        elif hasattr(tensor, "__dlpack__") and hasattr(tensor, "__dlpack_device__"):
            # Here the default stream begins to wait for the current one, which is another when the tensor is read.
            tensor = readable(tensor)
            description = describe(tensor.__dlpack__())
        else:
            raise TritonModelException(
                "Provided tensor is not supported. Tensor must be a DLPack capsule or have `__dlpack__` and"
                " `__dlpack_device__` attributes"
            )
        if not description.is_contiguous:
            raise TritonModelException(
                "DLPack tensor is not contiguous. Only contiguous DLPack tensors that are stored in C-Order are"
                " supported."
            )
        datatype = description.datatype
        if datatype is None:
            raise TritonModelException(f"DLPack tensor '{name}' has an element type that no Triton tensor has")
        made = Tensor.__new__(Tensor)
        made._name = name
        made._datatype = datatype
        if description.device[0] in HOST_DEVICES and datatype is not BF16:
            made._array = np.from_dlpack(tensor)
            made._source = None
        else:
            made._array = None
            made._source = KernelTensor.from_dlpack(name, tensor, datatype, description.shape)
        return made

    def name(self) -> str:
        """The input or output that this is."""
        return self._name

    def shape(self) -> list[int]:
        """The dimensions, that of the batch included."""
        if self._array is not None:
            return list(self._array.shape)
        assert self._source is not None
        return list(self._source.shape)

    def triton_dtype(self) -> int:
        """The number of the element type in ``inference.DataType``, as ``triton_to_numpy_type`` takes it."""
        return self._datatype.config_value

    def is_cpu(self) -> bool:
        """Whether the elements are in host memory."""
        return self._array is not None or (self._source is not None and not self._source.on_device)

    def as_numpy(self) -> NDArray[Any]:
        """The elements as an array, the same one each time. An input may be written in place: that changes no other's.

        ``BYTES`` gives an object array of ``bytes``. Raises :class:`TritonModelException` for a tensor on a GPU, and
        for BF16, which numpy has no type for: use DLPack for both.
        """
        array = self._array
        if array is None or self._datatype is BF16:
            if self._datatype is BF16:
                raise TritonModelException(f"Tensor '{self._name}' is BF16, which NumPy does not have; use to_dlpack()")
            raise TritonModelException("Tensor is stored in GPU and cannot be converted to NumPy.")
        return array

    def to_dlpack(self) -> Any:
        """A capsule for any framework's ``from_dlpack``. Raises :class:`TritonModelException` for ``BYTES``."""
        return self.__dlpack__()

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        exchangeable = self._exchangeable()
        moving = {name: value for name in ("dl_device", "copy") if (value := options.get(name)) is not None}
        capsule = exchangeable.__dlpack__(stream=stream, **moving)
        if self._datatype is BF16 and isinstance(exchangeable, np.ndarray):
            relabel(capsule, BF16)  # which numpy cannot say of its arrays
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        device_type, device_id = self._exchangeable().__dlpack_device__()
        return int(device_type), int(device_id)

    def __repr__(self) -> str:
        return f"Tensor({self._name!r}, {self._datatype}, {self.shape()})"

    def _exchangeable(self) -> SupportsDLPack:
        if self._datatype is BYTES:
            raise TritonModelException("DLPack does not have support for string tensors.")
        if self._array is not None:
            return self._array
        assert self._source is not None
        return self._source.dlpack()

    def _to_output(self, *, stays_on_device: bool = False, stays: bool = False) -> KernelTensor:
        """The tensor to answer with, in memory that the model cannot change any more.

        With ``stays_on_device`` one on a device is left there: it is copied elsewhere before the model goes on. With
        ``stays`` so is a numpy array, wherever it is.
        A small one and one of ``BYTES`` are put into wire layout at once, which the protocols want anyway. A large one
        is copied if the model may have kept it; see :func:`~trivet_backend_python.memory.is_released`.
        """
        array = self._array
        datatype = self._datatype
        if array is None:
            # A framework's memory, perhaps on a device: what the model does with it later cannot be known.
            assert self._source is not None
            is_copy = self._source.on_device
            if is_copy and stays_on_device:
                return self._source
            host = self._source.numpy()
            return KernelTensor.from_numpy(self._name, host if is_copy else host.copy(), datatype)
        if datatype is BYTES:
            return KernelTensor.from_wire(self._name, datatype, array.shape, encode_bytes(array))
        if array.nbytes <= SMALL:
            return KernelTensor.from_wire(self._name, datatype, array.shape, array.tobytes())
        if stays:
            return KernelTensor.from_numpy(self._name, array, datatype)
        del array
        assert self._array is not None
        if is_released(self._array):
            return KernelTensor.from_numpy(self._name, self._array, datatype)
        return KernelTensor.from_numpy(self._name, self._array.copy(), datatype)

    def _to_input(self) -> KernelTensor:
        """The tensor as an input of another model, which cannot write into it."""
        if self._array is None:
            assert self._source is not None
            return self._source.renamed(self._name)
        return KernelTensor.from_numpy(self._name, read_only(self._array), self._datatype)


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a tensor's name must be a str, got {type(name).__name__}")
    if not name:
        raise TritonModelException("Tensor name cannot be an empty string.")


def check_tensors(tensors: Iterable[Tensor], none_message: str) -> list[Tensor]:
    """``tensors`` as a list, all of them tensors."""
    checked = list(tensors)
    for tensor in checked:
        if type(tensor) is not Tensor:
            if tensor is None:
                raise TritonModelException(none_message)
            raise TypeError(f"expected pb_utils.Tensor objects, got {type(tensor).__name__}")
    return checked
