"""Inputs that are on the session's GPU already, and outputs that stay there."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from host_gpu import HostGpu, InHostMemory, aligned
from numpy.typing import NDArray
from onnx import TensorProto, helper
from trivet import datatypes, dlpack
from trivet.backend import ArrayInstance, ModelContext
from trivet.datatypes import BF16, BOOL, FP32, DataType
from trivet.dlpack import DeviceMemory, OnGpu
from trivet.memory import GpuMemory, PinnedMemory
from trivet.options import Settings
from trivet.placement import gpu_count
from trivet.tensor import SupportsDLPack, Tensor
from trivet_backend_onnx.backend import OnnxBackend
from trivet_backend_onnx.instance import OnnxInstance
from trivet_backend_onnx.providers import CUDA
from trivet_backend_onnx.runtime import ort
from trivet_backend_onnx.settings import SessionSettings
from trivet_backend_onnx.signature import Signature
from trivet_backend_onnx.tensors import feed_on

Instance = Callable[..., ArrayInstance]

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not gpu_count() or CUDA not in ort.get_available_providers(), reason="needs a GPU and onnxruntime-gpu"
    ),
]


def gpu(test: Any) -> Any:
    for mark in GPU:
        test = mark(test)
    return test


# --- on a CPU that is taken for a GPU: its memory is said to be on one, and bound where it really is


@pytest.fixture
def taken_for_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host memory in place of a GPU's."""
    bind_input, bind_output = ort.IOBinding.bind_input, ort.IOBinding.bind_output
    host = {"cuda": "cpu", "cpu": "cpu"}
    monkeypatch.setattr(
        ort.IOBinding, "bind_input", lambda self, name, device, *more: bind_input(self, name, host[device], *more)
    )
    monkeypatch.setattr(
        ort.IOBinding,
        "bind_output",
        lambda self, name, device="cpu", *more: bind_output(self, name, host[device], *more),
    )


def on_gpu(given: ModelContext) -> OnnxInstance:
    session = ort.InferenceSession(str(given.version_path / "model.onnx"))
    return OnnxInstance(given, SessionSettings.read(given), session, Signature.of(session), 0)


def complete(given: ModelContext, backend: OnnxBackend) -> ModelContext:
    backend.auto_complete(given)
    return given


@pytest.mark.usefixtures("taken_for_gpu")
@pytest.mark.parametrize("datatype", [kind for kind in datatypes.ALL if kind is not datatypes.BYTES], ids=str)
def test_every_datatype_is_read_where_it_is(
    datatype: DataType, identity: Any, context: Any, backend: OnnxBackend
) -> None:
    onnx_type = onnx.helper.np_dtype_to_tensor_dtype(datatype.numpy) if datatype is not BF16 else TensorProto.BFLOAT16
    made = on_gpu(complete(context(identity(onnx_type)), backend))
    array = aligned(np.array([[1, 0]], datatype.numpy))
    x = Tensor.from_dlpack("x", InHostMemory(array, datatype), datatype, array.shape)
    results: Any = made.execute({"x": x}, ["y"])
    assert results["y"].tolist() == array.tolist()
    assert x._array is None  # nobody has read it to the host


@pytest.mark.usefixtures("taken_for_gpu")
def test_what_is_left_on_the_gpu_is_a_tensor_for_anybody(build_model: Any, context: Any, backend: OnnxBackend) -> None:
    model = build_model(
        [helper.make_node("Not", ["x"], ["y"])],
        {"x": (TensorProto.BOOL, (None, 2))},
        {"y": (TensorProto.BOOL, (None, 2))},
    )
    made = on_gpu(complete(context(model), backend))
    made.placed = {"y"}
    left: Any = made.execute({"x": Tensor.from_numpy("x", np.array([[True, False]]))}, ["y"])["y"]
    made.close()
    gc.collect()
    found = dlpack.describe(left.__dlpack__(stream=7, max_version=(1, 0)))
    assert (found.device, found.datatype, found.shape) == ((dlpack.CUDA, 0), BOOL, (1, 2))
    assert Tensor.from_dlpack("y", left, BOOL, (1, 2)).numpy().tolist() == [[False, True]]


def feed(source: SupportsDLPack, gpu_memory: GpuMemory | None = None, shape: tuple[int, ...] = (4, 4)) -> Any:
    """Where an input of such a source is read; what goes by the host is said to."""
    given = Tensor.from_dlpack("x", source, FP32, shape)
    return feed_on(0, lambda tensor: "by the host", gpu_memory)(given)


