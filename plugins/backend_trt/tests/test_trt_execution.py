"""What happens around an execution: memory, shapes, profiles, graphs, failures. On the stand-in of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from cuda.bindings import runtime as cudart
from host_arena import HostArena
from host_gpu import HostGpu
from onnx.parser import parse_model
from trivet.backend import ModelContext
from trivet.datatypes import FP32
from trivet.dlpack import CUDA, DeviceMemory, describe
from trivet.errors import InternalError, InvalidArgumentError, ResourceExhaustedError
from trivet.tensor import Tensor
from trivet_backend_trt.memory import DeviceResult

if TYPE_CHECKING:
    from cuda_standin import HostCuda
    from trivet_backend_trt.instance import TensorRTInstance

Context = Callable[..., ModelContext]
Create = Callable[..., "TensorRTInstance"]

ADD_SUB = """<ir_version: 10, opset_import: ["" : 18]>
add_sub (float[batch, 4] a, float[batch, 4] b) => (float[batch, 4] sum, float[batch, 4] difference) {
    sum = Add(a, b)
    difference = Sub(a, b)
}"""
TWO_PROFILES = [
    {name: [[1, 4], [2, 4], [8, 4]] for name in "ab"},
    {name: [[1, 4], [32, 4], [64, 4]] for name in "ab"},
]
BATCHED = "max_batch_size: 8"


def plan(text: str, **about: Any) -> bytes:
    from trt_standin import write_plan

    return write_plan(parse_model(text), **about)


@pytest.fixture
def add_sub(gpu: HostCuda) -> bytes:
    return plan(ADD_SUB, profiles=TWO_PROFILES)


def given(**arrays: Any) -> dict[str, Tensor]:
    return {name: Tensor.from_numpy(name, np.asarray(array)) for name, array in arrays.items()}


def rows(count: int, start: float = 0) -> Any:
    return np.arange(start, start + 4 * count, dtype=np.float32).reshape(count, 4)


def test_a_batch_is_answered(add_sub: bytes, context: Context, create: Create) -> None:
    made = create(context(add_sub))
    for count in (1, 8, 3):
        results = made.execute(given(a=rows(count), b=rows(count, 7)), ["sum", "difference"])
        assert np.asarray(results["sum"]).tolist() == (rows(count) + rows(count, 7)).tolist()
        assert np.asarray(results["difference"]).tolist() == (rows(count) - rows(count, 7)).tolist()
    assert made.execute(given(a=rows(1), b=rows(1)), ["sum"]).keys() == {"sum"}


def test_answers_stay_what_they_are(add_sub: bytes, context: Context, create: Create) -> None:
    made = create(context(add_sub))
    kept = [np.asarray(made.execute(given(a=rows(1, n), b=rows(1)), ["sum"])["sum"]) for n in range(5)]
    assert [array[0, 0] for array in kept] == [0, 1, 2, 3, 4]


def test_memory_of_outputs_on_the_gpu_is_used_again(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    """When nobody has them any more, and not before."""
    made = create(context(add_sub))
    made.placed = {"sum"}

    def address() -> int:
        return describe(kept[-1].__dlpack__()).address

    kept: list[Any] = [made.execute(given(a=rows(1), b=rows(1)), ["sum"])["sum"] for _ in range(3)]
    used = {describe(each.__dlpack__()).address for each in kept}
    assert len(used) == 3
    kept.clear()
    kept.append(made.execute(given(a=rows(1), b=rows(1)), ["sum"])["sum"])
    assert address() in used


def test_a_batch_in_pinned_memory_is_copied_from_there(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    arena, device = HostArena(), HostGpu()
    made = create(replace(context(add_sub), pinned_memory=arena, gpu_memory=device))
    assert made.batch_gpu_memory is device
    batch = arena.take(32).view(np.float32).reshape(2, 4)
    batch[...] = rows(2)
    gpu.copies.clear()
    made.execute(given(a=batch, b=rows(2)), ["sum"])
    sources = [source for _, source, _ in gpu.copies]
    assert sources[0] == batch.ctypes.data
    assert all(arena.memory.ctypes.data <= source < arena.memory.ctypes.data + arena.taken for source in sources[:2])


def test_the_nearest_profile_executes(add_sub: bytes, context: Context, create: Create) -> None:
    config = 'max_batch_size: 64 instance_group { kind: KIND_GPU gpus: [ 0 ] profile: [ "1", "0" ] }'
    made = create(context(add_sub, config), profiles=("1", "0"))
    used: list[int] = []
    for index, executing in made._contexts.items():
        enqueue = executing.enqueue
        executing.enqueue = lambda index=index, enqueue=enqueue: (used.append(index), enqueue())  # type: ignore[method-assign]
    for count in (1, 8, 30):
        assert len(np.asarray(made.execute(given(a=rows(count), b=rows(count)), ["sum"])["sum"])) == count
    assert used == [0, 0, 1]
    with pytest.raises(InvalidArgumentError, match=r"among \[1 0\] of model 'm'.*between 1 and 64 but received 65"):
        made.execute(given(a=rows(65), b=rows(65)), ["sum"])
    assert len(np.asarray(made.execute(given(a=rows(2), b=rows(2)), ["sum"])["sum"])) == 2


@pytest.mark.parametrize("strategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"])
def test_contexts_may_share_their_memory(strategy: str, add_sub: bytes, context: Context, create: Create) -> None:
    parameter = f'parameters {{ key: "execution_context_allocation_strategy" value {{ string_value: "{strategy}" }} }}'
    made = create(context(add_sub, f"{BATCHED} {parameter}"), profiles=("0", "1"))
    assert (made._memory is not None) == (strategy == "USER_MANAGED")
    assert np.asarray(made.execute(given(a=rows(1), b=rows(1)), ["sum"])["sum"]).tolist() == [[0, 2, 4, 6]]


def on_device(array: Any, cuda: HostCuda, skip: int = 0) -> Tensor:
    """A tensor "on the GPU", ``skip`` bytes after an aligned address."""
    _, address = cuda._allocate({}, array.nbytes + skip)
    memory = np.empty(array.nbytes + 512 + skip, np.uint8)
    address = -(-memory.ctypes.data // 256) * 256 + skip
    start = address - memory.ctypes.data
    memory[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    held = DeviceMemory(memory, address, (CUDA, 0), FP32, array.shape)
    return Tensor.from_dlpack("x", held, FP32, array.shape)


@pytest.mark.parametrize(("skip", "moved"), [(0, 0), (64, 1)])
def test_an_input_on_the_gpu_does_not_see_the_host(
    skip: int, moved: int, add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    """It is read where it is, or moved on the device where TensorRT could not read it there."""
    made = create(context(add_sub))
    inputs = {name: on_device(rows(2), gpu, skip) for name in "ab"}
    gpu.copies.clear()
    results = made.execute(inputs, ["sum"])
    assert np.asarray(results["sum"]).tolist() == (2 * rows(2)).tolist()
    assert len(gpu.copies) == 2 * moved + 1  # the output
    assert all(tensor._array is None for tensor in inputs.values())  # nobody has read it to the host


def test_an_output_for_a_region_stays_on_the_gpu(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    made = create(context(add_sub))
    made.placed = {"sum"}
    results = made.execute(given(a=rows(2), b=rows(2)), ["sum", "difference"])
    left = results["sum"]
    assert isinstance(left, DeviceResult)
    assert isinstance(results["difference"], np.ndarray)
    tensor = Tensor.from_dlpack("sum", left, FP32, left.shape)
    assert tensor.on_device
    assert describe(left.__dlpack__()).address in gpu.memory
    # Another execution does not touch it, and it outlives the instance.
    made.execute(given(a=rows(2, 50), b=rows(2, 50)), ["sum"])
    made.close()
    assert tensor.numpy().tolist() == (2 * rows(2)).tolist()


def test_an_output_on_another_gpu_is_copied_there(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    made = create(context(add_sub), device_id=1)
    made.placed = {"sum"}
    left: Any = made.execute(given(a=rows(1), b=rows(1)), ["sum"])["sum"]
    gpu.cudaSetDevice(0)
    assert Tensor.from_dlpack("sum", left, FP32, left.shape).numpy().tolist() == (2 * rows(1)).tolist()
    assert gpu.current_at_copies == [1]
    assert gpu.cudaGetDevice()[1] == 0


GRAPHS = "optimization { cuda { graphs: true busy_wait_events: true %s } }"


def test_graphs_are_launched_for_the_shapes_that_they_were_captured_for(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    config = f"{BATCHED} {GRAPHS % ''} dynamic_batching {{ preferred_batch_size: [ 4 ] }}"
    made = create(context(add_sub, config))
    for count, launched in ((1, 1), (4, 2), (3, 2), (8, 3), (1, 4)):
        results = made.execute(given(a=rows(count), b=rows(count)), ["sum", "difference"])
        assert np.asarray(results["sum"]).tolist() == (2 * rows(count)).tolist()
        assert np.asarray(results["difference"]).tolist() == np.zeros((count, 4)).tolist()
        assert gpu.launched == launched
    made.placed = {"sum"}
    left: Any = made.execute({name: on_device(rows(4), gpu) for name in "ab"}, ["sum"])["sum"]
    assert gpu.launched == 5
    made.execute(given(a=rows(4, 50), b=rows(4)), ["difference"])
    assert Tensor.from_dlpack("sum", left, FP32, left.shape).numpy().tolist() == (2 * rows(4)).tolist()


def test_a_graph_serves_smaller_batches_down_to_its_lower_bound(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    spec = "graph_spec { batch_size: 8 graph_lower_bound { batch_size: 6 } }"
    made = create(context(add_sub, f"{BATCHED} {GRAPHS % spec}"))
    for count, launched in ((8, 1), (7, 2), (6, 3), (5, 3)):
        results = made.execute(given(a=rows(count, count), b=rows(count)), ["sum"])
        assert np.asarray(results["sum"]).tolist() == (rows(count, count) + rows(count)).tolist()
        assert gpu.launched == launched


def test_a_plan_that_cannot_be_captured_executes_as_ever(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda, caplog: Any
) -> None:
    gpu.capture_fails = cudart.cudaError_t.cudaErrorStreamCaptureUnsupported
    made = create(context(add_sub, f"{BATCHED} {GRAPHS % ''}"))
    assert "has none: failed to capture a CUDA graph: operation not permitted when stream is capturing" in caplog.text
    assert np.asarray(made.execute(given(a=rows(1), b=rows(1)), ["sum"])["sum"]).tolist() == [[0, 2, 4, 6]]
    assert not gpu.launched


def test_a_profile_that_cannot_be_set_fails_the_load(context: Context, create: Create) -> None:
    with pytest.raises(InternalError, match="failed to set optimization profile 0: out of memory"):
        create(context(plan(ADD_SUB, profiles=TWO_PROFILES, refused_profiles=[0])))


def test_a_graph_that_no_profile_takes_is_refused(add_sub: bytes, context: Context, create: Create) -> None:
    spec = "graph_spec { batch_size: 9 }"
    config = f'max_batch_size: 64 {GRAPHS % spec} instance_group {{ kind: KIND_GPU profile: [ "0", "1" ] }}'
    create(context(add_sub, config), profiles=("0", "1"))
    with pytest.raises(InvalidArgumentError, match="graph_spec of model 'm' has batch_size 9, expected 1 to 8"):
        create(context(add_sub, f"{BATCHED} {GRAPHS % spec}"))


EXPAND = """<ir_version: 10, opset_import: ["" : 18]>
expand (float[batch, 1] x, int64[2] shape) => (float[batch, n] y) { y = Expand(x, shape) }"""


@pytest.mark.parametrize("batches", [True, False])
def test_shape_tensors_are_on_the_host(
    batches: bool, context: Context, create: Create, gpu: HostCuda, caplog: Any
) -> None:
    """Of a batch the first value is the number of rows, as in Triton."""
    profile = {"x": [[1, 1], [2, 1], [4, 1]], "shape values": [[1, 1], [2, 3], [4, 5]]}
    content = plan(EXPAND, profiles=[profile], shape_tensors=["shape"])
    config = f"""{"max_batch_size: 4" if batches else ""} {GRAPHS % ""}
    input {{ name: "x" data_type: TYPE_FP32 dims: {"[ 1 ]" if batches else "[ -1, 1 ]"} }}
    input {{ name: "shape" data_type: TYPE_INT64 dims: [ {1 if batches else 2} ] is_shape_tensor: true }}
    output {{ name: "y" data_type: TYPE_FP32 dims: {"[ -1 ]" if batches else "[ -1, -1 ]"} }}"""
    made = create(context(content, config))
    assert "a graph would hold on to the values of shape tensor 'shape'" in caplog.text
    values = [3] if batches else [2, 3]
    x = np.array([[1], [2]], np.float32)
    results = made.execute(given(x=x, shape=np.array(values, np.int64)), ["y"])
    assert np.asarray(results["y"]).tolist() == [[1, 1, 1], [2, 2, 2]]
    with pytest.raises(InvalidArgumentError, match=r"input 'shape': .*value 1 to be between 1 and 5 but received 6"):
        made.execute(given(x=x, shape=np.array([*values[:-1], 6], np.int64)), ["y"])


NON_ZERO = """<ir_version: 10, opset_import: ["" : 18]>
non_zero (float[n] x) => (int64[1, found] where) { where = NonZero(x) }"""


def test_an_output_whose_size_the_data_decides(context: Context, create: Create, gpu: HostCuda, caplog: Any) -> None:
    content = plan(NON_ZERO, profiles=[{"x": [[1], [4], [64]]}], data_dependent=["where"])
    made = create(
        context(
            content,
            f"""{GRAPHS % ""} input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}
            output {{ name: "where" data_type: TYPE_INT64 dims: [ 1, -1 ] }}""",
        )
    )
    assert "only an execution tells the size of output 'where'" in caplog.text
    for x, where in (([0, 1, 0, 2], [[1, 3]]), ([0, 0], [[]]), ([1] * 20, [list(range(20))])):
        results = made.execute(given(x=np.array(x, np.float32)), ["where"])
        assert np.asarray(results["where"]).tolist() == where
    # No execution keeps memory that the next could use.
    held = len(gpu.memory)
    for _ in range(20):
        made.execute(given(x=np.ones(20, np.float32)), ["where"])
    assert len(gpu.memory) == held
    made.placed = {"where"}
    left: Any = made.execute(given(x=np.array([0, 5], np.float32)), ["where"])["where"]
    assert isinstance(left, DeviceResult)
    assert np.from_dlpack(left.on_host()).tolist() == [[1]]
    gpu.limit = 8
    with pytest.raises(ResourceExhaustedError, match="failed to allocate 512 bytes"):
        made.execute(given(x=np.ones(64, np.float32)), ["where"])


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize(("kind", "onnx_type"), [
    ("TYPE_FP16", "float16"), ("TYPE_BOOL", "bool"), ("TYPE_INT8", "int8"), ("TYPE_UINT8", "uint8"),
    ("TYPE_INT32", "int32"), ("TYPE_INT64", "int64"),
])  # fmt: skip
def test_types_and_scalars(
    kind: str, onnx_type: str, pinned: bool, context: Context, create: Create, gpu: HostCuda
) -> None:
    content = plan(f"""<ir_version: 10, opset_import: ["" : 18]>
    same ({onnx_type}[2] x, {onnx_type} s) => ({onnx_type}[2] y, {onnx_type} t)
    {{ y = Identity(x) t = Identity(s) }}""")
    options = "" if pinned else "optimization { input_pinned_memory { } output_pinned_memory { } }"
    arena = HostArena()
    made = create(replace(context(content, options), pinned_memory=arena))
    assert (made.batch_memory is arena) == pinned
    dtype = onnx.helper.tensor_dtype_to_np_dtype(
        getattr(onnx.TensorProto, onnx_type.replace("float16", "FLOAT16").upper())
    )
    x, s = np.array([0, 1], dtype), np.array([1], dtype)
    results = made.execute(given(x=x, s=s), ["y", "t"])
    assert np.asarray(results["y"]).tolist() == x.tolist()
    assert np.asarray(results["t"]).tolist() == s.tolist()  # as the configuration has it: [ 1 ]
    assert bool(arena.taken) == pinned


def test_an_execution_that_fails_costs_only_itself(
    add_sub: bytes, context: Context, create: Create, gpu: HostCuda
) -> None:
    made = create(context(add_sub))
    with pytest.raises(InvalidArgumentError, match="input 'b' is required by model 'm' and was not given"):
        made.execute(given(a=rows(1)), ["sum"])
    with pytest.raises(InternalError, match=r"failed to infer shapes from .*Error while inferring"):
        made.execute(given(a=rows(2), b=rows(3)), ["sum"])
    gpu.fails = cudart.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(InternalError, match="failed to execute on the GPU: an illegal memory access"):
        made.execute(given(a=rows(1), b=rows(1)), ["sum"])
    gpu.fails = cudart.cudaError_t.cudaSuccess
    assert np.asarray(made.execute(given(a=rows(1), b=rows(1)), ["sum"])["sum"]).tolist() == [[0, 2, 4, 6]]


def test_no_memory_is_told(context: Context, create: Create, gpu: HostCuda) -> None:
    content = plan(ADD_SUB, profiles=[{name: [[1, 4], [2, 4], [1000, 4]] for name in "ab"}])
    made = create(context(content))
    gpu.limit = 4096
    with pytest.raises(ResourceExhaustedError, match="failed to allocate 16000 bytes: out of memory"):
        made.execute(given(a=rows(1000), b=rows(1000)), ["sum"])
    assert len(np.asarray(made.execute(given(a=rows(2), b=rows(2)), ["sum"])["sum"])) == 2
