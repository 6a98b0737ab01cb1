"""A configuration that contradicts its model is refused in Triton's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance
from trivet.errors import InvalidArgumentError, UnimplementedError

Instance = Callable[..., ArrayInstance]
FLOAT = TensorProto.FLOAT


def tensors(
    x: str = "dims: [ 4 ]", y: str = "dims: [ 4 ]", x_type: str = "TYPE_FP32", y_type: str = "TYPE_FP32"
) -> str:
    return f'input {{ name: "x" data_type: {x_type} {x} }} output {{ name: "y" data_type: {y_type} {y} }}'


def refused(message: str, shape: Any, config: str, identity: Any, context: Any, instance: Instance) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        instance(context(identity(FLOAT, shape), config))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((None, 4), "max_batch_size: 8 " + tensors()),
        ((None, 4), tensors("dims: [ -1, 4 ]", "dims: [ -1, 4 ]")),
        ((None, 4), tensors("dims: [ 2, 4 ]", "dims: [ -1, 4 ]")),
        ((None,), "max_batch_size: 8 " + tensors(*["dims: [ 1 ] reshape { shape: [] }"] * 2)),
        ((None, 2, 2), "max_batch_size: 8 " + tensors(*["dims: [ 4 ] reshape { shape: [ 2, 2 ] }"] * 2)),
        ((), tensors("dims: [ 1 ]", "dims: [ 1, 1 ]")),
        ((None,), tensors("dims: [ -1 ] allow_ragged_batch: true", "dims: [ -1 ]")),
    ],
)
def test_what_fits_is_accepted(shape: Any, config: str, identity: Any, context: Any, instance: Instance) -> None:
    instance(context(identity(FLOAT, shape), config))


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        (
            (None, 4),
            tensors().replace('name: "x"', 'name: "z"'),
            "unexpected inference input 'z', allowed inputs are: x",
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors().replace('name: "y"', 'name: "z"'),
            "unexpected inference output 'z', allowed outputs are: y",
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors() + ' input { name: "z" data_type: TYPE_FP32 dims: [ 4 ] }',
            "unable to load model 'm', configuration expects 2 inputs, model provides 1",
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors().replace('name: "x"', 'name: "x" optional: true'),
            "unable to load model 'm', configuration expects 0 inputs, model provides 1 (not configured: x)",
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors(x_type="TYPE_INT32"),
            (
                "unable to load model 'm', configuration expects datatype TYPE_INT32 for input 'x', model provides"
                " TYPE_FP32"
            ),
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors(y_type="TYPE_FP16"),
            (
                "unable to load model 'm', configuration expects datatype TYPE_FP16 for output 'y', model provides"
                " TYPE_FP32"
            ),
        ),
        (
            (2, 4),
            "max_batch_size: 8 " + tensors(),
            (
                "model 'm', tensor 'x': for the model to support batching the shape should have at least 1 dimension"
                " and the first dimension must be -1; but shape expected by the model is [2,4]"
            ),
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors("dims: [ 5 ]"),
            (
                "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,4]) but the model configuration"
                " specifies 2 dimensions (an initial batch dimension because max_batch_size > 0 followed by the"
                " explicit tensor shape, making complete shape [-1,5])"
            ),
        ),
        (
            (None, 4),
            tensors("dims: [ 4 ]"),
            (
                "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,4]) but the model configuration"
                " specifies 1 dimensions (shape [4])"
            ),
        ),
        (
            (None, None),
            tensors("dims: [ 2, 2 ]", "dims: [ 2, 2 ]"),
            (
                "model 'm', tensor 'y': the model expects 2 dimensions (shape [-1,-1]) but the model configuration"
                " specifies 2 dimensions (shape [2,2])"
            ),
        ),
        (
            (),
            tensors("dims: [ 2 ]", "dims: [ 1 ]"),
            (
                "unable to load model 'm', scalar tensor 'x', should only provide 1 in the model configuration when"
                " the model doesn't support batching. Model configuration provided: [2]."
            ),
        ),
        (
            (None, 4),
            "max_batch_size: 8 " + tensors("dims: [ 4 ] allow_ragged_batch: true"),
            (
                "unable to load model 'm', configuration expects model provides input with shape [-1] for ragged"
                " input 'x', model provides [-1,4]"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: Any, config: str, message: str, identity: Any, context: Any, instance: Instance
) -> None:
    refused(message, shape, config, identity, context, instance)


def test_optional_inputs_do_not_go_with_batching(add_sub: Any, context: Any, instance: Instance) -> None:
    config = """
        max_batch_size: 2
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        input { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
        input { name: "c" data_type: TYPE_FP32 dims: [ 4 ] optional: true }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }"""
    with pytest.raises(
        InvalidArgumentError, match="optional input 'c' is not supported for models that support batching"
    ):
        instance(context(add_sub, config))


def test_inputs_that_a_scheduler_makes_count(add_sub: Any, context: Any, instance: Instance) -> None:
    """Of the model's two inputs a request has one; the other is a sequence control, a state or a batch input."""
    one = """
        max_batch_size: 2
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] } """
    for number, other in enumerate(
        (
            'sequence_batching { control_input { name: "b" control { fp32_false_true: [ 0, 1 ] } } }',
            'sequence_batching { state { input_name: "b" output_name: "sum" data_type: TYPE_FP32 dims: [ 4 ] } }',
            'batch_input { target_name: "b" data_type: TYPE_FP32 source_input: "a" }',
        )
    ):
        instance(context(add_sub, one + other, name=f"m{number}"))
    with pytest.raises(InvalidArgumentError, match="unexpected inference input 'c', allowed inputs are: a, b"):
        instance(context(add_sub, one + 'sequence_batching { control_input { name: "c" } }', name="bad"))
    with pytest.raises(
        InvalidArgumentError, match=r"configuration expects 1 inputs, model provides 2 \(not configured: b\)"
    ):
        instance(context(add_sub, one, name="few"))


