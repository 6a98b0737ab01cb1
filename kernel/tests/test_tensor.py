"""Tensors are views: what goes in comes out, and nothing is copied that need not be."""

import numpy as np
import pytest
from host_gpu import HostGpu, address_of, on_gpu
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from trivet import datatypes
from trivet.datatypes import DataType
from trivet.dlpack import CUDA
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, decode_bytes, element_count, encode_bytes, object_array

NUMERIC = [d for d in datatypes.ALL if d not in (datatypes.BYTES, datatypes.BF16)]


@pytest.mark.parametrize("datatype", NUMERIC, ids=repr)
@given(data=st.data())
def test_wire_layout_round_trips_every_numeric_type(datatype: datatypes.DataType, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(datatype.numpy, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
    wire = bytes(Tensor.from_numpy("x", array).wire())
    again = Tensor.from_wire("x", datatype, array.shape, wire).numpy()
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()
    assert again.shape == array.shape


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_bytes_elements_round_trip(items: list[bytes]) -> None:
    wire = encode_bytes(object_array(items, (len(items),)))
    assert decode_bytes("x", wire, len(items)) == items


@given(st.binary(max_size=40), st.integers(0, 5))
def test_arbitrary_bytes_are_elements_or_an_error(data: bytes, count: int) -> None:
    try:
        items = decode_bytes("x", data, count)
    except InvalidArgumentError:
        return
    assert encode_bytes(object_array(items, (count,))) == data


def test_bytes_keep_trailing_zeros_that_numpy_text_would_drop() -> None:
    array = Tensor.from_wire("x", datatypes.BYTES, (1,), b"\x02\0\0\0a\0").numpy()
    assert array[0] == b"a\0"


def test_wire_to_array_is_a_view() -> None:
    wire = bytearray(8)
    array = Tensor.from_wire("x", datatypes.FP32, (2,), wire).numpy()
    wire[0:4] = np.float32(1.5).tobytes()
    assert array.tolist() == [1.5, 0.0]


def test_array_to_wire_is_a_view_where_it_is_contiguous() -> None:
    array = np.arange(4, dtype=np.int64)
    wire = Tensor.from_numpy("x", array).wire()
    array[0] = 7
    assert np.frombuffer(wire, np.int64)[0] == 7


def test_transposed_and_big_endian_arrays_are_written_row_major_and_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    wire = Tensor.from_numpy("x", array).wire()
    assert np.frombuffer(wire, "<i4").tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("datatype", [datatypes.FP32, datatypes.BF16, datatypes.BYTES], ids=repr)
def test_an_array_of_any_byte_order_is_given_in_the_machines(datatype: DataType) -> None:
    """Frameworks are handed the bytes, and few of them ask in which order these are."""
    array = np.array(["a", "bc"]) if datatype is datatypes.BYTES else np.array([1, 2], datatype.numpy)
    foreign = array.astype(array.dtype.newbyteorder("S"))
    read = Tensor.from_numpy("x", foreign, datatype).numpy()
    assert read.dtype.isnative
    assert read.tolist() == array.tolist()


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor.from_numpy("x", np.ones(2, np.float32)),
        Tensor.from_wire("x", datatypes.FP32, (2,), bytearray(np.ones(2, np.float32))),
        Tensor.from_numpy("x", object_array([b"a", b"b"], (2,))),
        Tensor.from_wire("x", datatypes.BYTES, (2,), encode_bytes(object_array([b"a", b"b"], (2,)))),
    ],
    ids=["numpy", "wire", "text", "text from the wire"],
)
def test_what_one_of_several_readers_writes_no_other_sees(tensor: Tensor) -> None:
    before = tensor.numpy().tolist()
    one, other = tensor.read_only(), tensor.read_only()
    one.writable()[0] = 0
    assert other.numpy().tolist() == tensor.numpy().tolist() == before
    assert bytes(one.wire()) == bytes(tensor.wire())


def test_bf16_is_told_apart_from_uint16_by_the_caller() -> None:
    bits = np.array([0x3F80], dtype=np.uint16)
    assert Tensor.from_numpy("x", bits).datatype is datatypes.UINT16
    assert Tensor.from_numpy("x", bits, datatypes.BF16).datatype is datatypes.BF16


