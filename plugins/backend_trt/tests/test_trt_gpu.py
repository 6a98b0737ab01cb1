"""Plans on a real GPU: built by what has plans for it, and held against numpy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from gpu_plans import builder_here
from onnx.parser import parse_model
from trivet.backend import InstanceContext, ModelContext
from trivet.datatypes import FP32, INT64
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.placement import gpu_count
from trivet.tensor import Tensor
from trivet_backend_trt.backend import TensorRTBackend
from trivet_backend_trt.building import BuildOptions, build_plan
from trivet_backend_trt.driver import compute_capability
from trivet_backend_trt.shapes import read_profiles

if TYPE_CHECKING:
    from trivet_backend_trt.instance import TensorRTInstance

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpu_count(), reason="needs an NVIDIA GPU; this machine has none"),
]

Context = Callable[..., ModelContext]
Load = Callable[..., "TensorRTInstance"]

ADD_SUB = """<ir_version: 10, opset_import: ["" : 18]>
add_sub (float[batch, 64] a, float[batch, 64] b) => (float[batch, 64] sum, float[batch, 64] difference) {
    sum = Add(a, b)
    difference = Sub(a, b)
}"""
SMALL = ("a:1x64,b:1x64", "a:2x64,b:2x64", "a:8x64,b:8x64")
LARGE = ("a:1x64,b:1x64", "a:32x64,b:32x64", "a:64x64,b:64x64")


def build(tmp_path: Path, text: str, *profiles: tuple[str, str, str], **options: Any) -> bytes:
    path = tmp_path / "model.onnx"
    onnx.save(parse_model(text), str(path))
    shapes = read_profiles(*(list(column) for column in zip(*profiles, strict=True))) if profiles else []
    return build_plan(path, BuildOptions(profiles=shapes, **(options or builder_here())))


def rows(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((count, 64), np.float32)


def given(**arrays: Any) -> dict[str, Tensor]:
    return {name: Tensor.from_numpy(name, array) for name, array in arrays.items()}


GRAPHS = "optimization { cuda { graphs: true } }"


@pytest.mark.parametrize("config", ["", GRAPHS, "optimization { priority: PRIORITY_MAX input_pinned_memory { } }"])
def test_answers_are_numpys(config: str, tmp_path: Path, context: Context, load: Load) -> None:
    made = load(context(build(tmp_path, ADD_SUB, SMALL), config))
    for count in (1, 8, 3, 8, 1):
        a, b = rows(count), rows(count, 1)
        results = made.execute(given(a=a, b=b), ["sum", "difference"])
        np.testing.assert_allclose(np.asarray(results["sum"]), a + b, rtol=1e-6)
        np.testing.assert_allclose(np.asarray(results["difference"]), a - b, rtol=1e-6)


@pytest.mark.parametrize("strategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"])
def test_profiles_side_by_side(strategy: str, tmp_path: Path, context: Context, load: Load) -> None:
    config = f"""parameters {{ key: "execution_context_allocation_strategy" value {{ string_value: "{strategy}" }} }}
    instance_group {{ kind: KIND_GPU gpus: [ 0 ] profile: [ "0", "1" ] }}"""
    made = load(context(build(tmp_path, ADD_SUB, SMALL, LARGE), config), profiles=("0", "1"))
    for count in (1, 64, 2, 40):
        results = made.execute(given(a=rows(count), b=rows(count)), ["sum"])
        np.testing.assert_allclose(np.asarray(results["sum"]), 2 * rows(count), rtol=1e-6)
    with pytest.raises(InvalidArgumentError, match="between 1 and 8 but received 65"):
        made.execute(given(a=rows(65), b=rows(65)), ["sum"])


def test_tensors_stay_on_the_gpu(tmp_path: Path, context: Context, load: Load) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    made = load(context(build(tmp_path, ADD_SUB, SMALL)))
    made.placed = {"sum"}
    with torch.cuda.stream(torch.cuda.Stream()):
        # Long enough that an execution that did not wait for it would be seen.
        slow = torch.ones((4096, 4096), device="cuda")
        for _ in range(20):
            slow = slow @ slow / 4096
        a = Tensor.from_dlpack("a", slow[:1, :64], FP32, (1, 64))
        results: Any = made.execute({"a": a, "b": a.renamed("b")}, ["sum", "difference"])
    assert a._array is None  # nobody has read it to the host
    assert results["difference"].tolist() == [[0] * 64]
    left = Tensor.from_dlpack("sum", results["sum"], FP32, results["sum"].shape)
    made.execute(given(a=rows(1), b=rows(1)), ["sum"])
    seen = torch.from_dlpack(left.dlpack())
    assert seen.is_cuda
    assert seen.tolist() == left.numpy().tolist() == [[2] * 64]


def test_an_output_whose_size_the_data_decides(tmp_path: Path, context: Context, load: Load) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    non_zero (float[n] x) => (int64[1, found] where) { where = NonZero(x) }"""
    config = f"""input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}
    output {{ name: "where" data_type: {INT64.config_name} dims: [ 1, -1 ] }}"""
    made = load(context(build(tmp_path, text, ("x:1", "x:4", "x:64")), config))
    for x in ([0, 1, 0, 2], [0, 0], [1] * 64):
        array = np.array(x, np.float32)
        found = np.asarray(made.execute(given(x=array), ["where"])["where"])
        assert found.tolist() == np.stack(np.nonzero(array)).tolist()