def test_what_is_complete_and_aligned_is_read_where_it_is() -> None:
    array = aligned(np.ones((4, 4), np.float32))
    memory = InHostMemory(array, FP32)
    done = OnGpu(memory, (4, 4), current=nullcontext, to_host=memory.on_host, is_complete=True)
    for source in (memory, done):
        assert feed(source).address == array.ctypes.data


@pytest.mark.parametrize("kind", ["pending", "misaligned"])
def test_what_a_session_cannot_read_as_it_is_gets_a_copy_on_the_gpu_where_there_is_memory_for_it(kind: str) -> None:
    """Else it goes by the host."""
    array = aligned(np.arange(32, dtype=np.float32).reshape(8, 4))
    start = 1 if kind == "misaligned" else 0
    memory = InHostMemory(array[start : start + 4], FP32)
    source = memory if start else OnGpu(memory, (4, 4), current=nullcontext, to_host=memory.on_host)
    gpu = HostGpu()
    copy = feed(source, gpu)
    assert copy.address not in (array.ctypes.data, memory.address)
    assert np.ctypeslib.as_array((ctypes.c_float * 16).from_address(copy.address)).tolist() == [
        *range(4 * start, 4 * start + 16)
    ]
    gpu.is_full = True
    assert feed(source, gpu) == feed(source) == "by the host"


def test_what_is_elsewhere_or_empty_goes_by_the_host() -> None:
    array = np.ones((4, 4), np.float32)
    elsewhere = DeviceMemory(array, array.ctypes.data, (dlpack.CUDA, 1), FP32, array.shape)
    assert feed(elsewhere, HostGpu()) == "by the host"
    assert feed(InHostMemory(array[:0], FP32), shape=(0, 4)) == "by the host"
    assert feed_on(0, lambda tensor: "by the host", HostGpu())(Tensor.from_numpy("x", array)) == "by the host"


class NoPool(PinnedMemory):
    """There is no GPU that would copy from it."""

    def take(self, byte_size: int) -> NDArray[np.uint8]:
        return np.empty(byte_size, np.uint8)

    def holds(self, array: NDArray[Any]) -> bool:
        return False


@pytest.mark.parametrize(("device_id", "enabled", "pinned"), [(0, True, True), (0, False, False), (None, True, False)])
def test_batches_for_a_gpu_are_put_together_in_pinned_memory(
    context: Any, add_sub: onnx.ModelProto, device_id: int | None, enabled: bool, pinned: bool
) -> None:
    field = f"optimization {{ input_pinned_memory {{ enable: {str(enabled).lower()} }} }}"
    given = replace(context(add_sub, field), pinned_memory=NoPool())
    session = ort.InferenceSession(str(given.version_path / "model.onnx"))
    made = OnnxInstance(given, SessionSettings.read(given), session, Signature.of(session), device_id)
    assert made.batch_memory is (given.pinned_memory if pinned else None)


@pytest.mark.parametrize(("device_id", "settings"), [(0, ""), (None, ""), (0, "captures")])
def test_batches_of_what_is_on_a_gpu_are_put_together_there_for_those_that_read_it_there(
    context: Any, add_sub: onnx.ModelProto, device_id: int | None, settings: str
) -> None:
    given = replace(context(add_sub), gpu_memory=HostGpu())
    session = ort.InferenceSession(str(given.version_path / "model.onnx"))
    captures = settings == "captures"
    made = OnnxInstance(
        given, SessionSettings.read(given), session, Signature.of(session), device_id, captures=captures
    )
    assert made.batch_gpu_memory is (given.gpu_memory if device_id == 0 and not captures else None)


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return found


@pytest.fixture
def gpu_memory() -> Any:
    """As a server has it that this package is installed on."""
    provider = pytest.importorskip("trivet_memory_cuda.provider")
    options = pytest.importorskip("trivet_memory_cuda.options").OPTIONS
    return provider.CudaMemory(Settings.of(options)).gpu


@gpu
def test_a_frameworks_tensor_is_waited_for_on_the_gpu(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, torch: Any, gpu_memory: Any
) -> None:
    made = instance(replace(context(add_sub), gpu_memory=gpu_memory), kind="GPU")
    with torch.cuda.stream(torch.cuda.Stream()):
        # Long enough that a run that did not wait for it would be seen.
        slow = torch.ones((4096, 4096), device="cuda")
        for _ in range(20):
            slow = slow @ slow / 4096
        a = Tensor.from_dlpack("a", slow[:1, :4], FP32, (1, 4))
        b = Tensor.from_numpy("b", np.full((1, 4), 3, np.float32))
        results: Any = made.execute({"a": a, "b": b}, ["sum", "difference"])
    assert results["sum"].tolist() == [[4, 4, 4, 4]]
    assert results["difference"].tolist() == [[-2, -2, -2, -2]]
    assert a._array is None  # nobody has read it to the host


