"""A remembered header gives what decoding it again would give."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from host_regions import HostRegions
from hypothesis import given
from hypothesis import strategies as st
from trivet import datatypes
from trivet.config.spec import ModelSpec, TensorSpec
from trivet.errors import TrivetError
from trivet.inference import InferenceRequest
from trivet.memory import RegionSlice
from trivet.tensor import Tensor
from trivet_protocol_kserve_v2.codec.header_cache import HeaderCache
from trivet_protocol_kserve_v2.codec.json_request import decode_request
from trivet_protocol_kserve_v2.codec.shared_memory import NO_MEMORY, SharedMemory

_NONE: frozenset[str] = frozenset()
_INPUTS = {name: TensorSpec(name, datatypes.FP32, (-1,)) for name in ("x", "y")}
SPEC = ModelSpec("m", _INPUTS, {"z": TensorSpec("z", datatypes.FP32, (-1,))}, ("z",), 0, False, _NONE, _NONE)


def said(request: InferenceRequest) -> dict[str, Any]:
    """All that a decoded request says, comparable."""
    return {
        "inputs": [(t.name, t.datatype, t.shape, bytes(t.wire())) for t in request.inputs.values()],
        "outputs": None if request.outputs is None else [(o.name, o.classification) for o in request.outputs],
        "format": (request.context.binary, request.context.outputs),
        "regions": {name: written_by(region) for name, region in (request.regions or {}).items()},
        "rest": (
            request.id,
            dict(request.parameters),
            request.priority,
            request.timeout_us,
            request.correlation_id,
            request.sequence_start,
            request.sequence_end,
        ),
    }


def written_by(region: RegionSlice) -> bytes:
    """What is in a part of a region after an output was put there: which part it is."""
    region.write(Tensor.from_wire("z", datatypes.UINT8, (1,), b"z"))
    return bytes(region.tensor("z", datatypes.UINT8, ()).wire())


def outcome(decode: Any, body: bytes, json_size: int | None, memory: SharedMemory = NO_MEMORY) -> Any:
    try:
        return said(decode(body, json_size, SPEC, "", received_ns=1, memory=memory))
    except TrivetError as error:
        return type(error), error.message


def binary_input(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [size // 4], "parameters": {"binary_data_size": size}}


headers = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.one_of(
                st.builds(binary_input, st.sampled_from("xy"), st.sampled_from([0, 4, 8])),
                st.just({"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}),
                st.just({"name": "y", "datatype": "BYTES", "shape": [1], "data": ["a"]}),
            ),
            max_size=3,
        )
    },
    optional={
        "id": st.sampled_from(["", "7"]),
        "parameters": st.sampled_from(
            [
                {"binary_data_output": True},
                {"own": 1},
                {"sequence_id": 3, "sequence_start": True},
                {"priority": 1, "timeout": 5},
            ]
        ),
        "outputs": st.sampled_from(
            [
                [],
                [{"name": "z", "parameters": {"binary_data": True}}],
                [{"name": "z", "parameters": {"classification": 2}}],
            ]
        ),
    },
)


@given(headers, st.lists(st.binary(max_size=20), min_size=2, max_size=4))
def test_the_second_time_is_as_the_first(header: dict[str, Any], data: list[bytes]) -> None:
    cache = HeaderCache()
    text = orjson.dumps(header)
    for binary in data:
        body = text + binary
        assert outcome(cache.decode, body, len(text)) == outcome(decode_request, body, len(text))


@given(headers, st.binary(max_size=8))
def test_data_of_the_right_size_is_taken_from_the_new_body(header: dict[str, Any], filler: bytes) -> None:
    cache = HeaderCache()
    text = orjson.dumps(header)
    size = sum(entry.get("parameters", {}).get("binary_data_size", 0) for entry in header["inputs"])
    for data in (bytes(size), (filler * size + bytes(size))[:size]):
        assert outcome(cache.decode, text + data, len(text)) == outcome(decode_request, text + data, len(text))


@pytest.mark.parametrize("spelling", ['"data"', r'"\u0064ata"'])
def test_data_within_the_header_is_never_taken_from_another_request(spelling: str) -> None:
    cache = HeaderCache()
    text = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],%b:[2.0]}]}' % spelling.encode()
    for _ in range(2):
        assert outcome(cache.decode, text, len(text)) == outcome(decode_request, text, len(text))


def in_region(name: str, region: object, **parameters: Any) -> dict[str, Any]:
    parameters = {"shared_memory_region": region, "shared_memory_byte_size": 4, **parameters}
    return {"name": name, "datatype": "FP32", "shape": [1], "parameters": parameters}


@pytest.mark.parametrize(
    "header",
    [
        {
            "inputs": [in_region("x", "a"), in_region("y", "b", shared_memory_offset=4)],
            "outputs": [in_region("z", "a")],
        },
        {"inputs": [in_region("x", "a"), binary_input("y", 4)], "outputs": [{"name": "z"}]},
        {"inputs": [binary_input("y", 4)], "outputs": [in_region("z", "b", shared_memory_offset=4)]},
        {"inputs": [in_region("x", "a")], "outputs": [{"name": "z"}, in_region("z", "b")]},
        {"inputs": [in_region("x", "a")], "outputs": [in_region("z", "b"), in_region("z", "none")]},
        {"inputs": [in_region("x", "none")]},
        {"inputs": [in_region("x", 1)]},
        {"inputs": [in_region("x", "a")], "outputs": [{"name": "z", "parameters": "shared_memory_region"}]},
        {"inputs": [in_region("x", "a")], "outputs": []},
    ],
)
def test_a_tensor_in_shared_memory_is_what_is_there_each_time(header: dict[str, Any]) -> None:
    cache = HeaderCache()
    text = orjson.dumps(header)
    data = bytes(range(4 * sum("binary_data_size" in entry["parameters"] for entry in header["inputs"])))
    for a, b in ((b"abcdefgh", b"ABCDEFGH"), (b"ijklmnop", b"IJKLMNOP"), (b"qrst", None)):
        outcomes = []
        for decode in (cache.decode, decode_request):
            regions = {name: bytearray(content) for name, content in (("a", a), ("b", b)) if content is not None}
            memory = SharedMemory({"system": HostRegions(**regions)})
            sizes = (len(text),) if data else (len(text), None)
            outcomes.append([outcome(decode, text + data, size, memory) for size in sizes])
        assert outcomes[0] == outcomes[1]


def test_it_forgets_before_it_grows_without_bound() -> None:
    cache = HeaderCache()
    for size in range(2 * HeaderCache.SIZE):
        text = orjson.dumps({"inputs": [binary_input("x", 4)], "parameters": {"own": size}})
        cache.decode(text + bytes(4), len(text), SPEC, "", received_ns=1, memory=NO_MEMORY)
    assert len(cache) <= HeaderCache.SIZE