def test_wrong_size_names_tensor_and_expectation() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"input 'x' has 7 bytes of data, expected 8 for FP32 of shape \[2\]"
    ):
        Tensor.from_wire("x", datatypes.FP32, (2,), bytes(7)).numpy()


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        (datatypes.FP32, (-1, -2), bytes(8)),
        (datatypes.FP32, (0, 2**62), b""),
        (datatypes.BYTES, (-1, -2), bytes(8)),
        (datatypes.BYTES, (0, 2**62), b""),
    ],
)
def test_a_shape_that_no_array_can_have_is_the_callers_error(
    datatype: datatypes.DataType, shape: tuple[int, ...], data: bytes
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"input 'x' has shape \[.*\], which no array can have"):
        Tensor.from_wire("x", datatype, shape, data).numpy()


def test_element_count_of_a_hostile_shape_does_not_overflow() -> None:
    assert element_count((2**40, 2**40)) == 2**80


def test_dlpack_gives_the_memory_itself() -> None:
    array = np.arange(3, dtype=np.float32)
    tensor = Tensor.from_dlpack("x", array, datatypes.FP32, (3,))
    assert not tensor.on_device
    assert np.shares_memory(tensor.numpy(), array)
    assert tensor.dlpack() is array


def test_a_frameworks_tensor_of_another_type_is_not_taken_for_what_was_promised() -> None:
    """Its bytes would be sent under a datatype whose elements have another size."""
    halves = Tensor.from_dlpack("x", np.ones(3, np.float16), datatypes.FP32, (3,))
    with pytest.raises(InternalError, match=r"^tensor 'x' is float16 in its framework, expected FP32$"):
        halves.wire()
    truths = Tensor.from_dlpack("x", np.array([0, 1], np.uint8), datatypes.BOOL, (2,))
    assert truths.numpy().tolist() == [False, True]


def test_a_framework_that_cannot_copy_to_the_host_is_named_the_reason() -> None:
    class Earlier:
        """As PyTorch was before 2.9: DLPack without ``dl_device``."""

        def __dlpack_device__(self) -> tuple[int, int]:
            return CUDA, 0

        def __dlpack__(self, *, stream: object = None) -> object:
            raise AssertionError(stream)

    with pytest.raises(InternalError, match=r"^tensor 'x' cannot be read from its framework: .* keyword argument"):
        Tensor.from_dlpack("x", Earlier(), datatypes.FP32, (3,)).numpy()


def test_what_is_all_on_a_gpu_is_joined_there_and_everything_else_on_the_host() -> None:
    arrays = [np.full((1, 2), value, np.float32) for value in (1, 2)]
    there = [on_gpu("x", array, datatypes.FP32) for array in arrays]
    here = Tensor.from_numpy("x", arrays[1])
    gpu = HostGpu()
    joined = Tensor.concatenated(there, (2, 2), None, gpu)
    assert joined.on_device
    assert joined.numpy().tolist() == [[1, 1], [2, 2]]
    assert not Tensor.concatenated([there[0], here], (2, 2), None, gpu).on_device
    gpu.is_full = True
    for memory in (gpu, None):
        on_host = Tensor.concatenated(there, (2, 2), None, memory)
        assert not on_host.on_device
        assert on_host.numpy().tolist() == [[1, 1], [2, 2]]


def test_rows_on_a_gpu_are_views_there() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = on_gpu("y", array, datatypes.FP32).rows_on_device([1, 2])
    assert rows is not None
    assert [address_of(part) for part in rows] == [array.ctypes.data, array[1:].ctypes.data]
    assert [part.numpy().tolist() for part in rows] == [[[0, 1]], [[2, 3], [4, 5]]]


def test_there_are_no_rows_on_a_gpu_of_what_is_on_the_host_or_not_row_major() -> None:
    class Scattered:
        shape = (3, 2)

        def __dlpack_device__(self) -> tuple[int, int]:
            return CUDA, 0

        def __dlpack__(self, **_: object) -> object:
            return np.zeros((2, 3), np.float32).T.__dlpack__()

    assert Tensor.from_numpy("y", np.zeros((3, 2))).rows_on_device([1, 2]) is None
    assert Tensor.from_dlpack("y", Scattered(), datatypes.FP32, (3, 2)).rows_on_device([1, 2]) is None


def test_memory_on_a_gpu_has_another_shape_where_it_is() -> None:
    array = np.arange(6, dtype=np.float32)
    reshaped = on_gpu("x", array, datatypes.FP32).reshaped((2, 3))
    assert address_of(reshaped) == array.ctypes.data
    assert reshaped.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_complex_numbers_are_no_tensor() -> None:
    with pytest.raises(TypeError, match="complex128 has no tensor datatype"):
        Tensor.from_numpy("x", np.zeros(1, np.complex128))
