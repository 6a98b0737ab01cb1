"""Tensors in JSON: every datatype, every field in every wrong form."""

from __future__ import annotations

from typing import Any

from .case import Case, brief, infer, one, post, tensor


def _double(**fields: Any) -> dict[str, Any]:
    """A request for ``double``; a field of ``...`` is left out."""
    given = {**tensor("INPUT0", "FP32", [1, 16], [0.5] * 16), **fields}
    return {"inputs": [{key: value for key, value in given.items() if value is not ...}]}


_FIELDS: dict[str, tuple[Any, ...]] = {
    "name": (..., 1, None, [], "", "X"),
    "datatype": (..., 1, None, "", "FP33", "fp32", "INT32", "FP16", "BF16", "BYTES", "FP64", "BOOL"),
    "shape": (
        ...,
        16,
        None,
        "x",
        [],
        [16],
        ["1", 16],
        [1, "16"],
        [1, -16],
        [-1, -16],
        [1, 16.0],
        [1, None],
        [1, 15],
        [9, 16],
        [1, 16, 1],
        [2, 8],
        [1, 0],
        [16, 1],
    ),
    "data": (
        ...,
        1,
        None,
        "x",
        {},
        [],
        [0.5] * 15,
        [0.5] * 17,
        [[0.25] * 16],
        [[0.5] * 8] * 2,
        [[0.5] * 8, [0.5] * 7, 0.5],
        [[[0.25]] * 4] * 4,
        ["a"] * 16,
        [True] * 16,
        [1] * 16,
        [None] * 16,
        [{}] * 16,
        [1e300] * 16,
        [0.1] * 16,
        [-0.0] * 16,
        [1e-45] * 16,
    ),
}

_ELEMENTS: dict[str, tuple[list[Any], ...]] = {
    "BOOL": ([True, False], [1], [0], ["true"], [None]),
    "UINT8": ([0, 255], [256], [-1], [1.5], ["1"], [True], [2**64]),
    "UINT16": ([0, 65535], [65536], [-1]),
    "UINT32": ([0, 2**32 - 1], [2**32], [-1]),
    "UINT64": ([0, 2**64 - 1], [2**64], [-1], [1.0]),
    "INT8": ([-128, 127], [128], [-129], [300], [1.0], [1e2], ["1"], [True], [None], [2**63], [2**64], [10**30], [[1]]),
    "INT16": ([-32768, 32767], [32768], [{}]),
    "INT32": ([-(2**31), 2**31 - 1], [2**31], [2**40]),
    "INT64": ([-(2**63), 2**63 - 1], [2**63], [-(2**63) - 1]),
    "FP16": ([1.0],),
    "FP32": ([1.5, 0.1], [1e39], [2**64], [3], ["1"], [None]),
    "FP64": (
        [0.1, 1e20, 1e21, 1e22, 123456789012345680.0, 1e-5, 1e-7, -0.0, 5e-324, 1.7976931348623157e308],
        [2**64],
        ["1"],
        [True],
        [None],
    ),
    "BYTES": (
        ["a", "", "bc"],
        ["é", "\U0001f600"],
        ["\u0000"],
        ['\u0001\n\t"\\/\u007f\u2028<>&'],
        [1],
        [None],
        [["x"]],
    ),
}

_STRINGS: dict[str, tuple[list[int], Any]] = {
    "one too many": ([1, 1], ["a", "b"]),
    "nested, one too many": ([1, 1], [["a"], ["b"]]),
    "three too many": ([1, 1], ["a"] * 4),
    "one too few": ([1, 3], ["a", "b"]),
    "none": ([1, 1], []),
    "a number among them": ([1, 2], ["a", 1]),
    "nested": ([1, 2], [["a", "bb"]]),
    "no elements": ([1, 0], []),
    "a batch": ([3, 2], ["a", "b", "c", "d", "e", "f"]),
}


def _shapes_request(**tensors: dict[str, Any]) -> dict[str, Any]:
    a = tensor("A", "FP32", [1, 2, 3], [1, 2, 3, 4, 5, 6])
    b = tensor("B", "INT32", [1, 2], [7, 8])
    return {"inputs": list({"a": a, "b": b, **tensors}.values())}


