"""What goes in and comes out of a model: every datatype, odd shapes, odd names, and failing runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from trivet import datatypes
from trivet.backend import ArrayInstance
from trivet.datatypes import DataType
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Tensor, object_array

Instance = Callable[..., ArrayInstance]
FLOAT = TensorProto.FLOAT

NUMBERS = {
    datatypes.BOOL: TensorProto.BOOL,
    datatypes.UINT8: TensorProto.UINT8,
    datatypes.UINT16: TensorProto.UINT16,
    datatypes.UINT32: TensorProto.UINT32,
    datatypes.UINT64: TensorProto.UINT64,
    datatypes.INT8: TensorProto.INT8,
    datatypes.INT16: TensorProto.INT16,
    datatypes.INT32: TensorProto.INT32,
    datatypes.INT64: TensorProto.INT64,
    datatypes.FP16: TensorProto.FLOAT16,
    datatypes.FP32: TensorProto.FLOAT,
    datatypes.FP64: TensorProto.DOUBLE,
    datatypes.BF16: TensorProto.BFLOAT16,
}


def run(instance: ArrayInstance, outputs: list[str], **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Execute with numpy arrays, or tensors, by name."""
    tensors = {
        name: value if isinstance(value, Tensor) else Tensor.from_numpy(name, value) for name, value in inputs.items()
    }
    return dict(instance.execute(tensors, outputs))  # type: ignore[arg-type]


def test_adds_and_subtracts(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    a = np.arange(8, dtype=np.float32).reshape(2, 4)
    b = np.ones((2, 4), dtype=np.float32)
    results = run(instance(context(add_sub)), ["sum", "difference"], a=a, b=b)
    np.testing.assert_array_equal(results["sum"], a + b)
    np.testing.assert_array_equal(results["difference"], a - b)


def test_computes_only_the_outputs_that_are_asked_for(
    add_sub: onnx.ModelProto, context: Any, instance: Instance
) -> None:
    ones = np.ones((1, 4), dtype=np.float32)
    assert list(run(instance(context(add_sub)), ["difference"], a=ones, b=ones)) == ["difference"]


@pytest.mark.parametrize("datatype", NUMBERS, ids=repr)
@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (1, 1)], ids=str)
def test_every_number_passes_unchanged(
    datatype: DataType, shape: tuple[int, int], identity: Any, context: Any, instance: Instance
) -> None:
    size = shape[0] * shape[1] * datatype.itemsize
    # Bit patterns of small numbers, and of 0 and 1 for booleans.
    wire = bytes(i % 2 for i in range(size))
    tensor = Tensor.from_wire("x", datatype, shape, wire)
    made = instance(context(identity(NUMBERS[datatype])))
    result = run(made, ["y"], x=tensor)["y"]
    assert result.dtype == datatype.numpy
    assert result.shape == shape
    assert result.tobytes() == wire


