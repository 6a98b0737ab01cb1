"""Who shares memory with whom: inputs that may be written, outputs that are sent without a copy or are not."""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.datatypes import FP32
from trivet.dlpack import DeviceMemory, describe
from trivet.tensor import Tensor as KernelTensor
from trivet_backend_python import pb_utils
from trivet_backend_python.memory import SMALL, is_released, read_only

LARGE = SMALL // 4 + 1
"""Elements of float32 that are more than a small output."""


def address(array):
    return array.__array_interface__["data"][0]


def released(arrays):
    # In an assert statement pytest would hold another reference.
    return is_released(arrays[0])


class TestIsReleased:
    def test_an_array_of_its_own(self):
        arrays = [np.zeros(3)]
        assert released(arrays)

    def test_an_array_that_somebody_keeps(self):
        kept = np.zeros(3)
        arrays = [kept]
        assert not released(arrays)

    def test_a_view_of_an_array_that_nobody_keeps(self):
        arrays = [np.zeros((3, 4))[1:].T]
        assert released(arrays)

    def test_a_view_of_an_array_that_somebody_keeps(self):
        kept = np.zeros((3, 4))
        arrays = [kept[1:]]
        assert not released(arrays)

    def test_an_array_that_somebody_views(self):
        array = np.zeros((3, 4))
        view = array[0]
        arrays = [array]
        del array
        assert not released(arrays)
        del view
        assert released(arrays)

    def test_immutable_bytes(self):
        data = bytes(8)
        arrays = [np.frombuffer(data, np.uint8)]
        assert released(arrays)

    @pytest.mark.parametrize("memory", [bytearray(8), memoryview(bytearray(8))])
    def test_memory_of_others(self, memory):
        arrays = [np.frombuffer(memory, np.uint8)]
        assert not released(arrays)

    def test_memory_of_torch(self):
        torch = pytest.importorskip("torch")
        arrays = [torch.zeros(3).numpy()]
        assert not released(arrays)

    @given(keep=st.booleans(), views=st.integers(0, 4))
    def test_through_any_number_of_views(self, keep, views):
        array = np.zeros((8, 2))
        kept = array if keep else None
        for _ in range(views):
            array = array[1:]
        arrays = [array]
        del array
        assert released(arrays) is not keep
        del kept


class TestInputs:
    def tensor(self, data):
        return pb_utils.Tensor._of(KernelTensor.from_wire("I", FP32, (2,), data), to_host=True)

    def test_immutable_memory_is_copied(self):
        data = bytes(8)
        self.tensor(data).as_numpy()[:] = 1
        assert data == bytes(8)

    def test_memory_of_this_request_is_not(self):
        data = bytearray(8)
        self.tensor(data).as_numpy()[:] = 1
        assert data != bytes(8)

    def test_read_only_means_shared(self):
        array = np.zeros(2)
        shared = read_only(array)
        tensors = [KernelTensor.from_numpy("I", each) for each in (shared, array)]
        assert [np.shares_memory(tensor.writable(), array) for tensor in tensors] == [False, True]


class TestOutputs:
    ECHO = """
        import sys
        import numpy as np
        import triton_python_backend_utils as pb_utils

        class TritonPythonModel:
            def execute(self, requests):
                made = {made}
                self.address = made.__array_interface__["data"][0]
                return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", made)])]
    """

    @pytest.mark.parametrize(
        ("made", "copied"),
        [
            (f"np.zeros((1, {LARGE}), np.float32)", False),
            (f"np.zeros((2, {LARGE}), np.float32)[1:]", False),
            ("requests[0].inputs()[0].as_numpy()", False),
            (f"self.__dict__.setdefault('kept', np.zeros((1, {LARGE}), np.float32))", True),
            (f"self.__dict__.setdefault('kept', np.zeros((2, {LARGE}), np.float32))[1:]", True),
            ("np.zeros((1, 4), np.float32)", True),
        ],
    )
    def test_a_large_one_is_copied_only_if_the_model_keeps_it(self, models, made, copied):
        model = models.run("m", self.ECHO.replace("{made}", made))
        output = model(INPUT0=np.ones((1, LARGE), np.float32))["OUTPUT0"]
        assert (address(output) != model.instances[0]._model.address) is copied

    def test_a_response_sent_while_the_model_goes_on_is_copied(self, models):
        model = models.execute(
            f"""
            buffer = np.zeros((1, {LARGE}), np.float32)
            sender = requests[0].get_response_sender()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", buffer)]), flags=1)
            buffer[:] = 7
            return None
            """
        )
        request = model.request(INPUT0=np.ones((1, 1), np.float32))
        model.run(request)
        assert not request.context[0].outputs[0].numpy().any()

    def test_a_frameworks_memory_is_copied(self, models):
        pytest.importorskip("torch")
        model = models.execute(
            """
            import torch
            kept = self.__dict__.setdefault("kept", torch.zeros(1, 2, dtype=torch.bfloat16))
            kept += 1
            return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUTPUT0", kept)])]
            """
        )
        row = np.ones((1, 1), np.float32)
        first = model.run(model.request(INPUT0=row))[0].outputs[0]
        model(INPUT0=row)
        assert first.numpy().tolist() == [[0x3F80, 0x3F80]]


