"""``pb_utils.Tensor``, from numpy and by DLPack. Values and messages were compared with Triton 2.51."""

from __future__ import annotations

import numpy as np
import pytest
from trivet.datatypes import BF16, FP32
from trivet.dlpack import CUDA, DeviceMemory
from trivet.errors import InternalError
from trivet.tensor import Tensor as KernelTensor
from trivet_backend_python import pb_utils


class TestTensor:
    def test_is_a_view(self):
        array = np.ones((2, 3), np.float16)
        tensor = pb_utils.Tensor("a", array)
        assert tensor.name() == "a"
        assert tensor.shape() == [2, 3]
        assert tensor.triton_dtype() == 10
        assert tensor.is_cpu()
        assert tensor.as_numpy() is array
        assert repr(tensor) == "Tensor('a', FP16, [2, 3])"

    def test_is_made_contiguous(self):
        array = np.arange(6, dtype=np.float32).reshape(2, 3).T
        assert pb_utils.Tensor("a", array).as_numpy().flags.c_contiguous

    @pytest.mark.parametrize(
        "array", [np.ones(1, complex), np.ones(1, ">f4"), np.array(["text"]), np.zeros(1, "M8[s]")]
    )
    def test_refuses_a_dtype_that_triton_does_not_have(self, array):
        with pytest.raises(
            pb_utils.TritonModelException, match=r"^NumPy dtype is not supported\. Tensor 'a' has dtype"
        ):
            pb_utils.Tensor("a", array)

    def test_refuses_an_empty_name(self):
        with pytest.raises(pb_utils.TritonModelException, match="Tensor name cannot be an empty string"):
            pb_utils.Tensor("", np.ones(1))

    @pytest.mark.parametrize("value", [[1.0], 1.0, np.float32(1), None])
    def test_refuses_what_is_no_array(self, value):
        with pytest.raises(TypeError, match=r"Tensor 'a' takes a numpy\.ndarray, got"):
            pb_utils.Tensor("a", value)


class TestDLPack:
    def test_a_numpy_array_and_back(self):
        array = np.arange(6, dtype=np.int16).reshape(2, 3)
        tensor = pb_utils.Tensor.from_dlpack("a", array)
        assert (tensor.name(), tensor.shape(), tensor.triton_dtype(), tensor.is_cpu()) == ("a", [2, 3], 7, True)
        array[0, 0] = 9
        assert tensor.as_numpy()[0, 0] == 9
        assert tensor.__dlpack_device__() == (1, 0)
        assert np.shares_memory(np.from_dlpack(pb_utils.Tensor("a", array)), array)

    @pytest.mark.parametrize("dtype", ["bool", "uint8", "uint64", "int8", "int64", "float16", "float32", "float64"])
    def test_every_type(self, dtype):
        array = np.ones(2, dtype)
        again = pb_utils.Tensor.from_dlpack("a", pb_utils.Tensor("a", array)).as_numpy()
        assert again.dtype == array.dtype
        assert again.tolist() == array.tolist()

    def test_capsules(self):
        array = np.arange(3, dtype=np.float64)
        capsule = pb_utils.Tensor("a", array).to_dlpack()
        assert type(capsule).__name__ == "PyCapsule"
        assert pb_utils.Tensor.from_dlpack("b", capsule).as_numpy().tolist() == [0, 1, 2]

    @pytest.mark.parametrize("shape", [(), (0, 3), (1, 1), (2, 1, 3)])
    def test_shapes(self, shape):
        assert pb_utils.Tensor.from_dlpack("a", np.zeros(shape, np.float32)).shape() == list(shape)

    def test_refuses_gaps(self):
        with pytest.raises(pb_utils.TritonModelException, match="DLPack tensor is not contiguous"):
            pb_utils.Tensor.from_dlpack("a", np.ones((2, 3), np.float32).T)

    def test_refuses_other_objects(self):
        with pytest.raises(pb_utils.TritonModelException, match="Tensor must be a DLPack capsule or have `__dlpack__`"):
            pb_utils.Tensor.from_dlpack("a", 5)

    def test_refuses_element_types_that_triton_does_not_have(self):
        with pytest.raises(pb_utils.TritonModelException, match="an element type that no Triton tensor has"):
            pb_utils.Tensor.from_dlpack("a", np.ones(2, np.complex64))

    def test_strings_have_none(self):
        with pytest.raises(pb_utils.TritonModelException, match="DLPack does not have support for string tensors"):
            pb_utils.Tensor("a", np.array([b"x"], dtype=object)).to_dlpack()

    def test_bf16_input_to_torch_and_back(self):
        torch = pytest.importorskip("torch")
        bits = np.array([0x3F80, 0x4000], np.uint16)
        tensor = pb_utils.Tensor._of(KernelTensor.from_wire("a", BF16, (2,), bits.tobytes()), to_host=True)
        with pytest.raises(pb_utils.TritonModelException, match="BF16, which NumPy does not have; use to_dlpack"):
            tensor.as_numpy()
        values = torch.from_dlpack(tensor)
        assert values.dtype is torch.bfloat16
        assert values.tolist() == [1, 2]
        output = pb_utils.Tensor.from_dlpack("o", values * 2)
        assert output.triton_dtype() == 14
        assert torch.from_dlpack(output).tolist() == [2, 4]

    def test_torch_tensors(self):
        torch = pytest.importorskip("torch")
        values = torch.arange(3, dtype=torch.float32)
        tensor = pb_utils.Tensor.from_dlpack("a", values)
        assert tensor.as_numpy().tolist() == [0, 1, 2]
        assert torch.from_dlpack(tensor).tolist() == [0, 1, 2]
        assert torch.utils.dlpack.from_dlpack(tensor.to_dlpack()).tolist() == [0, 1, 2]
        with pytest.raises(pb_utils.TritonModelException, match="not contiguous"):
            pb_utils.Tensor.from_dlpack("a", torch.ones(2, 3).T)

    def test_a_capsule_of_gpu_memory_that_no_framework_can_read(self):
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this torch can read it")
        array = np.ones(2, np.float32)
        capsule = DeviceMemory(array, array.ctypes.data, (CUDA, 0), FP32, (2,)).__dlpack__()
        output = pb_utils.Tensor.from_dlpack("o", capsule)
        assert output.__dlpack_device__() == (CUDA, 0)
        with pytest.raises(InternalError, match="a bare DLPack capsule of GPU memory is copied to the host by PyTorch"):
            output._to_output()
