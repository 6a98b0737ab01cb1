"""Padded inputs and outputs that are cut back: what a model is given and answers, what a configuration says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.typing import NDArray
from trivet import datatypes
from trivet.batching import gather, split
from trivet.config import ModelConfig, find_problems
from trivet.config.spec import ModelSpec
from trivet.errors import InternalError
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor

IDS = {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1]}
MASK = {"name": "mask", "data_type": "TYPE_BOOL", "dims": [-1]}
IMAGE = {"name": "image", "data_type": "TYPE_FP32", "dims": [3, -1, -1]}
HIDDEN = {"name": "hidden", "data_type": "TYPE_FP32", "dims": [-1, 2]}
VECTOR = {"name": "vector", "data_type": "TYPE_FP32", "dims": [4]}


def config(pad: str | None, unpad: str | None = None, **fields: Any) -> ModelConfig:
    texts = {"dynamic_batching.pad": pad, "dynamic_batching.unpad": unpad}
    return ModelConfig(
        **{
            "name": "m",
            "max_batch_size": 8,
            "input": [IDS, MASK],
            "output": [VECTOR],
            "dynamic_batching": {},
            "parameters": {key: {"string_value": text} for key, text in texts.items() if text is not None},
            **fields,
        }
    )


def request(*, from_wire: bool = False, **arrays: NDArray[Any]) -> InferenceRequest:
    tensors = {name: Tensor.from_numpy(name, array) for name, array in arrays.items()}
    if from_wire:
        tensors = {name: Tensor.from_wire(name, t.datatype, t.shape, bytes(t.wire())) for name, t in tensors.items()}
    made = InferenceRequest("m", tensors)
    made.batch_size = next(iter(tensors.values())).shape[0]
    return made


def sequence(rows: int, length: int) -> dict[str, NDArray[Any]]:
    return {
        "ids": np.arange(1, 1 + rows * length, dtype=np.int64).reshape(rows, length),
        "mask": np.ones((rows, length), np.bool_),
    }


# --- what the model is given


@pytest.mark.parametrize("from_wire", [True, False])
def test_inputs_are_padded_at_the_end_to_the_largest_of_the_batch(from_wire: bool) -> None:
    spec = ModelSpec.from_config(config("ids=-7, mask=false"))
    requests = [request(from_wire=from_wire, **sequence(1, 2)), request(from_wire=from_wire, **sequence(2, 3))]
    inputs = gather(spec, requests, None)
    assert inputs["ids"].numpy().tolist() == [[1, 2, -7], [1, 2, 3], [4, 5, 6]]
    assert inputs["mask"].numpy().tolist() == [[True, True, False], [True] * 3, [True] * 3]
    assert inputs["ids"].datatype is datatypes.INT64


def test_a_request_that_is_alone_is_neither_padded_nor_copied() -> None:
    spec = ModelSpec.from_config(config("ids=0,mask=0"))
    arrays = sequence(2, 3)
    inputs = gather(spec, [request(**arrays)], None)
    assert all(inputs[name].numpy() is array for name, array in arrays.items())


def test_inputs_of_one_size_are_joined_as_ever() -> None:
    spec = ModelSpec.from_config(config("ids=9,mask=0"))
    inputs = gather(spec, [request(**sequence(1, 2)), request(**sequence(1, 2))], None)
    assert inputs["ids"].numpy().tolist() == [[1, 2], [1, 2]]


def test_shapes_that_differ_elsewhere_never_join() -> None:
    spec = ModelSpec.from_config(config("ids=0"))
    with pytest.raises(InternalError, match="different shapes of input 'mask'"):
        gather(spec, [request(**sequence(1, 2)), request(**sequence(1, 3))], None)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3).map(lambda size: (size[0] + 1, 3, *size[1:])), min_size=2))
def test_every_variable_axis_is_padded_and_nothing_else(shapes: list[tuple[int, ...]]) -> None:
    spec = ModelSpec.from_config(config("image=-inf", input=[IMAGE]))
    images = [np.random.default_rng(0).random(shape, np.float32) for shape in shapes]
    batch = gather(spec, [request(image=image) for image in images], None)["image"].numpy()
    assert batch.shape == (sum(shape[0] for shape in shapes), *np.max(shapes, axis=0)[1:])
    for image, rows in zip(images, np.split(batch, np.cumsum([shape[0] for shape in shapes])[:-1]), strict=True):
        inside = rows[tuple(map(slice, image.shape))]
        np.testing.assert_array_equal(inside, image)
        assert np.isneginf(rows).sum() == rows.size - image.size


def test_what_describes_a_batch_describes_what_the_requests_gave() -> None:
    described = {
        "kind": "BATCH_ELEMENT_COUNT",
        "target_name": ["lengths"],
        "data_type": "TYPE_INT32",
        "source_input": ["ids"],
    }
    spec = ModelSpec.from_config(config("ids=0", input=[IDS], batch_input=[described]))
    requests = [request(ids=np.ones((1, length), np.int64)) for length in (2, 5)]
    assert gather(spec, requests, None)["lengths"].numpy().tolist() == [2, 5]


def test_what_the_model_sees_is_reshaped_after_padding() -> None:
    reshaped = {**IDS, "reshape": {"shape": [-1, 1]}}
    spec = ModelSpec.from_config(config("ids=0", input=[reshaped]))
    requests = [request(ids=np.ones((1, length), np.int64)) for length in (1, 2)]
    assert gather(spec, requests, None)["ids"].numpy().tolist() == [[[1], [0]], [[1], [1]]]


# --- what comes back


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), min_size=1, max_size=5),
    nps.from_dtype(np.dtype(np.float32), allow_nan=False),
)
def test_what_comes_back_has_each_request_s_own_size(shapes: list[tuple[int, int]], noise: float) -> None:
    spec = ModelSpec.from_config(config("ids=0", "hidden.1=ids.1", input=[IDS], output=[HIDDEN, VECTOR]))
    requests = [request(ids=np.random.default_rng(0).integers(1, 9, shape)) for shape in shapes]
    ids = gather(spec, requests, None)["ids"].numpy()
    hidden = np.where(ids == 0, np.float32(noise), ids)[..., None].repeat(2, axis=2).astype(np.float32)
    vector = np.arange(4 * len(ids), dtype=np.float32).reshape(-1, 4)
    responses = split(spec, requests, {"hidden": hidden, "vector": vector})
    for asked, response in zip(requests, responses, strict=True):
        own, rows = response.outputs
        expected = asked.inputs["ids"].numpy()[..., None].repeat(2, axis=2)
        np.testing.assert_array_equal(own.numpy(), expected)
        assert bytes(own.wire()) == expected.astype(np.float32).tobytes()
        assert rows.shape == (asked.batch_size, 4)


def test_an_axis_that_is_kept_comes_back_as_the_model_made_it() -> None:
    spec = ModelSpec.from_config(config("ids=0", "hidden.1=keep", input=[IDS], output=[HIDDEN]))
    requests = [request(ids=np.ones((1, length), np.int64)) for length in (2, 5)]
    parts = [response.outputs[0] for response in split(spec, requests, {"hidden": np.ones((2, 3, 2), np.float32)})]
    assert [part.shape for part in parts] == [(1, 3, 2)] * 2


def test_an_output_that_was_not_padded_as_the_configuration_says_is_an_error() -> None:
    spec = ModelSpec.from_config(config("ids=0", "hidden.1=ids.1", input=[IDS], output=[HIDDEN]))
    requests = [request(ids=np.ones((1, length), np.int64)) for length in (2, 5)]
    with pytest.raises(InternalError, match=r"'hidden' has size 3 on axis 1 of a batch, expected 5.*'ids' was padded"):
        split(spec, requests, {"hidden": np.ones((2, 3, 2), np.float32)})


# --- what a configuration says


def padding_problems(given_config: ModelConfig) -> list[str]:
    return [problem.message for problem in find_problems(given_config) if problem.field.startswith("parameters")]


@pytest.mark.parametrize(
    ("data_type", "text", "value"),
    [
        ("TYPE_BOOL", "true", True),
        ("TYPE_UINT8", "255", 255),
        ("TYPE_INT64", "-9223372036854775808", -(2**63)),
        ("TYPE_FP16", "65504", 65504),
        ("TYPE_FP32", "-inf", -np.inf),
        ("TYPE_BF16", "1.0", 0x3F80),
    ],
)
def test_the_value_is_one_of_the_datatype(data_type: str, text: str, value: float) -> None:
    made = config(f"x={text}", input=[{"name": "x", "data_type": data_type, "dims": [-1]}])
    assert padding_problems(made) == []
    spec = ModelSpec.from_config(made)
    assert spec.layout is not None
    assert spec.layout.padding is not None
    assert spec.layout.padding.values["x"] == value
    assert spec.layout.padding.values["x"].dtype == spec.inputs["x"].datatype.numpy


@pytest.mark.parametrize(
    ("data_type", "text"),
    [
        ("TYPE_BOOL", "2"),
        ("TYPE_UINT8", "256"),
        ("TYPE_UINT8", "-1"),
        ("TYPE_INT32", "1.5"),
        ("TYPE_FP16", "65520"),
        ("TYPE_FP32", "none"),
        ("TYPE_BF16", "1.0001"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(data_type: str, text: str) -> None:
    made = config(f"x={text}", input=[{"name": "x", "data_type": data_type, "dims": [-1]}])
    [message] = padding_problems(made)
    assert f"pads input 'x' with '{text}', which is no value of {data_type.removeprefix('TYPE_')}" in message


@pytest.mark.parametrize(
    ("pad", "unpad", "fields", "expected"),
    [
        ("", None, {}, "is empty"),
        ("ids", None, {}, "has 'ids', expected INPUT=VALUE"),
        ("ids=0,", None, {}, "has '', expected INPUT=VALUE"),
        ("idz=0", None, {}, "names input 'idz'; the model's inputs are ['ids', 'mask']"),
        ("ids=0,ids=1", None, {}, "names input 'ids' more than once"),
        ("ids=0", None, {"input": [{**IDS, "data_type": "TYPE_STRING"}]}, "has strings"),
        ("ids=0", None, {"input": [{**IDS, "allow_ragged_batch": True}]}, "has 'allow_ragged_batch'"),
        ("ids=0", None, {"input": [{**IDS, "is_shape_tensor": True}]}, "is a shape tensor"),
        ("ids=0", None, {"input": [{**IDS, "dims": [4]}]}, "has no variable dimension, dims [4]"),
        ("ids=0", None, {"max_batch_size": 0}, "needs 'dynamic_batching'"),
        ("ids=0", None, {"dynamic_batching": None}, "needs 'dynamic_batching'"),
        (None, "hidden.1=ids.1", {}, "needs 'dynamic_batching.pad'"),
        ("ids=0", "hidden=ids.1", {}, "has 'hidden=ids.1', expected OUTPUT.AXIS=INPUT.AXIS or OUTPUT.AXIS=keep"),
        ("ids=0", "hiden.1=ids.1", {}, "names output 'hiden'; the model's outputs are ['vector']"),
        ("ids=0", "vector.1=ids.1", {}, "names axis 1 of output 'vector', which has no variable axis"),
        ("ids=0", "hidden.2=ids.1", {"output": [HIDDEN]}, "names axis 2 of output 'hidden', which has the variable"),
        ("ids=0", "hidden.0=ids.0", {"output": [HIDDEN]}, "names axis 0 of output 'hidden'"),
        ("ids=0", "hidden.1=mask.1", {"output": [HIDDEN]}, "names input 'mask'; 'dynamic_batching.pad' pads ['ids']"),
        (
            "ids=0",
            "hidden.1=ids.2",
            {"output": [HIDDEN]},
            "names axis 2 of input 'ids', which has the variable axes [1]",
        ),
        (
            "ids=0",
            "hidden.1=ids.1,hidden.1=keep",
            {"output": [HIDDEN]},
            "names axis 1 of output 'hidden' more than once",
        ),
        (
            "ids=0",
            "hidden.1=ids.1",
            {"output": [HIDDEN], "input": [{**IDS, "optional": True}]},
            "names input 'ids', which is optional",
        ),
        ("ids=0", None, {"output": [HIDDEN]}, "does not say whose size 'hidden.1' follows"),
    ],
)
def test_what_cannot_be_padded_is_refused(
    pad: str | None, unpad: str | None, fields: dict[str, Any], expected: str
) -> None:
    messages = padding_problems(config(pad, unpad, **fields))
    assert any(expected in message for message in messages), messages


def test_names_may_have_dots() -> None:
    tensors = {"input": [{**IDS, "name": "input.1"}], "output": [{**HIDDEN, "name": "out.0"}]}
    assert padding_problems(config("input.1=0", "out.0.1=input.1.1", **tensors)) == []


def test_a_model_that_says_nothing_of_padding_has_no_layout() -> None:
    assert ModelSpec.from_config(config(None)).layout is None