class DeviceTensor:
    """A tensor that says that it is on a GPU, and gives a host copy to who asks for one, as the frameworks' do."""

    shape = (2,)

    def __init__(self):
        self.array = np.ones(2, np.float32)

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if dl_device is not None:
            return self.array.copy().__dlpack__()
        return DeviceMemory(self, address(self.array), (2, 0), FP32, self.shape).__dlpack__(max_version=max_version)


class TestDevices:
    def test_an_input_stays_where_it_is_on_request(self):
        source = KernelTensor.from_dlpack("I", DeviceTensor(), FP32, (2,))
        tensor = pb_utils.Tensor._of(source, to_host=False)
        assert not tensor.is_cpu()
        assert tensor.shape() == [2]
        assert tensor.__dlpack_device__() == (2, 0)
        assert type(tensor.to_dlpack()).__name__ == "PyCapsule"
        with pytest.raises(
            pb_utils.TritonModelException, match="Tensor is stored in GPU and cannot be converted to NumPy"
        ):
            tensor.as_numpy()

    def test_an_input_is_copied_to_the_host_otherwise(self):
        tensor = pb_utils.Tensor._of(KernelTensor.from_dlpack("I", DeviceTensor(), FP32, (2,)), to_host=True)
        assert tensor.is_cpu()
        assert tensor.as_numpy().tolist() == [1, 1]

    def test_an_output_is_brought_to_the_host_before_the_model_goes_on(self):
        device = DeviceTensor()
        output = pb_utils.Tensor.from_dlpack("O", device)
        assert not output.is_cpu()
        sent = output._to_output()
        device.array[:] = 7
        assert sent.numpy().tolist() == [1, 1]

    def test_an_output_stays_that_is_put_elsewhere_before_the_model_goes_on(self):
        device = DeviceTensor()
        sent = pb_utils.Tensor.from_dlpack("O", device)._to_output(stays_on_device=True)
        assert sent.on_device
        assert sent.dlpack() is device
        # What is on the host already is copied where the model could change it later, wherever it goes.
        assert not pb_utils.Tensor("O", device.array)._to_output(stays_on_device=True).on_device

    def test_an_output_for_another_model_stays(self):
        made = pb_utils.Tensor.from_dlpack("O", DeviceTensor())._to_input()
        assert made.on_device
        assert made.name == "O"


class PyTorch:
    """Stands for the module where there is no GPU: its tensors are exported only where theirs is the current one."""

    def __init__(self):
        self.current = 0
        self.streams = []
        self.cuda = SimpleNamespace(device=self.on)

    @contextmanager
    def on(self, device):
        before, self.current = self.current, device.index
        yield
        self.current = before

    class Tensor:
        device = SimpleNamespace(type="cuda", index=1)
        shape = (2,)

        def __init__(self, torch):
            self.torch = torch
            self.array = np.ones(2, np.float32)

        def __dlpack_device__(self):
            return (2, 1)

        def __dlpack__(self, *, stream=-1):
            if self.torch.current != 1:
                raise BufferError("Can't export tensors on a different CUDA device index.")
            self.torch.streams.append(stream)
            return DeviceMemory(self, address(self.array), (2, 1), FP32, self.shape).__dlpack__()

        def cpu(self):
            assert self.torch.current == 1
            return self.array.copy()


class TestPyTorchOnAnotherGpu:
    def test_its_tensors_are_read_on_a_thread_whose_gpu_is_another(self, monkeypatch):
        torch = PyTorch()
        monkeypatch.setitem(sys.modules, "torch", torch)
        output = pb_utils.Tensor.from_dlpack("O", torch.Tensor(torch))
        assert output.__dlpack_device__() == (2, 1)
        # The legacy default stream waits, from when the model gave the tensor.
        assert torch.streams == [1]
        assert output._to_output().numpy().tolist() == [1, 1]
        assert describe(output.__dlpack__(stream=77)).device == (2, 1)
        assert torch.streams == [1, 77]
        assert torch.current == 0

    def test_the_real_one_takes_what_it_is_given(self):
        torch = pytest.importorskip("torch")
        assert "stream" in inspect.signature(torch.Tensor.__dlpack__).parameters
        assert list(inspect.signature(torch.cuda.device).parameters) == ["device"]
