"""DLPack as the kernel speaks it, over host memory: the structures are the same as on a GPU, and so are consumers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from trivet.datatypes import ALL, BF16, BOOL, BYTES, FP16, FP32, FP64, INT32, UINT16, DataType
from trivet.dlpack import CPU, CUDA, DeviceMemory, OnGpu, Rows, describe, relabel
from trivet.tensor import Tensor

torch = pytest.importorskip("torch")

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


def test_a_consumer_that_refuses_a_tensor_keeps_nothing_of_it() -> None:
    """It drops the capsule while its error is raised, when no code of Python may run."""
    owner, array = Owner(), np.zeros(4, np.float32)
    alive = weakref.ref(owner)
    on_gpu = DeviceMemory(owner, array.ctypes.data, (CUDA, 0), FP32, (4,))
    del owner
    for _ in range(2):
        # A view, which numpy cannot have of a GPU's memory; a copy would have to be asked for.
        with pytest.raises(RuntimeError, match="Unsupported device"):
            np.from_dlpack(on_gpu)
    assert describe(on_gpu.__dlpack__()).device == (CUDA, 0)
    del on_gpu
    assert alive() is None


def test_what_is_not_there_is_refused_as_the_standard_says() -> None:
    memory = over(np.zeros(4, np.float16), FP16)
    with pytest.raises(BufferError, match="neither copied nor moved"):
        memory.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="neither copied nor moved"):
        memory.__dlpack__(copy=True)
    assert np.from_dlpack(memory, device="cpu", copy=False).size == 4


def test_a_capsule_says_what_it_holds_and_where() -> None:
    whole = torch.arange(24, dtype=torch.int32).reshape(4, 6)
    for tensor in (whole, whole[1:3], whole[2:3, 1:4], torch.zeros(()), torch.zeros(3, dtype=torch.bool)):
        capsule = tensor.__dlpack__()
        found = describe(capsule)
        assert found.is_contiguous
        assert (found.device, found.shape) == ((CPU, 0), tuple(tensor.shape))
        assert (found.address, found.byte_size) == (tensor.data_ptr(), tensor.nbytes)
        assert found.datatype in (INT32, FP32, BOOL)
        assert torch.from_dlpack(capsule).data_ptr() == tensor.data_ptr()  # it was only looked at
    assert describe(torch.zeros((0, 3)).__dlpack__()).byte_size == 0
    for scattered in (whole.T, whole[:, :3], whole[::2]):
        assert not describe(scattered.__dlpack__()).is_contiguous


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("datatype", [*NUMBERS, BF16], ids=repr)
def test_own_memory_is_described_too(datatype: DataType, version: tuple[int, int] | None) -> None:
    array = np.zeros((2, 3), datatype.numpy)
    found = describe(over(array, datatype).__dlpack__(max_version=version))
    assert found == ((CPU, 0), datatype, (2, 3), array.ctypes.data, array.nbytes, True)


def test_an_element_type_that_no_tensor_has_is_none() -> None:
    assert describe(torch.zeros(2, dtype=torch.complex64).__dlpack__()).datatype is None


def test_bit_patterns_become_bfloat16_and_integers_again() -> None:
    patterns = np.array([0x3F80, 0x4000], np.uint16)
    capsule = patterns.__dlpack__()
    relabel(capsule, BF16)
    assert describe(capsule).datatype is BF16
    relabel(capsule, UINT16)
    assert describe(capsule).datatype is UINT16


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("datatype", [*NUMBERS, BF16], ids=repr)
def test_rows_are_views_of_the_whole(datatype: DataType, version: tuple[int, int] | None) -> None:
    array = np.arange(12).reshape(4, 3).astype(datatype.numpy)
    rows = Rows(over(array, datatype), 1, datatype, (2, 3))
    found = describe(rows.__dlpack__(max_version=version))
    assert found == ((CPU, 0), datatype, (2, 3), array[1:].ctypes.data, array[1:3].nbytes, True)
    assert Tensor.from_dlpack("x", rows, datatype, rows.shape).numpy().tolist() == array[1:3].tolist()


def test_rows_keep_the_whole_and_wait_as_it_does() -> None:
    class Noting(DeviceMemory):
        def __dlpack__(self, **options: Any) -> Any:
            asked.append(options)
            return super().__dlpack__(**options)

    asked: list[dict[str, Any]] = []
    owner = Owner()
    array = np.arange(6.0).reshape(3, 2)
    kept = weakref.ref(owner)
    rows = Rows(Noting((owner, array), array.ctypes.data, (CPU, 0), FP64, (3, 2)), 2, FP64, (1, 2))
    assert rows.__dlpack_device__() == (CPU, 0)
    capsule = rows.__dlpack__(stream=7)
    assert asked == [{"stream": 7}]
    del rows, owner
    gc.collect()
    assert kept()
    assert torch.from_dlpack(capsule).tolist() == [[4, 5]]
    del capsule
    gc.collect()
    assert not kept()


def test_rows_of_what_has_gaps_are_none() -> None:
    columns = torch.zeros(4, 3).T
    with pytest.raises(BufferError, match="not row-major"):
        Rows(columns, 1, FP32, (2, 4)).__dlpack__()


def test_own_memory_has_any_shape_of_as_many_elements() -> None:
    array = np.arange(6, dtype=np.int32)
    memory = over(array, INT32)
    assert np.from_dlpack(memory.reshaped((2, 3))).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert memory.shape == (6,)


def test_what_is_no_capsule_or_was_consumed_is_refused() -> None:
    capsule = np.zeros(2).__dlpack__()
    torch.from_dlpack(capsule)
    for wrong in (capsule, np.zeros(2), None):
        with pytest.raises(ValueError, match="expected a DLPack capsule that nobody has consumed"):
            describe(wrong)


def test_a_frameworks_bf16_comes_as_bit_patterns() -> None:
    source = torch.tensor([[1.0, -2.0], [0.5, float("inf")]], dtype=torch.bfloat16)
    tensor = Tensor.from_dlpack("x", source, BF16, (2, 2))
    assert tensor.numpy().dtype == np.uint16
    assert tensor.numpy().tolist() == [[0x3F80, 0xC000], [0x3F00, 0x7F80]]
    assert bytes(tensor.wire()) == bytes.fromhex("803f00c0003f807f")
    # The framework's own tensor is what it was.
    assert source.dtype is torch.bfloat16
    assert torch.from_dlpack(source).dtype is torch.bfloat16


def test_a_tensor_on_a_gpu_is_handed_on_with_its_gpu_the_current_one() -> None:
    """As PyTorch has it, whose tensors are over host memory here."""
    array, current, asked = np.ones(2, np.float32), [0], []

    class Tensor1(DeviceMemory):
        def __dlpack__(self, *, stream: Any = -1, **options: Any) -> Any:
            asked.append((current[0], stream))
            return super().__dlpack__(**options)

    @contextmanager
    def on_its_gpu() -> Iterator[None]:
        before, current[0] = current[0], 1
        yield
        current[0] = before

    source = Tensor1(array, array.ctypes.data, (CUDA, 1), FP32, (2,))
    given = OnGpu(source, (2,), current=on_its_gpu, to_host=array.copy)
    assert given.__dlpack_device__() == (CUDA, 1)
    for stream in (None, 77):  # who names no stream is on the legacy default one, whose number is 1
        assert describe(given.__dlpack__(stream=stream)).device == (CUDA, 1)
    assert asked == [(1, 1), (1, 77)]
    host = np.from_dlpack(given, device="cpu")
    array[:] = 5
    assert host.tolist() == [1, 1]
    for wanted in ({"copy": True}, {"dl_device": (CUDA, 0)}, {"dl_device": (CPU, 0), "copy": False}):
        with pytest.raises(BufferError, match="neither copied nor moved"):
            given.__dlpack__(**wanted)
    assert current == [0]
