"""The generate extension: JSON to tensors and back, streams of events, and what neither endpoint can do."""

from __future__ import annotations

from typing import Any

from .case import Case, Request, brief, one, post


def _generate(model: str, body: Any, headers: dict[str, str] | None = None) -> Request:
    return post(f"/v2/models/{model}/generate", body, headers)


def _stream(model: str, body: Any, headers: dict[str, str] | None = None) -> Request:
    return post(f"/v2/models/{model}/generate_stream", body, headers)


def _both(name: str, model: str, body: Any, difference: str = "", headers: dict[str, str] | None = None) -> list[Case]:
    return [
        one(f"generate: {name}", _generate(model, body, headers), difference),
        one(f"generate_stream: {name}", _stream(model, body, headers), difference),
    ]


# --- what becomes a tensor, and of which shape

_TEXTS: tuple[Any, ...] = (
    "hello",
    "",
    "é😀",
    "a\u0000b",
    ["a"],
    ["a", "bc"],
    [],
    [["a"], ["b"]],
    [["a", "b"], "c"],
    None,
    1,
    True,
    {},
    ["a", 1],
    ["a", None],
)

_NUMBERS: tuple[tuple[str, Any], ...] = (
    ("IN_INT32", 7),
    ("IN_INT32", -1),
    ("IN_INT32", [1, 2, 3]),
    ("IN_INT32", [[1], [2]]),
    ("IN_INT32", [[1, 2], [3]]),
    ("IN_INT32", 2**40),
    ("IN_INT32", 2**63),
    ("IN_INT32", 1.5),
    ("IN_INT32", 1.0),
    ("IN_INT32", "1"),
    ("IN_INT32", None),
    ("IN_INT32", {}),
    ("IN_INT32", []),
    ("IN_INT32", [None]),
    ("IN_UINT8", 300),
    ("IN_UINT8", -1),
    ("IN_UINT64", 2**64 - 1),
    ("IN_INT64", -(2**63)),
    ("IN_BOOL", True),
    ("IN_BOOL", [True, False]),
    ("IN_BOOL", 1),
    ("IN_FP32", 0.1),
    ("IN_FP32", [1, 2.5]),
    ("IN_FP32", True),
    ("IN_FP64", [0.1, 1e300]),
    ("IN_FP16", 1.5),
    ("IN_FP16", []),
    ("IN_BYTES", "x"),
    ("IN_BYTES", ["x", "y"]),
)

_SHAPES: tuple[Any, ...] = (
    {"A": [1, 2, 3], "B": [1, 2]},
    {"A": [1, 2, 3, 4, 5, 6], "B": [1, 2]},
    {"A": [1, 2, 3, 4, 5, 6], "B": [1, 2, 3, 4]},
    {"A": [1, 2], "B": [1, 2]},
    {"A": [], "B": [1, 2]},
    {"A": [1, 2, 3], "B": 1},
    {"A": [[1, 2, 3]], "B": [1, 2]},
    {"A": [1, [2, 3]], "B": [1, 2]},
    {"A": [1, 2, 3]},
    {"A": [1, 2, 3], "B": [1, 2], "C": [1]},
)

# --- what does not

_PARAMETERS: tuple[Any, ...] = (
    {"a": 1, "b": True, "c": "x", "d": 1.5},
    {"a": None},
    {"a": [1]},
    {"a": {}},
    {"big": 2**63},
    {"big": 2**64},
    {"small": -(2**63) - 1},
    {"": 1},
    {"a": "é\n"},
    {"id": "q"},
    {"id": ""},
    {"id": 7},
    {"id": None},
    {"id": ["q"]},
    {"sequence_id": 5, "sequence_start": True, "sequence_end": True},
    {"sequence_id": True},
    {"sequence_start": 1},
    {"priority": -1},
    {"timeout": "5"},
    {"binary_data_output": True},
    {"triton_x": 1},
    {"triton_enable_empty_final_response": True},
    {"parameters": {}},
    {"parameters": {"a": 1}, "b": 2},
    {"parameters": {"id": "q"}},
    {"parameters": {"a": [1]}},
    {"parameters": {"parameters": {"a": 1}}},
    {"parameters": [1]},
    {"parameters": None},
    {"parameters": "x"},
)