@given(
    array=hnp.arrays(
        dtype=st.sampled_from([np.dtype(np.float32), np.dtype(">f4"), np.dtype("<f4")]),
        shape=hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_layouts_of_memory_do_not_matter(
    array: np.ndarray[Any, Any], identity: Any, context: Any, instance: Instance
) -> None:
    made = instance(context(identity()))
    for view in (array, array.T, array[::-1], array[:, ::2]):
        result = run(made, ["y"], x=view)["y"]
        np.testing.assert_array_equal(result, view.astype(np.float32))


def test_memory_that_cannot_be_written_is_read_in_place(identity: Any, context: Any, instance: Instance) -> None:
    wire = np.arange(6, dtype=np.float32).tobytes()
    tensor = Tensor.from_wire("x", datatypes.FP32, (2, 3), wire)
    assert not tensor.numpy().flags.writeable
    result = run(instance(context(identity())), ["y"], x=tensor)["y"]
    assert result.tobytes() == wire


def test_unaligned_memory(identity: Any, context: Any, instance: Instance) -> None:
    wire = np.arange(6, dtype=np.float32).tobytes()
    tensor = Tensor.from_wire("x", datatypes.FP32, (2, 3), memoryview(b"\0" + wire)[1:])
    result = run(instance(context(identity())), ["y"], x=tensor)["y"]
    assert result.tobytes() == wire


def test_results_outlive_the_next_run_and_the_instance(identity: Any, context: Any, instance: Instance) -> None:
    made = instance(context(identity()))
    first = run(made, ["y"], x=np.full((4, 4), 1, dtype=np.float32))["y"]
    run(made, ["y"], x=np.full((4, 4), 2, dtype=np.float32))
    made.close()
    np.testing.assert_array_equal(first, np.full((4, 4), 1, dtype=np.float32))


# --- text


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_text_passes_as_bytes(texts: list[str], identity: Any, context: Any, instance: Instance) -> None:
    encoded = [text.encode() for text in texts]
    made = instance(context(identity(TensorProto.STRING, (None, 1))))
    tensor = Tensor.from_numpy("x", object_array(encoded, (len(encoded), 1)))
    result = run(made, ["y"], x=tensor)["y"]
    assert result.shape == (len(encoded), 1)
    assert result.reshape(-1).tolist() == encoded


@pytest.mark.parametrize(
    "array",
    [np.array([["é"], ["a\0b"]], dtype=np.object_), np.array([["é"], ["b"]]), np.array([["a"], ["bc"]], dtype="S")],
    ids=["str objects", "str_", "bytes_"],
)
def test_text_of_any_kind_of_array(
    array: np.ndarray[Any, Any], identity: Any, context: Any, instance: Instance
) -> None:
    result = run(instance(context(identity(TensorProto.STRING, (None, 1)))), ["y"], x=array)["y"]
    assert [item.decode() for item in result.reshape(-1)] == [
        item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()
    ]


def test_bytes_that_are_no_text_are_refused(identity: Any, context: Any, instance: Instance) -> None:
    made = instance(context(identity(TensorProto.STRING, (None, 1))))
    tensor = Tensor.from_numpy("x", object_array([b"fine", b"a\xff"], (2, 1)))
    with pytest.raises(
        InvalidArgumentError, match=r"element 1 of input 'x' is not valid UTF-8 \(byte 0xff at offset 1\)"
    ):
        run(made, ["y"], x=tensor)
    good = Tensor.from_numpy("x", object_array([b"fine"], (1, 1)))
    assert run(made, ["y"], x=good)["y"].tolist() == [[b"fine"]]


def test_text_that_a_model_gets_wrong_fails_the_run_only(build_model: Any, context: Any, instance: Instance) -> None:
    constant = onnx.TensorProto(name="c", data_type=TensorProto.STRING, dims=[1], string_data=[b"\xff"])
    model = build_model(
        [helper.make_node("Constant", [], ["y"], value=constant), helper.make_node("Identity", ["x"], ["z"])],
        {"x": (FLOAT, (1,))},
        {"y": (TensorProto.STRING, (1,)), "z": (FLOAT, (1,))},
    )
    made = instance(context(model))
    x = np.ones(1, dtype=np.float32)
    with pytest.raises(InternalError, match="model 'm' version 1 computed text that is not valid UTF-8"):
        run(made, ["y"], x=x)
    np.testing.assert_array_equal(run(made, ["z"], x=x)["z"], x)


# --- bfloat16


def test_bfloat16_is_computed_with(build_model: Any, context: Any, instance: Instance) -> None:
    """Bit patterns are numbers to the model: cast to float32 and back, next to an output of another type."""
    model = build_model(
        [
            helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
            helper.make_node("Add", ["wide", "wide"], ["twice"]),
            helper.make_node("Cast", ["twice"], ["y"], to=TensorProto.BFLOAT16),
        ],
        {"x": (TensorProto.BFLOAT16, (None, 3))},
        {"y": (TensorProto.BFLOAT16, (None, 3)), "twice": (FLOAT, (None, 3))},
    )
    made = instance(context(model))
    numbers = np.array([[0.5, -2, 1024]], dtype=ml_dtypes.bfloat16)
    tensor = Tensor.from_wire("x", datatypes.BF16, (1, 3), numbers.tobytes())
    results = run(made, ["y", "twice"], x=tensor)
    assert results["y"].view(ml_dtypes.bfloat16).astype(np.float32).tolist() == [[1, -4, 2048]]
    assert results["twice"].tolist() == [[1, -4, 2048]]
    assert run(made, ["twice"], x=tensor)["twice"].tolist() == [[1, -4, 2048]]


def test_bfloat16_results_outlive_the_next_run(identity: Any, context: Any, instance: Instance) -> None:
    made = instance(context(identity(TensorProto.BFLOAT16)))
    first = run(made, ["y"], x=Tensor.from_wire("x", datatypes.BF16, (1, 64), bytes(range(128))))["y"]
    run(made, ["y"], x=Tensor.from_wire("x", datatypes.BF16, (1, 64), bytes(128)))
    made.close()
    assert first.tobytes() == bytes(range(128))


def test_bfloat16_next_to_numbers_of_a_strided_array(build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["n"], ["o"])],
        {"x": (TensorProto.BFLOAT16, (None,)), "n": (FLOAT, (None,))},
        {"y": (TensorProto.BFLOAT16, (None,)), "o": (FLOAT, (None,))},
    )
    made = instance(context(model, "max_batch_size: 0"))
    results = run(
        made,
        ["o", "y"],
        x=Tensor.from_numpy("x", np.arange(6, dtype=np.uint16)[::2], datatypes.BF16),
        n=np.arange(6, dtype=np.float32)[::2],
    )
    assert results["y"].tolist() == [0, 2, 4]
    assert results["o"].tolist() == [0, 2, 4]


