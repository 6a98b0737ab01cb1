"""What a request must look like, and what is said when it does not. The messages are Triton's."""

import numpy as np
import pytest
from trivet import datatypes
from trivet.config.spec import ModelSpec, TensorSpec
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest, RequestedOutput
from trivet.tensor import Tensor
from trivet.validation import validate


def spec(*inputs: TensorSpec, max_batch_size: int = 8) -> ModelSpec:
    outputs = {"y": TensorSpec("y", datatypes.FP32, (2,))}
    nothing: frozenset[str] = frozenset()
    return ModelSpec("m", {i.name: i for i in inputs}, outputs, ("y",), max_batch_size, False, nothing, nothing)


X = TensorSpec("x", datatypes.FP32, (2,))
OPTIONAL = TensorSpec("o", datatypes.FP32, (2,), optional=True)


def check(model: ModelSpec, *arrays: tuple[str, np.ndarray], id: str = "", outputs: list[str] | None = None) -> int:
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    request = InferenceRequest("m", {n: Tensor.from_numpy(n, a) for n, a in arrays}, id=id, outputs=wanted)
    validate(model, request)
    return request.batch_size


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_a_good_request_gets_its_batch_size() -> None:
    assert check(spec(X), ("x", floats(3, 2))) == 3
    assert check(spec(X, max_batch_size=0), ("x", floats(2))) == 1


def test_an_optional_input_may_be_left_out() -> None:
    assert check(spec(X, OPTIONAL), ("x", floats(1, 2))) == 1


def test_any_size_fits_a_variable_dimension() -> None:
    assert check(spec(TensorSpec("x", datatypes.FP32, (-1,))), ("x", floats(1, 7))) == 1


@pytest.mark.parametrize(
    ("model", "arrays", "message"),
    [
        (
            spec(X),
            [],
            r"expected 1 inputs but got 0 inputs for model 'm'. Got input\(s\) \[\], but missing required input",
        ),
        (spec(X), [("a", floats(1, 2))], "unexpected inference input 'a' for model 'm'"),
        (
            spec(X, OPTIONAL),
            [(n, floats(1, 2)) for n in "abc"],
            "expected number of inputs between 1 and 2 but got 3 inputs",
        ),
        (spec(X), [("x", np.zeros((1, 2)))], "inference input 'x' data-type is 'FP64', but model 'm' expects 'FP32'"),
        (spec(X), [("x", floats(9, 2))], "inference request batch-size must be <= 8 for 'm'"),
        (
            spec(X),
            [("x", floats(1, 3))],
            r"unexpected shape for input 'x' for model 'm'. Expected \[-1,2\], got \[1,3\]",
        ),
        (spec(X, max_batch_size=0), [("x", floats(3))], r"Expected \[2\], got \[3\]. $"),
        (spec(X), [("x", floats())], "input 'x' has no shape but model requires batch dimension for 'm'"),
        (
            spec(X, OPTIONAL),
            [("x", floats(1, 2)), ("o", floats(2, 2))],
            "input 'o' batch size does not match other inputs for 'm'",
        ),
    ],
)
def test_what_is_wrong_is_named(model: ModelSpec, arrays: list[tuple[str, np.ndarray]], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        check(model, *arrays)


def test_messages_carry_the_request_id() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^\[request id: abc\] "):
        check(spec(X), ("x", floats(1, 3)), id="abc")
    with pytest.raises(InvalidArgumentError, match=r"^\[request id: <id_unknown>\] "):
        check(spec(X), ("x", floats(1, 3)))


def test_unknown_outputs_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="unexpected inference output 'nope' for model 'm'"):
        check(spec(X), ("x", floats(1, 2)), outputs=["y", "nope"])


def test_bytes_on_the_wire_must_be_as_many_as_the_shape_says() -> None:
    request = InferenceRequest("m", {"x": Tensor.from_wire("x", datatypes.FP32, (1, 2), bytes(7))})
    with pytest.raises(InvalidArgumentError, match="Expected 8, got 7"):
        validate(spec(X), request)
