"""Configurations against plans, what is filled in, and engines: shared, streamed, refused. On the stand-in of a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cuda_standin import Driver
from onnx.parser import parse_model
from trivet.backend import InstanceContext, ModelContext
from trivet.errors import InvalidArgumentError, TrivetError, UnavailableError
from trivet.tensor import Tensor
from trivet_backend_trt.backend import TensorRTBackend, TensorRTModel
from trivet_backend_trt.engine import _failure
from trivet_backend_trt.plan import Plan

if TYPE_CHECKING:
    from cuda_standin import HostCuda
    from trivet_backend_trt.instance import TensorRTInstance

Context = Callable[..., ModelContext]
Create = Callable[..., "TensorRTInstance"]

pytestmark = pytest.mark.usefixtures("gpu")

DOUBLE = """<ir_version: 10, opset_import: ["" : 18]>
double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }"""
PROFILES = [{"x": [[1, 4], [2, 4], [8, 4]]}, {"x": [[1, 4], [16, 4], [32, 4]]}]


def plan(text: str = DOUBLE, **about: Any) -> bytes:
    from trt_standin import write_plan

    return write_plan(parse_model(text), **{"profiles": PROFILES if text is DOUBLE else [{}], **about})


def completed(context: ModelContext) -> Any:
    TensorRTBackend().auto_complete(context)
    return context.config


def test_a_plan_needs_no_configuration(context: Context) -> None:
    config = completed(context(plan()))
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert [(i.name, i.data_type, list(i.dims)) for i in (*config.input, *config.output)] == [
        ("x", 11, [4]),
        ("y", 11, [4]),
    ]


@pytest.mark.parametrize(("config", "options", "batch"), [
    ("", {"default-max-batch-size": "4"}, 4),
    ("", {"default-max-batch-size": "400"}, 8),
    ('instance_group { kind: KIND_GPU profile: [ "0", "1" ] }', {}, 32),
    ("max_batch_size: 3", {}, 3),
])  # fmt: skip
def test_the_batch_is_as_large_as_the_profiles_allow(
    config: str, options: dict[str, str], batch: int, context: Context
) -> None:
    assert completed(context(plan(), config, options)).max_batch_size == batch


def test_dimensions_that_are_configured_tell_whether_to_batch(context: Context, caplog: Any) -> None:
    """Only the outputs are; the rest is filled in to go with them."""
    assert completed(context(plan(), 'output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }')).max_batch_size == 8
    config = completed(context(plan(), 'output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }'))
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [-1, 4])
    assert "the specified dimensions in model config for m hint that batching is unavailable" in caplog.text


@pytest.mark.parametrize(("config", "reason"), [
    ('output { name: "y" dims: [ 4 ] } output { name: "x" dims: [ -1, 4 ] }', "contradicting each other"),
    ("max_batch_size: 9", "configuration specified max-batch 9 but TensorRT engine only supports max-batch 8"),
    ('instance_group { kind: KIND_GPU profile: "2" }', "invalid profile '2'. Number of profiles .*: 2"),
])  # fmt: skip
def test_what_contradicts_the_plan_is_refused(config: str, reason: str, context: Context) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        completed(context(plan(), config))


def test_a_plan_without_a_batch(context: Context) -> None:
    fixed = DOUBLE.replace("batch", "3")
    config = completed(context(plan(fixed)))
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [3, 4])
    assert not config.HasField("dynamic_batching")


def test_shape_tensors_and_formats_are_told(context: Context) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    e (int8[batch, 32] x, int64[2] shape) => (int8[batch, n] y) { y = Expand(x, shape) }"""
    profile = {"x": [[1, 32], [2, 32], [4, 32]], "shape values": [[1, 1], [2, 3], [4, 5]]}
    config = completed(context(plan(text, profiles=[profile], shape_tensors=["shape"], vectors={"x": 32})))
    x, shape = config.input
    assert (list(x.dims), x.is_non_linear_format_io, x.is_shape_tensor) == ([32], True, False)
    assert (list(shape.dims), shape.is_shape_tensor) == ([1], True)
    assert config.max_batch_size == 4


def test_a_datatype_that_no_request_carries_is_refused(context: Context) -> None:
    text = """<ir_version: 10, opset_import: ["" : 19]>
    same (float8e4m3fn[4] x) => (float8e4m3fn[4] y) { y = Identity(x) }"""
    with pytest.raises(InvalidArgumentError, match="unsupported datatype FP8 for input 'x'"):
        completed(context(plan(text)))