def test_an_output_whose_size_the_data_decides_keeps_no_memory(tmp_path: Path, context: Context, load: Load) -> None:
    from cuda.bindings import runtime

    text = """<ir_version: 10, opset_import: ["" : 18]>
    non_zero (float[n] x) => (int64[1, found] where) { where = NonZero(x) }"""
    config = f"""input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}
    output {{ name: "where" data_type: {INT64.config_name} dims: [ 1, -1 ] }}"""
    made = load(context(build(tmp_path, text, ("x:1", "x:1000000", "x:1000000")), config))
    inputs = given(x=np.ones(1_000_000, np.float32))
    free = []
    for _ in range(30):
        made.execute(inputs, ["where"])
        free.append(runtime.cudaMemGetInfo()[1])
    assert free[9] - free[-1] <= 2 << 20


def test_a_shape_tensor(tmp_path: Path, context: Context, load: Load) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    expand (float[n, 1] x, int64[2] shape) => (float[n, m] y) { y = Expand(x, shape) }"""
    config = """input { name: "x" data_type: TYPE_FP32 dims: [ -1, 1 ] }
    input { name: "shape" data_type: TYPE_INT64 dims: [ 2 ] is_shape_tensor: true }
    output { name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] }"""
    made = load(context(build(tmp_path, text, ("x:1x1,shape:1x1", "x:2x1,shape:2x3", "x:4x1,shape:4x5")), config))
    x = np.array([[1], [2]], np.float32)
    answer = made.execute(given(x=x, shape=np.array([2, 3], np.int64)), ["y"])["y"]
    assert np.asarray(answer).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_plan_for_other_gpus_says_so(tmp_path: Path, context: Context, load: Load) -> None:
    """Those of TensorRT for RTX alone are built without the GPU that they are for."""
    pytest.importorskip("tensorrt_rtx", reason="plans for other GPUs are built with trivet-backend-trt[rtx]")
    other = "8.6" if compute_capability(0) != "8.6" else "8.9"
    plan = build(tmp_path, ADD_SUB, SMALL, library="tensorrt_rtx", compute_capabilities=[other])
    with pytest.raises(UnavailableError, match=r"unable to deserialize .model\.plan."):
        load(context(plan))


def test_memory_is_given_back(tmp_path: Path, context: Context) -> None:
    """Of the GPU, over many loads."""
    from cuda.bindings import runtime

    made = context(build(tmp_path, ADD_SUB, SMALL))
    free = []
    for _ in range(30):
        backend = TensorRTBackend()
        backend.auto_complete(made)
        model = backend.load(made)
        instance: Any = model.create_instance(InstanceContext("m_0_0", "GPU"))
        instance.execute(given(a=rows(8), b=rows(8)), ["sum"])
        instance.close()
        del instance
        model.close()
        free.append(runtime.cudaMemGetInfo()[1])
    logging.getLogger(__name__).info("free: %s", free)
    assert free[9] - free[-1] <= 2 << 20
