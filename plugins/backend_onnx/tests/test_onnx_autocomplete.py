"""What a configuration gets from the model: compare Triton's "Auto-Generated Model Configuration"."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from trivet.config import POOL, ModelConfig
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet_backend_onnx.backend import OnnxBackend

FLOAT = TensorProto.FLOAT


def completed(backend: OnnxBackend, context: Any) -> ModelConfig:
    backend.auto_complete(context)
    config: ModelConfig = context.config
    return config


def expected(text: str) -> ModelConfig:
    config = ModelConfig(name="m", backend="onnxruntime")
    return text_format.Parse(text, config, descriptor_pool=POOL)


def test_a_model_that_can_batch(add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend) -> None:
    assert completed(backend, context(add_sub)) == expected("""
        max_batch_size: 4
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        input { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "difference" data_type: TYPE_FP32 dims: [ 4 ] }
        dynamic_batching {}""")


def test_a_model_that_cannot_batch_for_a_fixed_dimension(identity: Any, context: Any, backend: OnnxBackend) -> None:
    assert completed(backend, context(identity(FLOAT, (1, "n", 3)))) == expected("""
        input { name: "x" data_type: TYPE_FP32 dims: [ 1, -1, 3 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1, -1, 3 ] }""")


def test_one_scalar_keeps_the_whole_model_from_batching(build_model: Any, context: Any, backend: OnnxBackend) -> None:
    model = build_model(
        [helper.make_node("Mul", ["x", "rate"], ["y"])],
        {"x": (FLOAT, (None, 2)), "rate": (FLOAT, ())},
        {"y": (FLOAT, (None, 2))},
    )
    assert completed(backend, context(model)) == expected("""
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] }
        input { name: "rate" data_type: TYPE_FP32 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] }""")


def test_a_tensor_of_the_batch_alone_is_reshaped(identity: Any, context: Any, backend: OnnxBackend) -> None:
    assert completed(backend, context(identity(TensorProto.INT64, (None,)))) == expected("""
        max_batch_size: 4
        input { name: "x" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [] } }
        output { name: "y" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [] } }
        dynamic_batching {}""")


def test_what_the_author_wrote_stays(add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend) -> None:
    written = """
        max_batch_size: 16
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" }
        sequence_batching { max_sequence_idle_microseconds: 1 }"""
    assert completed(backend, context(add_sub, written)) == expected(
        written
        + """
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        input { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }"""
    )


def test_inputs_and_outputs_together_are_not_touched(context: Any, backend: OnnxBackend) -> None:
    written = """
        input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }"""
    assert completed(backend, context(None, written)) == expected(written)


@pytest.mark.parametrize(("option", "batch", "dynamic"), [("0", 0, False), ("1", 1, False), ("32", 32, True)])
def test_the_default_batch_size_is_an_option(
    option: str, batch: int, dynamic: bool, add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend
) -> None:
    config = completed(backend, context(add_sub, options={"default-max-batch-size": option}))
    assert config.max_batch_size == batch
    assert config.HasField("dynamic_batching") is dynamic
    assert list(config.input[0].dims) == ([4] if batch else [-1, 4])


def test_a_batch_size_that_the_model_cannot_have(identity: Any, context: Any, backend: OnnxBackend) -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=r"autofill failed for model 'm': model does not support batching while non-zero max_batch_size is spec",
    ):
        completed(backend, context(identity(FLOAT, (1, 2)), "max_batch_size: 8"))


def test_every_datatype_has_a_name_in_the_configuration(identity: Any, context: Any, backend: OnnxBackend) -> None:
    types = {
        TensorProto.BOOL: "TYPE_BOOL",
        TensorProto.UINT8: "TYPE_UINT8",
        TensorProto.UINT16: "TYPE_UINT16",
        TensorProto.UINT32: "TYPE_UINT32",
        TensorProto.UINT64: "TYPE_UINT64",
        TensorProto.INT8: "TYPE_INT8",
        TensorProto.INT16: "TYPE_INT16",
        TensorProto.INT32: "TYPE_INT32",
        TensorProto.INT64: "TYPE_INT64",
        TensorProto.FLOAT16: "TYPE_FP16",
        TensorProto.FLOAT: "TYPE_FP32",
        TensorProto.DOUBLE: "TYPE_FP64",
        TensorProto.STRING: "TYPE_STRING",
        TensorProto.BFLOAT16: "TYPE_BF16",
    }
    for onnx_type, name in types.items():
        config = completed(backend, context(identity(onnx_type, (2,)), name=name))
        written = expected(f"input {{ data_type: {name} }}")
        assert config.input[0].data_type == config.output[0].data_type == written.input[0].data_type


def test_a_type_that_no_request_can_carry(context: Any, build_model: Any, backend: OnnxBackend) -> None:
    float8 = (TensorProto.FLOAT8E4M3FN, (1,))
    model = build_model([helper.make_node("Identity", ["x"], ["y"])], {"x": float8}, {"y": float8}, opset=21)
    with pytest.raises(InvalidArgumentError, match=r"unsupported datatype tensor\(float8e4m3fn\) for input 'x'"):
        completed(backend, context(model))


def test_an_output_that_is_no_tensor(context: Any, backend: OnnxBackend) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["parts"]), helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, (2,))],
        [
            helper.make_tensor_sequence_value_info("parts", FLOAT, None),
            helper.make_tensor_value_info("y", FLOAT, (2,)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(
        InvalidArgumentError,
        match=r"Unsupported ONNX Type 'ONNX_TYPE_SEQUENCE' for I/O 'parts', expected 'ONNX_TYPE_TENSOR'; .*name the",
    ):
        completed(backend, context(model))
    # Named in the configuration, the other output is served.
    config = completed(backend, context(model, 'output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }', name="n"))
    assert [tensor.name for tensor in config.output] == ["y"]


def test_a_missing_file_is_an_error_here_too(context: Any, backend: OnnxBackend) -> None:
    with pytest.raises(UnavailableError, match=r"unable to find '.*/m/1/model.onnx' for model 'm'"):
        completed(backend, context(None))


def test_a_gpu_is_asked_for_here_too(add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend) -> None:
    """A model may have operators that only the GPU's provider knows."""
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider"):
        completed(backend, context(add_sub, "instance_group { kind: KIND_GPU }"))


def test_what_the_sequence_scheduler_gives_and_takes_is_left_to_it(
    add_sub: onnx.ModelProto, context: Any, backend: OnnxBackend
) -> None:
    sequences = """
        sequence_batching { state { input_name: "b" output_name: "difference" data_type: TYPE_FP32 dims: [ 4 ] } }"""
    assert completed(backend, context(add_sub, sequences)) == expected(
        """
        max_batch_size: 4
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }"""
        + sequences
    )
