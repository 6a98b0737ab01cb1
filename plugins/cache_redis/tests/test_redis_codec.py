"""A response becomes a value and comes back; a value that is none is told from one."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor, element_count
from trivet_cache_redis.codec import MAGIC, CorruptEntryError, decode, encode


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(datatypes.ALL))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = element_count(shape)
    name = draw(st.text(max_size=5))
    if datatype is datatypes.BYTES:
        array = np.empty(count, np.object_)
        array[:] = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        return Tensor.from_numpy(name, array.reshape(shape))
    size = count * datatype.itemsize
    return Tensor.from_wire(name, datatype, shape, draw(st.binary(min_size=size, max_size=size)))


responses = st.builds(
    lambda outputs, parameters: InferenceResponse(outputs, parameters=parameters),
    st.lists(tensors(), max_size=3),
    st.dictionaries(
        st.text(max_size=5),
        st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(max_size=5),
        max_size=3,
    ),
)


def written_down(response: InferenceResponse) -> object:
    outputs = [(one.name, one.datatype, one.shape, bytes(one.wire())) for one in response.outputs]
    return outputs, {name: (type(value), value) for name, value in response.parameters.items()}


@given(responses)
def test_what_was_encoded_is_decoded(response: InferenceResponse) -> None:
    assert written_down(decode(encode(response))) == written_down(response)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(MAGIC.__add__))
def test_anything_else_is_corrupt(value: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        decode(value)


@given(responses, st.data())
def test_a_value_that_was_cut_off_or_went_on_is_corrupt(response: InferenceResponse, data: st.DataObject) -> None:
    value = encode(response)
    with pytest.raises(CorruptEntryError):
        decode(value[: data.draw(st.integers(0, len(value) - 1))])
    with pytest.raises(CorruptEntryError):
        decode(value + b"\0")


@given(responses, st.data())
def test_a_changed_byte_gives_a_response_or_is_corrupt(response: InferenceResponse, data: st.DataObject) -> None:
    value = bytearray(encode(response))
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        for output in decode(bytes(value)).outputs:
            output.numpy()
    except CorruptEntryError:
        pass


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"outputs": 1, "parameters": {}}).encode(),
        json.dumps({"outputs": [], "parameters": []}).encode(),
        json.dumps({"outputs": [], "parameters": {"p": None}}).encode(),
        json.dumps({"outputs": [["y", "FP32", [1], 4]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", "FP32", [-1], -4]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", "FP32", [0.5], 2]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", "FP32", [True], 4]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", "FP31", [0], 0]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", {}, [0], 0]], "parameters": {}}).encode(),
        json.dumps({"outputs": [[1, "FP32", [0], 0]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", "FP32", [2**40, 2**40], 0]], "parameters": {}}).encode(),
        json.dumps({"outputs": [["y", "BYTES", [2**40], 0]], "parameters": {}}).encode(),
    ],
)
def test_a_hostile_header_is_corrupt(header: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        decode(MAGIC + struct.pack("<I", len(header)) + header)


def test_a_later_format_is_left_alone() -> None:
    value = encode(InferenceResponse())
    with pytest.raises(CorruptEntryError, match="begins with"):
        decode(b"TRV\x02" + value[4:])