BATCHED = "max_batch_size: 8 "
X = 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } '
Y = 'output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } '


@pytest.mark.parametrize(("config", "reason"), [
    (f"max_batch_size: 9 {X}{Y}", "maximum batch size 9 for 'm_0_0' of model 'm', its profiles take at most 8"),
    (X.replace('"x"', '"z"') + Y, "unexpected inference input 'z' for model 'm', allowed inputs are: x"),
    (BATCHED + X + Y.replace('"y"', '"z"'), "unexpected inference output 'z' for model 'm', allowed outputs are: y"),
    (f"{BATCHED}{X.replace('FP32', 'INT8')}{Y}", "datatype TYPE_INT8 for input 'x', model provides TYPE_FP32"),
    (f"{BATCHED}{X}{Y.replace('FP32', 'INT8')}", "TYPE_INT8 for output 'y', model provides TYPE_FP32"),
    (f"{BATCHED}{X.replace('4', '5')}{Y}", r"shape \[-1,4\]\) but .* specifies 2 .*\[-1,5\]"),
    (X + Y, r"the model expects 2 dimensions \(shape \[-1,4\]\) but .* specifies 1 dimensions \(shape \[4\]\)"),
    (f"{BATCHED}{X.replace('}', 'optional: true }')}{Y}", "optional input 'x' is not supported"),
    (f"{BATCHED}{X.replace('}', 'is_shape_tensor: true }')}{Y}", "input 'x' is no shape tensor in the model"),
    (f"{BATCHED}{X}{Y.replace('}', 'is_non_linear_format_io: true }')}", "output 'y' uses the format 'linear'"),
    (f'{BATCHED}sequence_batching {{ control_input {{ name: "START" }} }} {X}{Y}', "input 'START'"),
])  # fmt: skip
def test_a_configuration_that_is_not_the_plans_does_not_load(
    config: str, reason: str, context: Context, create: Create
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        create(context(plan(), config))


def test_an_input_that_nobody_gives_is_missed(context: Context, create: Create) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    add (float[4] x, float[4] z) => (float[4] y) { y = Add(x, z) }"""
    with pytest.raises(InvalidArgumentError, match=r"expects 1 inputs, model provides 2 \(not configured: z\)"):
        create(context(plan(text), X + Y))


def test_vectors_that_are_not_full_are_refused(context: Context, create: Create) -> None:
    """Callers' tensors have no padding."""
    text = """<ir_version: 10, opset_import: ["" : 18]>
    same (int8[1, 3, 2, 2] x) => (int8[1, 3, 2, 2] y) { y = Identity(x) }"""
    with pytest.raises(InvalidArgumentError, match=r"pads dimension 1 of .* to a multiple of 32; that is not"):
        create(context(plan(text, vectors={"x": 32})))
    # As NVDLA has it.
    padded = "Channel major FP16 format where C % 4 == 0 and H Stride % 32 == 0"
    with pytest.raises(InvalidArgumentError, match="which pads rows"):
        create(context(plan(text, formats={"x": padded})))


def test_instances_on_a_gpu_share_its_engine(context: Context) -> None:
    model_context = context(plan(), f"{BATCHED}{X}{Y}")
    model = TensorRTBackend().load(model_context)
    assert isinstance(model, TensorRTModel)
    made = [
        model.create_instance(InstanceContext(f"m_0_{number}", "GPU", device))
        for number, device in enumerate((0, 0, 1))
    ]
    assert sorted(model._engines) == [(0, None), (1, None)]
    for number, each in enumerate(made):
        x = np.full((2, 4), number, np.float32)
        answer = each.execute({"x": Tensor.from_numpy("x", x)}, ["y"])["y"]
        assert np.asarray(answer).tolist() == (2 * x).tolist()
        each.close()
    model.close()


@pytest.mark.parametrize(("placement", "reason"), [
    ({"kind": "CPU"}, "supports only GPU device: instance 'm_0_0' is of KIND_CPU"),
    ({"kind": "MODEL"}, "supports only GPU device: instance 'm_0_0' is of KIND_MODEL"),
    ({"device_id": 2}, "needs an NVIDIA GPU, .*: there is no GPU 2: the NVIDIA driver shows 2, counted from 0"),
    ({"secondary_devices": (("NVDLA", 0),)}, "needs NVDLA core 0, and this machine has 0"),
])  # fmt: skip
def test_an_instance_that_cannot_be_is_refused(
    placement: dict[str, Any], reason: str, context: Context, create: Create
) -> None:
    with pytest.raises(UnavailableError, match=reason):
        create(context(plan()), **placement)


@pytest.mark.parametrize(("budget", "kept"), [("25%", 250), ("auto", 500), ("1K", 1000)])
def test_weights_are_streamed_beyond_their_budget(budget: str, kept: int, context: Context, create: Create) -> None:
    parameter = f'parameters {{ key: "weight_streaming_budget" value {{ string_value: "{budget}" }} }}'
    made = create(context(plan(streamable=1000), parameter))
    engine: Any = made._contexts[0]._context._engine
    assert engine.weight_streaming_budget_v2 == kept


@pytest.mark.parametrize(("content", "config", "error", "reason"), [
    (plan, 'parameters { key: "weight_streaming_budget" value { string_value: "1" } }', InvalidArgumentError,
     "its plan was not built for weight streaming; build it with: trivet trt build --weight-streaming"),
    (lambda: plan(streamable=1000, least_budget=500),
     'parameters { key: "weight_streaming_budget" value { string_value: "10%" } }', InvalidArgumentError,
     r"cannot have the parameter 'weight_streaming_budget' of '10%' \(100 bytes\): the budget is too small"),
    (lambda: plan(version=(9, 1, 0, 4)), "", UnavailableError,
     r"with this version of TensorRT; it was built by TensorRT 9\.1\.0\.4, and tensorrt is 10\.3\.0\.26"),
    (lambda: plan()[:-9], "", InvalidArgumentError, "the file is damaged, or needs plugins that are not loaded"),
])  # fmt: skip
def test_a_plan_that_cannot_be_loaded_says_why(
    content: Callable[[], bytes], config: str, error: type[TrivetError], reason: str, context: Context, create: Create
) -> None:
    with pytest.raises(error, match=reason):
        create(context(content(), config))


def test_tensorrt_for_rtx_says_which_gpus_it_has_no_plans_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library answers is given; the GPUs that it knows are the real library's."""
    monkeypatch.setattr(Driver, "capabilities", ((8, 6), (9, 0)))
    import tensorrt_rtx

    reason = tensorrt_rtx.EngineInvalidityDiagnostics.UNSUPPORTED_CC
    runtime = SimpleNamespace(get_engine_validity=lambda content: (tensorrt_rtx.EngineValidity.INVALID, reason))
    version = tuple(int(part) for part in tensorrt_rtx.__version__.split("."))
    refused = Plan(tmp_path / "model.plan", "tensorrt_rtx", version)

    def text(gpu: int) -> str:
        return _failure(tensorrt_rtx, runtime, refused, b"", 1, gpu, "no", "m").message

    assert "it was built for other GPUs" in text(0)
    assert "TensorRT for RTX has no plans for compute capability 9.0, which GPU 1 has: build one with TensorRT" in text(
        1
    )


def test_the_lean_runtime_says_what_it_loads(context: Context, create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_standin import MODULE

    monkeypatch.setitem(sys.modules, "tensorrt_lean", MODULE)
    monkeypatch.setattr(MODULE, "__name__", "tensorrt_lean")
    library = 'parameters { key: "library" value { string_value: "tensorrt_lean" } }'
    with pytest.raises(InvalidArgumentError, match="tensorrt_lean loads only plans that were built with --"):
        create(context(plan()[:-9], library))


def test_a_version_compatible_plan_loads_where_the_operator_allows_it(context: Context, create: Create) -> None:
    create(context(plan(version=(9, 1, 0, 4)), options={"version-compatible": "true"}))


def test_plugins_that_are_not_there(context: Context, create: Create) -> None:
    with pytest.raises(InvalidArgumentError, match=r"unable to load custom library for TensorRT plugins: /no/such\.so"):
        create(context(plan(), options={"plugins": "/no/such.so"}))


def test_nothing_is_left_of_an_instance_that_could_not_be_created(
    context: Context, create: Create, gpu: HostCuda
) -> None:
    """The fixture counts."""
    graphs = "optimization { cuda { graphs: true graph_spec { batch_size: 99 } } }"
    with pytest.raises(InvalidArgumentError, match="batch_size 99"):
        create(context(plan(), graphs))
