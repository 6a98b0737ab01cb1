"""DLPack as this package speaks it, over host memory: the structures are the same as on a GPU, and so are consumers."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from trivet.datatypes import ALL, BF16, BOOL, BYTES, FP16, FP32, INT32, DataType
from trivet.tensor import Tensor
from trivet_memory_cuda import dlpack
from trivet_memory_cuda.dlpack import CPU, DeviceMemory, elements

NUMBERS = [datatype for datatype in ALL if datatype not in (BYTES, BF16)]


def over(array: NDArray[Any], datatype: DataType) -> DeviceMemory:
    return DeviceMemory(array, array.ctypes.data, (CPU, 0), datatype, array.shape)


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("datatype", NUMBERS, ids=repr)
def test_a_consumer_sees_type_shape_and_the_same_memory(datatype: DataType, version: tuple[int, int] | None) -> None:
    array = np.arange(6).reshape(2, 3).astype(datatype.numpy)
    memory = over(array, datatype)
    for seen in (np.from_dlpack(memory), torch.from_dlpack(memory).numpy()):
        assert seen.dtype == array.dtype
        assert seen.tolist() == array.tolist()
        assert seen.ctypes.data == array.ctypes.data
    capsule = memory.__dlpack__(max_version=version)
    assert ("dltensor_versioned" in repr(capsule)) == (version is not None)
    assert torch.from_dlpack(capsule).numpy().tolist() == array.tolist()


def test_bfloat16_is_told_from_integers() -> None:
    patterns = np.array([0x3F80, 0x4000], np.uint16)
    seen = torch.from_dlpack(over(patterns, BF16))
    assert seen.dtype is torch.bfloat16
    assert seen.tolist() == [1, 2]
    # The kernel shows numpy, which has no such type, the bit patterns.
    assert Tensor.from_dlpack("x", over(patterns, BF16), BF16, (2,)).numpy().tolist() == patterns.tolist()


@given(shape=st.lists(st.integers(0, 4), max_size=5))
def test_any_shape(shape: list[int]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    memory = over(array, INT32)
    assert memory.nbytes == array.nbytes
    assert np.from_dlpack(memory).tolist() == torch.from_dlpack(memory).tolist() == array.tolist()


class Owner:
    """What keeps memory valid."""


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("is_consumed", [True, False])
def test_the_memory_is_kept_until_the_last_consumer_is_done(is_consumed: bool, version: tuple[int, int] | None) -> None:
    owner, array = Owner(), np.zeros(4, np.float32)
    alive = weakref.ref(owner)
    capsule = DeviceMemory(owner, array.ctypes.data, (CPU, 0), FP32, (4,)).__dlpack__(max_version=version)
    del owner
    consumer = torch.from_dlpack(capsule)[1:] if is_consumed else None
    del capsule
    gc.collect()
    assert (alive() is not None) == is_consumed
    del consumer
    gc.collect()
    assert alive() is None
    assert not dlpack._lent


def test_what_is_not_there_is_refused_as_the_standard_says() -> None:
    memory = over(np.zeros(4, np.float16), FP16)
    with pytest.raises(BufferError, match="neither copied nor moved"):
        memory.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="neither copied nor moved"):
        memory.__dlpack__(copy=True)
    assert np.from_dlpack(memory, device="cpu", copy=False).size == 4


def test_the_memory_of_another_frameworks_tensor_is_found() -> None:
    whole = torch.arange(24, dtype=torch.int32).reshape(4, 6)
    # On the host a stream has no meaning, and torch takes none.
    for tensor in (whole, whole[1:3], whole[2:3, 1:4], torch.zeros(()), torch.zeros(3, dtype=torch.bool)):
        found = elements(tensor, None)  # type: ignore[arg-type]
        assert found is not None
        assert (found.address, found.byte_size) == (tensor.data_ptr(), tensor.nbytes)
    assert elements(torch.zeros((0, 3)), None).byte_size == 0  # type: ignore[arg-type, union-attr]
    for scattered in (whole.T, whole[:, :3], whole[::2]):
        assert elements(scattered, None) is None  # type: ignore[arg-type]


def test_boolean_and_own_tensors_are_found_too() -> None:
    array = np.array([True, False])
    found = elements(over(array, BOOL), 0)
    assert found is not None
    assert (found.address, found.byte_size) == (array.ctypes.data, 2)