_WHOLE: tuple[bytes, ...] = (b"", b"[]", b"3", b"null", b'"x"', b"{", b'{"IN":1} x', b'{"IN":1}\0\1', b'{"IN":NaN}')

_ANSWERS: tuple[tuple[dict[str, Any], bool, bool], ...] = (
    # The parameters of the request, and whether the statuses of generate and of generate_stream differ.
    ({"COUNT": 0}, True, False),
    ({"COUNT": 1}, False, False),
    ({"COUNT": 2}, True, False),
    ({"COUNT": 1, "close_with_last": True}, False, False),
    ({"COUNT": 3, "close_with_last": True}, True, False),
    ({"COUNT": 1, "fail_at": 0}, True, True),
    ({"COUNT": 3, "fail_at": 0}, True, True),
    ({"COUNT": 3, "fail_at": 1}, True, False),
    ({"COUNT": 3, "fail_at": 2, "close_with_last": True}, True, False),
    ({"COUNT": 2, "id": "q"}, True, False),
)

_STATUS = "generate status"

CASES: list[Case] = [
    *(case for value in _TEXTS for case in _both(f"text {brief(value)}", "strings", {"TEXT": value})),
    *(case for name, value in _NUMBERS for case in _both(f"{name} {brief(value)}", "types", {name: value})),
    *(case for body in _SHAPES for case in _both(f"shapes {brief(body)}", "shapes", body)),
    *(case for value in (3, [3], [3, 4]) for case in _both(f"reshape {value}", "scalar", {"IN": value})),
    *(
        case
        for parameters in _PARAMETERS
        for case in _both(f"parameters {brief(parameters)}", "parameters", {"IN": 1, **parameters})
    ),
    *_both("an input among the parameters", "parameters", {"parameters": {"IN": 1, "a": 2}}),
    *_both("an input twice", "parameters", {"IN": 1, "parameters": {"IN": 2}}),
    *_both("no input", "parameters", {}),
    *(case for body in _WHOLE for case in _both(f"body {body!r}", "parameters", body)),
    *_both("the same key twice", "parameters", b'{"IN":1,"IN":2}', "duplicate key"),
    *_both("a forwarded header", "parameters", {"IN": 1}, "generate headers", headers={"x-fwd-user": "me"}),
    *_both("a binary header", "parameters", {"IN": 1}, headers={"Inference-Header-Content-Length": "3"}),
    *_both("gzip", "parameters", {"IN": 1}, headers={"Content-Encoding": "gzip"}),
    *_both("identity", "parameters", {"IN": 1}, headers={"Content-Encoding": "identity"}),
    *_both("gzip wanted", "parameters", {"IN": 1}, headers={"Accept-Encoding": "gzip"}),
    *(
        one(f"{endpoint}: {brief(body)}", ask("decoupled", body), _STATUS if differs else "")
        for body, of_one, of_stream in _ANSWERS
        for endpoint, ask, differs in (("generate", _generate, of_one), ("generate_stream", _stream, of_stream))
    ),
    *_both("success", "failing", {"HOW": 0}),
    *_both("no tensor", "failing", {"HOW": 101}),
    *_both("bad argument", "failing", {"HOW": 4}),
    *(case for how in (100, 2, 3, 5, 6) for case in _both(f"failure {how}", "failing", {"HOW": how}, _STATUS)),
    *_both("latest version", "versioned", {"IN": 1}),
    *_both("a version", "versioned/versions/1", {"IN": 1}),
    *_both("a version that is not served", "versioned/versions/2", {"IN": 1}),
    *_both("a version that is no number", "versioned/versions/x", {"IN": 1}),
    *_both("a version that is too large", "versioned/versions/99999999999999999999", {"IN": 1}),
    *_both("an unknown model", "nope", {"IN": 1}),
    *_both("classes", "classes", {"SCORES": [1, 2, 3, 4]}),
]
