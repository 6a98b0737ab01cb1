"""Encoding inference responses, and both directions of the codec against each other."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from host_regions import HostRegions
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from trivet import datatypes
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.datatypes import BF16, BYTES
from trivet.errors import InternalError, InvalidArgumentError, NotFoundError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor, object_array
from trivet_protocol_kserve_v2.codec.json_request import decode_request
from trivet_protocol_kserve_v2.codec.json_response import encode_response
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory

CONFIG = ModelConfig(name="m", max_batch_size=0)
CONFIG.input.add(name="x", data_type=11, dims=[-1])
SPEC = ModelSpec.from_config(CONFIG)


def model(max_batch_size: int = 0, labels: Mapping[str, list[str]] | None = None) -> Any:
    """As much of a loaded model as the codec looks at."""
    spec = ModelSpec.from_config(ModelConfig(name="m", max_batch_size=max_batch_size))
    return SimpleNamespace(name="m", version=3, spec=spec, labels=labels or {})


def request_for(served_by: Any = None, **document: Any) -> InferenceRequest:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0]}]
    request = decode_request(json.dumps({"inputs": inputs, **document}).encode(), None, SPEC)
    request.model = served_by or model()
    return request


def answer(request: InferenceRequest, *outputs: Tensor, **fields: Any) -> tuple[Any, bytes]:
    """The JSON and the binary part of a response."""
    encoded = encode_response(request, InferenceResponse(outputs, **fields))
    body = b"".join(encoded.buffers)
    size = encoded.json_size or len(body)
    return json.loads(body[:size]), body[size:]


def array(*values: float, dtype: Any = np.float32) -> Tensor:
    return Tensor.from_numpy("y", np.array(values, dtype))


BINARY = {"parameters": {"binary_data_output": True}}


class TestDocument:
    def test_fields(self) -> None:
        document, binary = answer(request_for(id="abc"), array(1, 2), parameters={"flag": True, "ratio": 0.5})
        assert document == {
            "id": "abc",
            "model_name": "m",
            "model_version": "3",
            "parameters": {"flag": True, "ratio": 0.5},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}],
        }
        assert list(document) == ["id", "model_name", "model_version", "parameters", "outputs"]
        assert binary == b""

    def test_an_empty_id_is_left_out(self) -> None:
        document, _ = answer(request_for(id=""), array(1))
        assert "id" not in document

    def test_binary_parts_follow_in_order(self) -> None:
        first = Tensor.from_numpy("a", np.array([1, 2], np.int16))
        empty = Tensor.from_numpy("b", np.zeros((0, 2), np.float64))
        last = Tensor.from_numpy("c", object_array([b"xyz"], (1,)))
        document, binary = answer(request_for(**BINARY), first, empty, last)
        assert [output["parameters"]["binary_data_size"] for output in document["outputs"]] == [4, 0, 7]
        assert binary == struct.pack("<hh", 1, 2) + struct.pack("<I", 3) + b"xyz"

    def test_each_output_as_it_was_asked_for(self) -> None:
        outputs = [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]
        tensors = [Tensor.from_numpy(name, np.array([1], np.int8)) for name in ("a", "b")]
        document, binary = answer(request_for(outputs=outputs, **BINARY), *tensors)
        assert document["outputs"][0]["parameters"] == {"binary_data_size": 1}
        assert document["outputs"][1]["data"] == [1]
        assert binary == b"\x01"

    def test_large_tensors_are_not_copied(self) -> None:
        values = np.zeros(1000, np.float32)
        encoded = encode_response(request_for(**BINARY), InferenceResponse([Tensor.from_numpy("y", values)]))
        assert len(encoded.buffers) == 2
        assert np.shares_memory(np.frombuffer(encoded.buffers[1], np.float32), values)

    def test_an_error_is_raised(self) -> None:
        error = InternalError("broken")
        with pytest.raises(InternalError, match=r"^broken$"):
            encode_response(request_for(), InferenceResponse(error=error))


class TestJsonData:
    def test_fp32_has_the_digits_of_a_double(self) -> None:
        encoded = encode_response(request_for(), InferenceResponse([array(0.1)]))
        assert b'"data":[0.10000000149011612]' in b"".join(encoded.buffers)

    def test_numbers_that_json_lacks(self) -> None:
        encoded = encode_response(request_for(), InferenceResponse([array(math.nan, math.inf, -math.inf, 1)]))
        assert b'"data":[NaN,Infinity,-Infinity,1.0]' in b"".join(encoded.buffers)

    def test_rows_of_any_layout_come_in_order(self) -> None:
        values = np.arange(6, dtype=np.int32).reshape(2, 3).T
        document, _ = answer(request_for(), Tensor.from_numpy("y", values))
        assert document["outputs"][0]["data"] == [0, 3, 1, 4, 2, 5]

    def test_text_that_is_not_utf8_goes_as_it_is(self) -> None:
        request = decode_request(
            b'{"id":"\xff","inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[0]}]}', None, SPEC
        )
        request.model = model()
        response = InferenceResponse([Tensor.from_numpy("y", object_array([b'\xfe"', b"a"], (2,)))])
        body = b"".join(encode_response(request, response).buffers)
        assert body.startswith(b'{"id":"\xff","model_name":"m"')
        assert body.endswith(b'"data":["\xfe\\"","a"]}]}')

    @pytest.mark.parametrize("datatype", ["FP16", "BF16"])
    def test_datatypes_without_a_json_form(self, datatype: str) -> None:
        tensor = Tensor.from_wire("y", datatypes.BY_NAME[datatype], (1,), bytes(2))
        with pytest.raises(InvalidArgumentError, match=f"^sending {datatype} data via JSON is not supported"):
            answer(request_for(), tensor)


class TestClassification:
    def classes(self, tensor: Tensor, count: int, served_by: Any) -> Any:
        request = request_for(served_by, outputs=[{"name": "y", "parameters": {"classification": count}}])
        document, _ = answer(request, tensor)
        (output,) = document["outputs"]
        assert output["datatype"] == "BYTES"
        return output["shape"], output["data"]

    def test_highest_first_with_labels(self) -> None:
        labelled = model(labels={"y": ["ant", "bee"]})
        assert self.classes(array(0.1, 0.9, 0.5), 5, labelled) == (
            [3],
            ["0.900000:1:bee", "0.500000:2", "0.100000:0:ant"],
        )

    def test_each_batch_entry_by_itself(self) -> None:
        scores = Tensor.from_numpy("y", np.array([[1, 2, 3], [9, 8, 7]], np.int32))
        assert self.classes(scores, 2, model(max_batch_size=8)) == ([2, 2], ["3:2", "2:1", "9:0", "8:1"])

    def test_all_dimensions_are_classes_where_nothing_is_batched(self) -> None:
        scores = Tensor.from_numpy("y", np.array([[1, 2], [4, 3]], np.uint8))
        assert self.classes(scores, 3, model()) == ([3], ["4:2", "3:3", "2:1"])

    def test_equal_scores_keep_their_order_and_nan_is_last(self) -> None:
        assert self.classes(array(1, math.nan, 1, 2), 4, model())[1] == [
            "2.000000:3",
            "1.000000:0",
            "1.000000:2",
            "nan:1",
        ]

    def test_an_empty_batch(self) -> None:
        assert self.classes(Tensor.from_numpy("y", np.zeros((0, 4), np.float32)), 2, model(max_batch_size=8))[1] == []

    @pytest.mark.parametrize("datatype", ["FP16", "BF16", "BOOL", "BYTES"])
    def test_datatypes_without_an_order(self, datatype: str) -> None:
        tensor = Tensor.from_wire("y", datatypes.BY_NAME[datatype], (1,), bytes(2))
        with pytest.raises(InvalidArgumentError, match=f"due to unsupported type '{datatype}'$"):
            self.classes(tensor, 1, model())


def test_tensors_stay_in_shared_memory_both_ways() -> None:
    region = bytearray(struct.pack("<4f", 0, 1, 2, 0))
    memory = SharedMemory({"system": HostRegions(r=region)})
    where = {"shared_memory_region": "r", "shared_memory_offset": 4, "shared_memory_byte_size": 8}
    document = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": where}],
        "outputs": [{"name": "y", "parameters": {**where, "shared_memory_offset": 8}}],
    }
    request = decode_request(json.dumps(document).encode(), None, SPEC, memory=memory)
    assert request.inputs["x"].numpy().tolist() == [1, 2]

    request.model = model()
    encoded = encode_response(request, InferenceResponse([array(7, 8)]))
    (output,) = json.loads(b"".join(encoded.buffers))["outputs"]
    assert output == {"name": "y", "datatype": "FP32", "shape": [2]}
    assert struct.unpack("<4f", region) == (0, 1, 7, 8)
    with pytest.raises(NotFoundError):
        memory.slice("other", 0, 8)


@st.composite
def tensors(draw: st.DrawFn, json_only: bool = False) -> Tensor:
    """A tensor of any datatype, up to three dimensions, possibly empty."""
    datatype = draw(st.sampled_from([d for d in datatypes.ALL if not (json_only and d.name in ("FP16", "BF16"))]))
    shape = draw(nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if datatype is BYTES:
        elements = st.text(max_size=5).map(str.encode) if json_only else st.binary(max_size=5)
        count = math.prod(shape)
        items = draw(st.lists(elements, min_size=count, max_size=count))
        return Tensor.from_numpy("x", object_array(items, shape))
    values = draw(nps.arrays(datatype.numpy, shape))
    return Tensor.from_numpy("x", values, BF16 if datatype is BF16 else None)


def there_and_back(tensor: Tensor, **document: Any) -> Tensor:
    """Encode as a response's output, and decode that as a request's input."""
    encoded = encode_response(request_for(**document), InferenceResponse([tensor]))
    body = b"".join(encoded.buffers)
    header = json.loads(body[: encoded.json_size or len(body)])
    again = json.dumps({"inputs": header["outputs"]}).encode()
    rest = body[encoded.json_size :] if encoded.json_size else b""
    return decode_request(again + rest, len(again), SPEC).inputs["x"]


@given(tensors())
def test_every_tensor_survives_as_binary(tensor: Tensor) -> None:
    back = there_and_back(tensor, **BINARY)
    assert (back.datatype, back.shape) == (tensor.datatype, tensor.shape)
    assert bytes(back.wire()) == bytes(tensor.wire())


@given(tensors(json_only=True))
def test_every_tensor_survives_as_json(tensor: Tensor) -> None:
    back = there_and_back(tensor)
    assert (back.datatype, back.shape) == (tensor.datatype, tensor.shape)
    np.testing.assert_array_equal(back.numpy(), tensor.numpy())
