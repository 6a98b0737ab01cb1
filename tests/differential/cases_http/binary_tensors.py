"""Binary tensor data: sizes that are right and sizes that lie, header lengths, raw requests."""

from __future__ import annotations

import struct
from typing import Any

from .case import HEADER_LENGTH, Case, binary, binary_tensor, infer, one, post, tensor

_ALL_BINARY = {"parameters": {"binary_data_output": True}}
_VALUES = struct.pack("<16f", *[0.5] * 16)
_TEXT = struct.pack("<I", 3) + b"abc"

_WIRE: dict[str, bytes] = {
    "BOOL": b"\0\1\2",
    "UINT8": b"\0\x7f\xff",
    "UINT16": struct.pack("<3H", 0, 1, 65535),
    "UINT32": struct.pack("<3I", 0, 1, 2**32 - 1),
    "UINT64": struct.pack("<3Q", 0, 1, 2**64 - 1),
    "INT8": struct.pack("<3b", -128, 0, 127),
    "INT16": struct.pack("<3h", -(2**15), 0, 2**15 - 1),
    "INT32": struct.pack("<3i", -(2**31), 0, 2**31 - 1),
    "INT64": struct.pack("<3q", -(2**63), 0, 2**63 - 1),
    "FP16": struct.pack("<3e", 1.0, -2.0, 65504.0),
    "FP32": struct.pack("<3f", 1.0, -2.5, 3e38),
    "FP64": struct.pack("<3d", 1.0, -2.5, 1e300),
    "BYTES": _TEXT + struct.pack("<I", 0) + struct.pack("<I", 2) + b"\xff\0",
}


def _double(size: Any = 64, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{**binary_tensor("INPUT0", "FP32", [1, 16], size), **fields}]}


def _text(size: int, data: bytes, shape: list[int] | None = None) -> Any:
    return binary(infer("strings"), {"inputs": [binary_tensor("TEXT", "BYTES", shape or [1, 1], size)]}, data)


_MIXED = {
    "inputs": [
        binary_tensor("IN_FP32", "FP32", [1], 4),
        tensor("IN_INT32", "INT32", [1], [7]),
        binary_tensor("IN_INT8", "INT8", [2], 2),
    ],
    "outputs": [
        {"name": "OUT_INT8", "parameters": {"binary_data": True}},
        {"name": "OUT_FP32"},
        {"name": "OUT_INT32", "parameters": {"binary_data": True}},
    ],
}


def _raw(model: str, data: bytes) -> Any:
    return post(infer(model), data, {HEADER_LENGTH: "0"})


