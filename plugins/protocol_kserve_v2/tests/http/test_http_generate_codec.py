"""The JSON of the generate extension, both ways. As in Triton, what is of the wrong kind is an internal error."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor
from trivet_protocol_kserve_v2.codec.generate_request import decode_generate
from trivet_protocol_kserve_v2.codec.generate_response import (
    encode_error,
    encode_event,
    encode_generated,
    only_ends,
)

NO_PARAMETER = "parameter 'x' has invalid type. It should be either 'int', 'bool', or 'string'."
INT32, FP32, STRING, FP16, BOOL = 8, 11, 13, 10, 1


def model(max_batch_size: int = 0, decoupled: bool = False, **inputs: tuple[int, list[int]]) -> ModelSpec:
    config = ModelConfig(name="m", max_batch_size=max_batch_size)
    config.model_transaction_policy.decoupled = decoupled
    for name, (data_type, dims) in inputs.items():
        config.input.add(name=name, data_type=data_type, dims=dims)
    return ModelSpec.from_config(config)


SPEC = model(text_input=(STRING, [1]), n=(INT32, [1]), xy=(FP32, [-1, 2]), flags=(BOOL, [-1]), half=(FP16, [-1]))


def decode(document: Any, spec: ModelSpec = SPEC) -> InferenceRequest:
    return decode_generate(document if isinstance(document, bytes) else json.dumps(document).encode(), spec)


class TestRequest:
    def test_what_is_an_input_and_what_is_a_parameter(self) -> None:
        request = decode({"text_input": "hi", "n": 3, "temperature": 0.5, "stop": "x", "stream": True, "top_k": 2})

        assert {name: tensor.numpy().tolist() for name, tensor in request.inputs.items()} == {
            "text_input": [b"hi"],
            "n": [3],
        }
        assert request.parameters == {"temperature": 0.5, "stop": "x", "stream": True, "top_k": 2}
        assert request.outputs is None

    def test_parameters_may_be_in_an_object_of_their_own(self) -> None:
        request = decode({"parameters": {"text_input": "hi", "top_k": 2}, "stop": "x"})

        assert request.inputs["text_input"].numpy().tolist() == [b"hi"]
        assert request.parameters == {"top_k": 2, "stop": "x"}

    def test_the_id_is_a_parameter_too(self) -> None:
        request = decode({"id": "q7"})
        assert (request.id, request.parameters) == ("q7", {"id": "q7"})

    def test_an_id_among_the_parameters_is_no_id(self) -> None:
        request = decode({"parameters": {"id": "q7"}})
        assert (request.id, request.parameters) == ("", {"id": "q7"})

    def test_words_of_the_inference_protocol_mean_nothing_here(self) -> None:
        words = {
            "sequence_id": 5,
            "sequence_start": True,
            "sequence_end": 1,
            "priority": -2,
            "timeout": "soon",
            "binary_data_output": True,
            "triton_enable_empty_final_response": True,
        }
        request = decode(words)

        assert request.parameters == words
        assert (request.correlation_id, request.sequence_start, request.priority, request.timeout_us) == (
            0,
            False,
            0,
            0,
        )

    @pytest.mark.parametrize(
        ("dims", "max_batch_size", "value", "shape"),
        [
            ([1], 0, 1, (1,)),
            ([1], 4, 1, (1, 1)),
            ([1], 4, [1, 2, 3], (3, 1)),
            ([-1], 4, [1, 2, 3], (1, 3)),
            ([-1, -1], 0, [1, 2, 3], (1, 3)),
            ([-1, 3], 0, [1, 2, 3], (1, 3)),
            ([3, -1], 0, [1, 2, 3], (3, 1)),
            ([2, -1, 2], 0, [1, 2, 3, 4, 5, 6, 7, 8], (2, 2, 2)),
            ([-1], 0, [], (0,)),
            ([-1, -1], 0, [], (1, 0)),
            ([2], 0, [1, [2]], (2,)),
            ([], 0, 5, ()),
        ],
    )
    def test_elements_find_their_shape(
        self, dims: list[int], max_batch_size: int, value: Any, shape: tuple[int, ...]
    ) -> None:
        tensor = decode({"x": value}, model(max_batch_size, x=(INT32, dims))).inputs["x"]
        assert tensor.shape == shape
        assert tensor.numpy().shape == shape

    @pytest.mark.parametrize(
        ("document", "error", "message"),
        [
            (b"", InternalError, "failed to parse the request JSON buffer: The document is empty. at 0"),
            ([], InternalError, "attempt to get members for non-object"),
            (None, InternalError, "attempt to get members for non-object"),
            ({"id": 7}, InternalError, "Unable to parse 'id': attempt to access JSON non-string as string"),
            (
                {"parameters": [1]},
                InternalError,
                "Expected JSON object for keyword: 'parameters': attempt to access JSON non-object as object",
            ),
            (
                {"parameters": {"x": [1]}},
                InvalidArgumentError,
                f"Converting keyword: 'parameters': {NO_PARAMETER}",
            ),
            (
                {"n": 1, "parameters": {"n": 2}},
                InvalidArgumentError,
                "Converting keyword: 'parameters': [request id: <id_unknown>] input 'n' already exists in request",
            ),
            (
                {"x": None},
                InvalidArgumentError,
                NO_PARAMETER,
            ),
            (
                {"n": [1, 2]},
                InvalidArgumentError,
                "The schema can not convert input 'n' to tensor with proper shape",
            ),
            ({"n": []}, InvalidArgumentError, "The schema can not convert input 'n' to tensor with proper shape"),
            (
                {"n": 1.5},
                InternalError,
                "Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer",
            ),
            ({"flags": 1}, InternalError, "Unable to parse 'data': attempt to access JSON non-boolean as boolean"),
            (
                {"xy": [[1, 2], [3, 4]]},
                InternalError,
                "Unable to parse 'data': Shape does not match true shape of 'data' field",
            ),
            (
                {"text_input": ["a", 1]},
                InternalError,
                "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
            ),
            (
                {"half": []},
                InvalidArgumentError,
                "receiving FP16 data via JSON is not supported. Please use the binary data format for input half",
            ),
        ],
    )
    def test_refused(self, document: Any, error: type[TrivetError], message: str) -> None:
        with pytest.raises(error) as caught:
            decode(document)
        assert str(caught.value) == message

    def test_an_input_named_parameters(self) -> None:
        with pytest.raises(InvalidArgumentError, match="'parameters' for nested schema also given as input tensor"):
            decode({"parameters": {}}, model(parameters=(INT32, [1])))


def answer(*outputs: Tensor, id: str = "", **parameters: Any) -> Any:
    request = InferenceRequest("m", {}, id=id)
    request.model = SimpleNamespace(name="m", version=3, spec=SPEC)  # type: ignore[assignment]
    encoded = encode_generated(request, InferenceResponse(outputs, parameters=parameters))
    return json.loads(encoded.decode("utf-8", "surrogateescape"))


class TestResponse:
    def test_one_element_stands_for_itself_and_others_are_flat_lists(self) -> None:
        outputs = [
            Tensor.from_numpy("one", np.array([[7]], np.int64)),
            Tensor.from_numpy("many", np.array([[1, 2], [3, 4]], np.int32)),
            Tensor.from_numpy("none", np.zeros((0, 4), np.float32)),
            Tensor.from_numpy("scalar", np.array(1.5, np.float64)),
        ]
        assert answer(*outputs) == {
            "many": [1, 2, 3, 4],
            "model_name": "m",
            "model_version": "3",
            "none": [],
            "one": 7,
            "scalar": 1.5,
        }

    def test_names_come_sorted_and_the_protocols_win(self) -> None:
        outputs = [Tensor.from_numpy(name, np.array([1], np.int8)) for name in ("z", "id", "model_name", "p")]
        document = answer(*outputs, id="q", p=True, a="text")

        assert document == {"a": "text", "id": "q", "model_name": "m", "model_version": "3", "p": True, "z": 1}
        assert list(document) == sorted(document)

    def test_text_that_is_not_utf8_goes_out_as_it_is(self) -> None:
        text = Tensor.from_numpy("text", np.array([b"\xc3"], np.object_))
        assert answer(text, id="\udcff") == {"id": "\udcff", "model_name": "m", "model_version": "3", "text": "\udcc3"}

    def test_what_json_does_not_carry(self) -> None:
        with pytest.raises(InvalidArgumentError, match="sending FP16 data via JSON is not supported"):
            answer(Tensor.from_numpy("half", np.zeros(1, np.float16)))

    def test_an_event(self) -> None:
        assert encode_event(encode_error(InternalError("no\n\nmore"))) == b'data: {"error":"no\\n\\nmore"}\n\n'

    @pytest.mark.parametrize("decoupled", [True, False])
    def test_only_the_end_of_a_decoupled_answer_makes_no_object(self, decoupled: bool) -> None:
        request = InferenceRequest("m", {})
        request.model = SimpleNamespace(spec=model(decoupled=decoupled))  # type: ignore[assignment]

        assert only_ends(request, InferenceResponse()) is decoupled
        assert not only_ends(request, InferenceResponse(final=False))
        assert not only_ends(request, InferenceResponse(error=InternalError("x")))
        assert not only_ends(request, InferenceResponse([Tensor.from_numpy("x", np.zeros(1))]))


ELEMENTS = {
    datatypes.INT32: st.integers(-(2**31), 2**31 - 1),
    datatypes.UINT8: st.integers(0, 255),
    datatypes.BOOL: st.booleans(),
    datatypes.FP64: st.floats(allow_nan=False),
    datatypes.BYTES: st.text(max_size=5),
}


@given(st.data())
def test_what_goes_in_comes_out(data: st.DataObject) -> None:
    """An input echoed under its own name is the value that the caller gave."""
    datatype = data.draw(st.sampled_from(list(ELEMENTS)))
    value = data.draw(ELEMENTS[datatype] | st.lists(ELEMENTS[datatype], max_size=8))
    config_value = {v: k for k, v in datatypes.BY_CONFIG_VALUE.items()}[datatype]
    tensor = decode({"x": value}, model(x=(config_value, [-1]))).inputs["x"]

    echoed = answer(tensor)["x"]

    assert echoed == (value[0] if isinstance(value, list) and len(value) == 1 else value)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["id", "parameters", *SPEC.inputs, "other"]), ODD))
def test_documents_with_anything_anywhere(document: Any) -> None:
    with contextlib.suppress(TrivetError):
        decode(document)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    with contextlib.suppress(TrivetError):
        decode(body)


@given(st.lists(st.integers(0, 4) | st.just(-1), max_size=4), st.integers(0, 24))
def test_a_shape_holds_all_elements_or_is_refused(dims: list[int], count: int) -> None:
    with contextlib.suppress(InvalidArgumentError):
        tensor = decode({"x": [1] * count}, model(x=(INT32, dims))).inputs["x"]
        assert tensor.numpy().size == count
        assert all(dim in {size, -1} for size, dim in zip(tensor.shape, dims, strict=True))
