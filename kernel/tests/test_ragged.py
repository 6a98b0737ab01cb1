"""Ragged inputs, inputs that describe a batch, scattered outputs, shape tensors: what a model is given, and what comes
back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.batching import gather, split
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor

X = {"name": "x", "data_type": "TYPE_FP32", "dims": [-1], "allow_ragged_batch": True}
Y = {"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec.from_config(
        ModelConfig(**{"name": "m", "max_batch_size": 8, "input": [X], "output": [Y], **fields})
    )


def described(kind: str, data_type: str = "TYPE_INT32", source: str = "x") -> dict[str, Any]:
    return {"kind": kind, "target_name": ["D", "E"], "data_type": data_type, "source_input": [source]}


def request(*, from_wire: bool = False, **arrays: Any) -> InferenceRequest:
    tensors = {name: Tensor.from_numpy(name, np.asarray(array)) for name, array in arrays.items()}
    if from_wire:
        tensors = {name: Tensor.from_wire(name, t.datatype, t.shape, bytes(t.wire())) for name, t in tensors.items()}
    made = InferenceRequest("m", tensors)
    made.batch_size = next(iter(tensors.values())).shape[0]
    return made


def rows(batch: int, count: int) -> np.ndarray:
    return np.arange(batch * count, dtype=np.float32).reshape(batch, count)


REQUESTS = (rows(1, 3), rows(2, 4), rows(1, 0), rows(1, 5))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("from_wire", [True, False])
def test_a_ragged_input_is_one_dimensional_however_many_requests_there_are(count: int, from_wire: bool) -> None:
    arrays = REQUESTS[:count]
    inputs = gather(spec(), [request(from_wire=from_wire, x=array) for array in arrays], None)
    assert inputs["x"].shape == (sum(array.size for array in arrays),)
    assert inputs["x"].numpy().tolist() == [value for array in arrays for value in array.reshape(-1).tolist()]


def test_a_ragged_input_of_one_request_is_not_copied() -> None:
    array = rows(2, 4)
    assert np.shares_memory(gather(spec(), [request(x=array)], None)["x"].numpy(), array)


def test_ragged_text_is_concatenated_by_element() -> None:
    texts = {"name": "x", "data_type": "TYPE_STRING", "dims": [-1], "allow_ragged_batch": True}
    requests = [request(x=np.array([[b"a", b"b\0"]], object)), request(from_wire=True, x=np.array([[b"ccc"]], object))]
    assert gather(spec(input=[texts]), requests, None)["x"].numpy().tolist() == [b"a", b"b\0", b"ccc"]


def test_inputs_that_are_not_ragged_keep_their_rows() -> None:
    both = spec(input=[X, {"name": "z", "data_type": "TYPE_FP32", "dims": [2]}])
    inputs = gather(both, [request(x=array, z=rows(len(array), 2)) for array in REQUESTS], None)
    assert inputs["z"].shape == (5, 2)
    assert inputs["x"].shape == (3 + 8 + 0 + 5,)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BATCH_ELEMENT_COUNT", [3, 8, 0, 5]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [3, 11, 11, 16]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 3, 11, 11, 16]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0] * 8),
        ("BATCH_ITEM_SHAPE", [[3], [4], [4], [0], [5]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [3, 4, 4, 0, 5]),
    ],
)
@pytest.mark.parametrize(("data_type", "dtype"), [("TYPE_INT32", np.int32), ("TYPE_FP32", np.float32)])
def test_a_batch_is_described_to_the_model(kind: str, values: list[Any], data_type: str, dtype: type) -> None:
    described_spec = spec(batch_input=[described(kind, data_type)])
    inputs = gather(described_spec, [request(x=array) for array in REQUESTS], None)
    assert set(inputs) == {"x", "D", "E"}
    for target in "DE":
        array = inputs[target].numpy()
        assert array.dtype == dtype
        assert array.tolist() == values


def test_item_shapes_have_all_dimensions_but_the_batch() -> None:
    planes = {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, -1], "allow_ragged_batch": True}
    requests = [request(x=np.zeros((2, 1, 3), np.float32)), request(x=np.zeros((1, 4, 5), np.float32))]
    for kind, values in (
        ("BATCH_ITEM_SHAPE", [[1, 3], [1, 3], [4, 5]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [1, 3, 1, 3, 4, 5]),
    ):
        inputs = gather(spec(input=[planes], batch_input=[described(kind)]), requests, None)
        assert inputs["D"].numpy().tolist() == values


def test_accumulated_counts_are_exact_in_floating_point() -> None:
    big = 2**24 + 1
    # Without memory: only their shapes are read.
    one = Tensor.from_dlpack("x", None, datatypes.FP32, (1, 1))  # type: ignore[arg-type]
    many = Tensor.from_dlpack("x", None, datatypes.FP32, (1, big))  # type: ignore[arg-type]
    plain = {**X, "allow_ragged_batch": False, "is_shape_tensor": True}
    kind = described("BATCH_ACCUMULATED_ELEMENT_COUNT", "TYPE_FP32")
    requests = [InferenceRequest("m", {"x": tensor}) for tensor in (many, one, one)]
    values = gather(spec(input=[plain], batch_input=[kind]), requests, None)["D"].numpy()
    assert values.tolist() == [np.float32(big), np.float32(big + 1), np.float32(big + 2)]


def test_reshaped_inputs_are_described_as_the_model_sees_them() -> None:
    reshaped = {**X, "reshape": {"shape": [1, -1]}}
    inputs = gather(spec(input=[reshaped], batch_input=[described("BATCH_ITEM_SHAPE")]), [request(x=rows(2, 3))], None)
    assert inputs["D"].numpy().tolist() == [[1, 3], [1, 3]]


def test_an_optional_input_that_a_batch_is_described_by_must_be_there() -> None:
    optional = spec(input=[{**X, "optional": True}, {**X, "name": "z"}], batch_input=[described("BATCH_ELEMENT_COUNT")])
    with pytest.raises(InvalidArgumentError, match="input 'x' is missing, and model 'm' needs its shape"):
        gather(optional, [request(z=rows(1, 2))], None)


def test_an_optional_input_that_nobody_gives_is_absent() -> None:
    optional = spec(input=[{**X, "optional": True}, {**X, "name": "z"}])
    assert set(gather(optional, [request(z=rows(1, 2)), request(z=rows(1, 3))], None)) == {"z"}


SCATTER = [{"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}]


@pytest.mark.parametrize("shape", [(16,), (1, 16), (4, 4)])
def test_scattered_outputs_have_the_shapes_of_an_input(shape: tuple[int, ...]) -> None:
    requests = [request(x=array) for array in REQUESTS]
    results = np.arange(16, dtype=np.float32).reshape(shape)
    responses = split(spec(batch_output=SCATTER), requests, {"y": results})
    assert [response.outputs[0].shape for response in responses] == [array.shape for array in REQUESTS]
    values = [response.outputs[0].numpy().reshape(-1).tolist() for response in responses]
    assert values == [[0, 1, 2], [3, 4, 5, 6, 7, 8, 9, 10], [], [11, 12, 13, 14, 15]]
    assert np.shares_memory(responses[1].outputs[0].numpy(), results)


def test_a_scattered_output_has_fixed_dimensions_of_its_own() -> None:
    wide = {"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 2]}
    requests = [request(x=array) for array in REQUESTS]
    responses = split(spec(output=[wide], batch_output=SCATTER), requests, {"y": np.zeros((16, 2), np.float32)})
    assert [response.outputs[0].shape for response in responses] == [(1, 3, 2), (2, 4, 2), (1, 0, 2), (1, 5, 2)]


def test_a_scattered_output_that_is_too_small_is_named() -> None:
    with pytest.raises(InternalError, match=r"'y' of model 'm' has 15 elements .*, and the batch needs 16"):
        split(spec(batch_output=SCATTER), [request(x=array) for array in REQUESTS], {"y": np.zeros(15, np.float32)})


def test_a_scattered_output_with_more_dimensions_than_its_input_is_named() -> None:
    deep = {"name": "y", "data_type": "TYPE_FP32", "dims": [-1, -1]}
    with pytest.raises(InternalError, match="'y' of model 'm' has more dimensions"):
        split(spec(output=[deep], batch_output=SCATTER), [request(x=rows(1, 2))], {"y": np.zeros(4, np.float32)})


def test_outputs_of_a_ragged_model_that_are_not_scattered_are_rows() -> None:
    requests = [request(x=array) for array in REQUESTS]
    responses = split(spec(), requests, {"y": np.arange(5, dtype=np.float32).reshape(5, 1)})
    assert [response.outputs[0].numpy().tolist() for response in responses] == [[[0]], [[1], [2]], [[3]], [[4]]]
    with pytest.raises(InternalError, match="expected a first dimension of 5"):
        split(spec(), requests, {"y": np.zeros((4, 1), np.float32)})


def test_shape_tensors_are_the_same_for_all_and_have_no_rows() -> None:
    sizes = {"name": "s", "data_type": "TYPE_INT32", "dims": [2], "is_shape_tensor": True}
    shaped = spec(
        input=[{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}, sizes],
        output=[{"name": "y", "data_type": "TYPE_INT32", "dims": [2], "is_shape_tensor": True}],
    )
    requests = [request(x=rows(batch, 3), s=np.array([4, 5], np.int32)) for batch in (1, 2)]
    inputs = gather(shaped, requests, None)
    assert inputs["x"].shape == (3, 3)
    assert inputs["s"].numpy().tolist() == [4, 5]
    responses = split(shaped, requests, {"y": np.array([6, 7], np.int32)})
    assert [response.outputs[0].numpy().tolist() for response in responses] == [[6, 7], [6, 7]]


def test_models_that_use_none_of_it_have_no_layout() -> None:
    assert spec(input=[{**X, "allow_ragged_batch": False}]).layout is None


ragged_arrays = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 6)).map(
        lambda shape: np.random.default_rng(0).random(shape, np.float32)
    ),
    min_size=1,
    max_size=8,
)


def _segment_sums(inputs: dict[str, Tensor]) -> np.ndarray:
    """What a real ragged model computes: per entry of the batch, from flat values and the shapes of the entries."""
    values, lengths = inputs["x"].numpy(), inputs["D"].numpy()
    ends = np.cumsum(lengths)
    return np.array([[values[end - length : end].sum()] for end, length in zip(ends, lengths, strict=True)], np.float32)


@given(ragged_arrays, st.booleans())
def test_a_ragged_batch_gives_each_request_what_it_gets_alone(arrays: list[np.ndarray], from_wire: bool) -> None:
    model = spec(
        output=[Y, {"name": "sum", "data_type": "TYPE_FP32", "dims": [1]}],
        batch_input=[described("BATCH_ITEM_SHAPE_FLATTEN")],
        batch_output=SCATTER,
    )

    def execute(requests: list[InferenceRequest]) -> list[list[list[float]]]:
        inputs = gather(model, requests, None)
        results = {"y": inputs["x"].numpy() * 2, "sum": _segment_sums(inputs)}
        return [[out.numpy().tolist() for out in answer.outputs] for answer in split(model, requests, results)]

    requests = [request(from_wire=from_wire, x=array) for array in arrays]
    assert execute(requests) == [execute([alone])[0] for alone in requests]