CASES: list[Case] = [
    one("binary in, JSON out", binary(infer("double"), _double(), _VALUES)),
    one("binary in, binary out", binary(infer("double"), {**_double(), **_ALL_BINARY}, _VALUES)),
    one("binary and JSON mixed", binary(infer("types"), _MIXED, b"\0\0\0\0\1\2")),
    *(
        one(
            f"binary {datatype}{' out' if out else ''}",
            binary(
                infer("types"),
                {"inputs": [binary_tensor(f"IN_{datatype}", datatype, [3], len(data))], **(_ALL_BINARY if out else {})},
                data,
            ),
        )
        for datatype, data in _WIRE.items()
        for out in (False, True)
    ),
    *(
        one(
            f"binary {datatype} of no elements",
            binary(infer("types"), {"inputs": [binary_tensor(f"IN_{datatype}", datatype, [0], 0)], **_ALL_BINARY}),
        )
        for datatype in _WIRE
    ),
    *(
        one(f"size {size}", binary(infer("double"), _double(size), _VALUES))
        for size in (63, 65, 0, 10**9, -1, "64", 64.0, None, True, [], 2**63, 2**64 - 1, 2**65)
    ),
    one("bytes to spare", binary(infer("double"), _double(), _VALUES, b"x")),
    one("a body that ends early", binary(infer("double"), _double(), _VALUES[:-1])),
    one("no binary data at all", binary(infer("double"), _double())),
    one("no header length, size 0", post(infer("double"), _double(0))),
    one(
        "binary data behind JSON data",
        binary(infer("double"), {"inputs": [tensor("INPUT0", "FP32", [1, 16], [1] * 16)]}, b"xx"),
    ),
    one("JSON and binary data for one input", binary(infer("double"), _double(data=[1] * 16), _VALUES)),
    one("parameters that are an array", binary(infer("double"), _double(parameters=[]), _VALUES)),
    one(
        "parameters that are null",
        post(infer("double"), {"inputs": [{**tensor("INPUT0", "FP32", [1, 16], [1] * 16), "parameters": None}]}),
    ),
    one("binary of an unknown datatype", binary(infer("double"), _double(datatype="FP33"), _VALUES)),
    one("binary of another datatype", binary(infer("double"), _double(datatype="INT32"), _VALUES)),
    one("binary of another size of datatype", binary(infer("double"), _double(datatype="FP64"), _VALUES)),
    one("dims beyond 64 bits", binary(infer("double"), _double(shape=[2**64, 16]), _VALUES)),
    one(
        "dims beyond 63 bits",
        binary(infer("types"), {"inputs": [binary_tensor("IN_FP32", "FP32", [2**64 - 1], 64)]}, _VALUES),
    ),
    one("a product beyond 64 bits", binary(infer("double"), _double(shape=[2**62, 2**62]), _VALUES), "overflow"),
    one("a batch beyond 63 bits", binary(infer("double"), _double(shape=[2**63, 16]), _VALUES), "overflow"),
    one(
        "bytes beyond 64 bits",
        binary(infer("types"), {"inputs": [binary_tensor("IN_FP32", "FP32", [2**62], 64)]}, _VALUES),
        "overflow",
    ),
    one("one string", _text(7, _TEXT)),
    one("two strings for one", _text(14, _TEXT * 2)),
    one("three strings for one", _text(21, _TEXT * 3)),
    one("one string for two", _text(7, _TEXT, [1, 2])),
    one("a length that ends early", _text(2, _TEXT[:2])),
    one("a second length that ends early", _text(9, _TEXT + b"\1\0", [1, 2])),
    one("a string that ends early", _text(6, _TEXT[:6]), "string end"),
    *(
        one(f"header length {value!r}", post(infer("double"), b'{"inputs":[]}' + _VALUES, {HEADER_LENGTH: value}))
        for value in ("0", "1", "x", "-1", "1000000", "12abc", "13", "13.5", "+13", "99999999999999999999")
    ),
    one("raw", _raw("double", _VALUES)),
    one("raw, two for one", _raw("double", _VALUES * 2)),
    one("raw, one byte", _raw("double", b"x")),
    one("raw, nothing", _raw("double", b"")),
    one("raw, several inputs", _raw("shapes", _VALUES)),
    one("raw, several optional inputs", _raw("types", _VALUES)),
    one("raw, strings", _raw("strings", _TEXT)),
    one("raw, a dynamic dimension", _raw("versioned", struct.pack("<3i", 1, 2, 3))),
    one("raw, a dynamic dimension of none", _raw("versioned", b"")),
    one("raw, not a whole element", _raw("versioned", b"abc")),
    one("raw, a fixed dimension", _raw("parameters", struct.pack("<i", 1))),
    one("raw, reshaped", _raw("scalar", struct.pack("<f", 1))),
    one("raw, several outputs", _raw("classes", struct.pack("<4f", 1, 2, 3, 4))),
    one("an empty body", post(infer("double"))),
    one(
        "a large tensor",
        binary(
            infer("types"),
            {"inputs": [binary_tensor("IN_UINT8", "UINT8", [8_000_000], 8_000_000)], **_ALL_BINARY},
            bytes(range(250)) * 32_000,
        ),
    ),
]