@gpu
@pytest.mark.parametrize("has_memory", [True, False])
def test_an_input_across_its_alignment_is_copied(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, torch: Any, gpu_memory: Any, has_memory: bool
) -> None:
    made = instance(replace(context(add_sub), gpu_memory=gpu_memory if has_memory else None), kind="GPU")
    a = Tensor.from_dlpack("a", torch.arange(5.0, device="cuda")[1:].reshape(1, 4), FP32, (1, 4))
    results: Any = made.execute({"a": a, "b": a.renamed("b")}, ["sum"])
    assert results["sum"].tolist() == [[2, 4, 6, 8]]
    assert (a._array is None) == has_memory


@gpu
def test_bfloat16(identity: Callable[..., onnx.ModelProto], context: Any, instance: Instance, torch: Any) -> None:
    made = instance(context(identity(TensorProto.BFLOAT16)), kind="GPU")
    x = Tensor.from_dlpack("x", torch.ones((1, 2), device="cuda", dtype=torch.bfloat16), BF16, (1, 2))
    results: Any = made.execute({"x": x}, ["y"])
    assert results["y"].tolist() == [[0x3F80, 0x3F80]]


@gpu
def test_booleans(build_model: Any, context: Any, instance: Instance, torch: Any, gpu_memory: Any) -> None:
    boolean = (TensorProto.BOOL, (None, 2))
    given = context(build_model([helper.make_node("Not", ["x"], ["y"])], {"x": boolean}, {"y": boolean}))
    made = instance(replace(given, gpu_memory=gpu_memory), kind="GPU")
    made.placed = {"y"}
    x = Tensor.from_dlpack("x", torch.tensor([[True, False]], device="cuda"), BOOL, (1, 2))
    results: Any = made.execute({"x": x}, ["y"])
    assert torch.from_dlpack(results["y"]).tolist() == [[False, True]]
    assert x._array is None


@gpu
def test_beside_text_an_input_goes_by_the_host(
    build_model: Callable[..., onnx.ModelProto], context: Any, instance: Instance, torch: Any
) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["t"])]
    model = build_model(
        nodes,
        {"x": (TensorProto.FLOAT, (None, 2)), "s": (TensorProto.STRING, (None, 1))},
        {"y": (TensorProto.FLOAT, (None, 2)), "t": (TensorProto.STRING, (None, 1))},
    )
    made = instance(context(model), kind="GPU")
    x = Tensor.from_dlpack("x", torch.ones((1, 2), device="cuda"), FP32, (1, 2))
    s = Tensor.from_numpy("s", np.array([[b"ab"]], object))
    results: Any = made.execute({"x": x, "s": s}, ["y", "t"])
    assert results["y"].tolist() == [[-1, -1]]
    assert results["t"].tolist() == [[b"ab"]]
    assert x._array is not None


@gpu
def test_an_output_that_goes_into_a_region_is_left_there(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, torch: Any
) -> None:
    made = instance(context(add_sub), kind="GPU")
    made.placed = {"sum"}
    a = Tensor.from_numpy("a", np.arange(4, dtype=np.float32).reshape(1, 4))
    results: Any = made.execute({"a": a, "b": a.renamed("b")}, ["sum", "difference"])
    assert results["difference"].tolist() == [[0, 0, 0, 0]]
    left = Tensor.from_dlpack("sum", results["sum"], FP32, results["sum"].shape)
    assert left.on_device
    seen = torch.from_dlpack(left.dlpack())
    assert seen.is_cuda
    assert seen.tolist() == left.numpy().tolist() == [[0, 2, 4, 6]]


@gpu
def test_outputs_stay_where_they_are_if_the_model_says_so(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, torch: Any
) -> None:
    config = 'parameters { key: "outputs_on_device" value { string_value: "1" } }'
    made = instance(context(add_sub, config), kind="GPU")
    a = Tensor.from_numpy("a", np.arange(4, dtype=np.float32).reshape(1, 4))
    results: Any = made.execute({"a": a, "b": a.renamed("b")}, ["sum"])
    assert torch.from_dlpack(results["sum"]).is_cuda
    # A batch is cut on the host.
    assert Tensor.from_dlpack("sum", results["sum"], FP32, (1, 4)).numpy().tolist() == [[0, 2, 4, 6]]