# --- shapes and names


@pytest.mark.parametrize(
    ("data_type", "datatype", "value"),
    [
        (TensorProto.INT64, datatypes.INT64, np.array([16000])),
        (TensorProto.STRING, datatypes.BYTES, object_array([b"text"], (1,))),
        (TensorProto.BFLOAT16, datatypes.BF16, np.array([0x3F80], dtype=np.uint16)),
    ],
)
def test_scalars_travel_as_one_element(
    data_type: int, datatype: DataType, value: Any, identity: Any, context: Any, instance: Instance
) -> None:
    scalar = context(identity(data_type, ()))
    made = instance(scalar)
    assert list(scalar.config.input[0].dims) == [1]
    result = run(made, ["y"], x=Tensor.from_numpy("x", value, datatype))["y"]
    assert result.shape == (1,)
    assert result.tolist() == value.tolist()


def test_a_scalar_takes_the_shape_that_the_configuration_gives_it(
    identity: Any, context: Any, instance: Instance
) -> None:
    config = """
        input { name: "x" data_type: TYPE_FP32 dims: [ 1, 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1, 1, 1 ] }"""
    result = run(instance(context(identity(FLOAT, ()), config)), ["y"], x=np.ones((1, 1), dtype=np.float32))["y"]
    assert result.shape == (1, 1, 1)


def test_a_reduction_to_a_scalar(build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], {"x": (FLOAT, (None,))}, {"y": (FLOAT, ())}
    )
    result = run(instance(context(model)), ["y"], x=np.arange(4, dtype=np.float32))["y"]
    assert result.tolist() == [6]


def test_names_with_colons_and_slashes(build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("Identity", ["serving/x:0"], ["head/out:0"])],
        {"serving/x:0": (FLOAT, (None, 2))},
        {"head/out:0": (FLOAT, (None, 2))},
    )
    x = np.ones((1, 2), dtype=np.float32)
    made = instance(context(model))
    results = made.execute({"serving/x:0": Tensor.from_numpy("serving/x:0", x)}, ["head/out:0"])
    np.testing.assert_array_equal(results["head/out:0"], x)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (0, 5), (5, 0)])
