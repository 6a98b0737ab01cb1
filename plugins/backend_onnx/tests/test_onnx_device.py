"""Inputs that are on the session's GPU already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance
from trivet.datatypes import BF16, FP32
from trivet.memory import PinnedMemory
from trivet.placement import gpu_count
from trivet.tensor import Tensor
from trivet_backend_onnx.instance import OnnxInstance
from trivet_backend_onnx.providers import CUDA
from trivet_backend_onnx.runtime import ort
from trivet_backend_onnx.settings import SessionSettings
from trivet_backend_onnx.signature import Signature
from trivet_backend_onnx.tensors import feed_on, is_on_device

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


def test_what_is_on_the_host_is_fed_as_ever() -> None:
    tensor = Tensor.from_numpy("x", np.ones(4, np.float32))
    fed: list[Tensor] = []
    assert feed_on(0, lambda given: fed.append(given) or "fed")(tensor) == "fed"
    assert fed == [tensor]
    assert not is_on_device(tensor.numpy())


def test_onnx_runtime_views_memory_by_dlpack() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    value = ort.OrtValue.from_dlpack(array)
    assert value.data_ptr() == array.ctypes.data
    assert value.shape() == [2, 3]
    assert not is_on_device(value)


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


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return found


@gpu
def test_an_input_is_read_where_it_is(add_sub: onnx.ModelProto, context: Any, instance: Instance, torch: Any) -> None:
    made = instance(context(add_sub), kind="GPU")
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
def test_an_input_across_its_alignment_goes_by_the_host(
    add_sub: onnx.ModelProto, context: Any, instance: Instance, torch: Any
) -> None:
    made = instance(context(add_sub), kind="GPU")
    a = Tensor.from_dlpack("a", torch.arange(5.0, device="cuda")[1:].reshape(1, 4), FP32, (1, 4))
    results: Any = made.execute({"a": a, "b": a.renamed("b")}, ["sum"])
    assert results["sum"].tolist() == [[2, 4, 6, 8]]
    assert a._array is not None


@gpu
def test_bfloat16(identity: Callable[..., onnx.ModelProto], context: Any, instance: Instance, torch: Any) -> None:
    made = instance(context(identity(TensorProto.BFLOAT16)), kind="GPU")
    x = Tensor.from_dlpack("x", torch.ones((1, 2), device="cuda", dtype=torch.bfloat16), BF16, (1, 2))
    results: Any = made.execute({"x": x}, ["y"])
    assert results["y"].tolist() == [[0x3F80, 0x3F80]]


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