_SETS: dict[str, dict[str, Any]] = {
    "both inputs": _shapes_request(),
    "other order": {"inputs": _shapes_request()["inputs"][::-1]},
    "one missing": {"inputs": _shapes_request()["inputs"][:1]},
    "the other missing": {"inputs": _shapes_request()["inputs"][1:]},
    "one too many": _shapes_request(c=tensor("C", "INT32", [1], [1])),
    "one under another name": _shapes_request(b=tensor("C", "INT32", [1, 2], [7, 8])),
    "one twice": {"inputs": _shapes_request()["inputs"][:1] * 2},
    "batches differ": _shapes_request(b=tensor("B", "INT32", [2, 2], [1, 2, 3, 4])),
    "batch of four": _shapes_request(
        a=tensor("A", "FP32", [4, 1, 3], list(range(12))), b=tensor("B", "INT32", [4, 2], list(range(8)))
    ),
    "batch of five": _shapes_request(
        a=tensor("A", "FP32", [5, 1, 3], list(range(15))), b=tensor("B", "INT32", [5, 2], list(range(10)))
    ),
    "dynamic dimension of none": _shapes_request(a=tensor("A", "FP32", [1, 0, 3], [])),
    "dynamic dimension of seven": _shapes_request(a=tensor("A", "FP32", [1, 7, 3], list(range(21)))),
    "fixed dimension differs": _shapes_request(a=tensor("A", "FP32", [1, 3, 2], list(range(6)))),
    "a rank too few": _shapes_request(a=tensor("A", "FP32", [2, 3], list(range(6)))),
}

CASES: list[Case] = [
    *(
        one(f"{field} is {brief(value)}", post(infer("double"), _double(**{field: value})))
        for field, values in _FIELDS.items()
        for value in values
    ),
    one("shape [0,16]", post(infer("double"), _double(shape=[0, 16]))),
    one("a key that means nothing", post(infer("double"), _double(foo=1))),
    one("an input twice", post(infer("double"), {"inputs": _double()["inputs"] * 2})),
    one("a batch of eight", post(infer("double"), _double(shape=[8, 16], data=list(range(128))))),
    one("a batch of nine", post(infer("double"), _double(shape=[9, 16], data=list(range(144))))),
    *(
        one(
            f"{datatype} {brief(values)}",
            post(infer("types"), {"inputs": [tensor(f"IN_{datatype}", datatype, [len(values)], values)]}),
        )
        for datatype, variants in _ELEMENTS.items()
        for values in variants
    ),
    *(
        one(
            f"{datatype} of no elements",
            post(infer("types"), {"inputs": [tensor(f"IN_{datatype}", datatype, [0], [])]}),
        )
        for datatype in _ELEMENTS
    ),
    one("data for no elements", post(infer("types"), {"inputs": [tensor("IN_FP32", "FP32", [0], [1, 2])]})),
    one("no inputs, all optional", post(infer("types"), {"inputs": []})),
    one(
        "several datatypes at once",
        post(infer("types"), {"inputs": [tensor("IN_INT8", "INT8", [1], [1]), tensor("IN_FP64", "FP64", [2], [1, 2])]}),
    ),
    one(
        "NaN and Infinity",
        post(
            infer("types"),
            b'{"inputs":[{"name":"IN_FP32","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}]}',
        ),
    ),
    *(
        one(f"strings: {name}", post(infer("strings"), {"inputs": [tensor("TEXT", "BYTES", shape, data)]}))
        for name, (shape, data) in _STRINGS.items()
    ),
    one(
        "strings that are not UTF-8",
        post(infer("strings"), b'{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[1,1],"data":["\xff\xfe"]}]}'),
    ),
    *(one(f"inputs: {name}", post(infer("shapes"), document)) for name, document in _SETS.items()),
    one("a scalar within a batch", post(infer("scalar"), {"inputs": [tensor("IN", "FP32", [3, 1], [1, 2, 3])]})),
    one("a scalar without its dimension", post(infer("scalar"), {"inputs": [tensor("IN", "FP32", [3], [1, 2, 3])]})),
]