def test_dynamic_dimensions(shape: tuple[int, int], identity: Any, context: Any, instance: Instance) -> None:
    x = np.ones(shape, dtype=np.float32)
    assert run(instance(context(identity(FLOAT, ("n", "m")))), ["y"], x=x)["y"].shape == shape


def test_an_optional_input_may_be_absent(build_model: Any, context: Any, instance: Instance) -> None:
    default = helper.make_tensor("b", FLOAT, (2,), [10, 20])
    model = build_model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (FLOAT, (2,)), "b": (FLOAT, (2,))},
        {"y": (FLOAT, (2,))},
        initializers=[default],
    )
    config = """
        input { name: "a" data_type: TYPE_FP32 dims: [ 2 ] }
        input { name: "b" data_type: TYPE_FP32 dims: [ 2 ] optional: true }
        output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }"""
    made = instance(context(model, config))
    ones = np.ones(2, dtype=np.float32)
    assert run(made, ["y"], a=ones)["y"].tolist() == [11, 21]
    assert run(made, ["y"], a=ones, b=ones)["y"].tolist() == [2, 2]


# --- files


def _with_weights(build_model: Any) -> onnx.ModelProto:
    weights = onnx.numpy_helper.from_array(np.arange(1024, dtype=np.float32), "w")
    model: onnx.ModelProto = build_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (FLOAT, (None, 1024))},
        {"y": (FLOAT, (None, 1024))},
        initializers=[weights],
    )
    return model


@pytest.mark.parametrize(
    ("folder", "config"),
    [("model.onnx", ""), ("net", 'default_model_filename: "net"'), (".", "")],
    ids=["folder model.onnx", "folder of another name", "beside the file"],
)
def test_external_data(folder: str, config: str, build_model: Any, context: Any, instance: Instance) -> None:
    made_context = context(None, config)
    target = made_context.version_path / folder
    target.mkdir(exist_ok=True)
    onnx.save_model(
        _with_weights(build_model),
        target / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (target / "weights.bin").stat().st_size == 4096
    result = run(instance(made_context), ["y"], x=np.zeros((1, 1024), dtype=np.float32))["y"]
    np.testing.assert_array_equal(result[0], np.arange(1024, dtype=np.float32))


def test_a_file_of_another_name(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    made_context = context(None, 'default_model_filename: "net.onnx"')
    onnx.save_model(add_sub, made_context.version_path / "net.onnx")
    assert run(instance(made_context), ["sum"], a=np.ones((1, 4), "f4"), b=np.ones((1, 4), "f4"))["sum"].tolist() == [
        [2] * 4
    ]


# --- failing runs


def test_a_failing_run_says_what_failed_and_serving_goes_on(
    build_model: Any, context: Any, instance: Instance, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="to_shape")],
        {"x": (FLOAT, (None,)), "shape": (TensorProto.INT64, (2,))},
        {"y": (FLOAT, (None, None))},
    )
    made = instance(context(model))
    x = np.arange(6, dtype=np.float32)
    with pytest.raises(
        InternalError, match=r"onnx runtime error \d: .*to_shape.*Input shape:\{6\}.*\(model 'm' version 1\)"
    ):
        run(made, ["y"], x=x, shape=np.array([4, 4]))
    assert run(made, ["y"], x=x, shape=np.array([2, 3]))["y"].shape == (2, 3)
    captured = capfd.readouterr()
    assert captured.err == captured.out == "", "what one client does wrong must not fill the log"


def test_a_shape_that_the_model_refuses(add_sub: onnx.ModelProto, context: Any, instance: Instance) -> None:
    made = instance(context(add_sub))
    wrong = np.ones((1, 5), dtype=np.float32)
    with pytest.raises(InternalError, match=r"onnx runtime error 2: Got invalid dimensions for input: [ab] "):
        run(made, ["sum"], a=wrong, b=wrong)


def test_the_path_may_hold_any_character(identity: Any, context: Any, instance: Instance) -> None:
    made_context = context(identity(), name="modèle naïf ü")
    assert run(instance(made_context), ["y"], x=np.ones((1, 1), "f4"))["y"].tolist() == [[1]]