def test_batch_inputs_have_the_models_datatype(add_sub: Any, context: Any, instance: Instance) -> None:
    config = """
        max_batch_size: 2
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        batch_input { target_name: "b" data_type: TYPE_INT32 source_input: "a" }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }"""
    message = "configuration expects datatype TYPE_INT32 for input 'b', model provides TYPE_FP32"
    with pytest.raises(InvalidArgumentError, match=message):
        instance(context(add_sub, config))


def test_ragged_inputs_cannot_be_optional(identity: Any, context: Any, instance: Instance) -> None:
    ragged = identity(shape=(None,))
    config = tensors("dims: [ -1 ] allow_ragged_batch: true", "dims: [ -1 ]")
    instance(context(ragged, config, name="fine"))
    overridable = onnx.ModelProto()
    overridable.CopyFrom(ragged)
    overridable.graph.initializer.append(helper.make_tensor("x", TensorProto.FLOAT, [1], [0]))
    optional = config.replace("allow_ragged_batch", "optional: true allow_ragged_batch")
    with pytest.raises(InvalidArgumentError, match="ragged input 'x', which is not supported for optional input"):
        instance(context(overridable, optional))


def test_the_model_does_not_tell_the_shape_of_a_scattered_output(
    identity: Any, context: Any, instance: Instance
) -> None:
    config = "max_batch_size: 4 " + tensors("dims: [ -1 ] allow_ragged_batch: true", "dims: [ -1, 2 ]")
    with pytest.raises(InvalidArgumentError, match="tensor 'y': the model expects 1 dimensions"):
        instance(context(identity(shape=(None,)), config))
    instance(context(identity(shape=(None,)), config + 'batch_output { target_name: "y" source_input: "x" }'))


def test_outputs_that_nobody_wants_are_left_out(add_sub: Any, context: Any, instance: Instance) -> None:
    config = """
        max_batch_size: 2
        input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
        input { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
        output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }"""
    instance(context(add_sub, config))


def test_text_in_and_bfloat16_out(build_model: Any, context: Any, instance: Instance) -> None:
    model = build_model(
        [helper.make_node("Identity", ["x"], ["z"]), helper.make_node("Identity", ["n"], ["y"])],
        {"x": (TensorProto.STRING, (1,)), "n": (TensorProto.BFLOAT16, (1,))},
        {"y": (TensorProto.BFLOAT16, (1,)), "z": (TensorProto.STRING, (1,))},
    )
    with pytest.raises(
        UnimplementedError, match="unable to load model 'm', it has both TYPE_STRING inputs and TYPE_BF16"
    ):
        instance(context(model))


def test_a_configured_type_that_no_request_can_carry(build_model: Any, context: Any, instance: Instance) -> None:
    float8 = (TensorProto.FLOAT8E4M3FN, (4,))
    model = build_model([helper.make_node("Identity", ["x"], ["y"])], {"x": float8}, {"y": float8}, opset=21)
    with pytest.raises(
        InvalidArgumentError, match=r"unable to load model 'm', unsupported type tensor\(float8e4m3fn\) for input 'x'"
    ):
        instance(context(model, tensors(x_type="TYPE_UINT8", y_type="TYPE_UINT8")))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('input_name: "c" output_name: "sum" data_type: TYPE_FP32', "unexpected inference input 'c'"),
        ('input_name: "b" output_name: "product" data_type: TYPE_FP32', "unexpected inference output 'product'"),
        ('input_name: "b" output_name: "sum" data_type: TYPE_FP16', "configuration expects datatype TYPE_FP16"),
    ],
)
def test_a_state_is_an_input_and_an_output_of_the_model(
    add_sub: Any, context: Any, instance: Instance, state: str, message: str
) -> None:
    tensors = (
        'input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] } output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }'
    )
    config = f"max_batch_size: 8 {tensors} sequence_batching {{ state {{ {state} dims: [ 4 ] }} }}"
    with pytest.raises(InvalidArgumentError, match=message):
        instance(context(add_sub, config))
