"""Ids and parameters of requests, headers that become parameters, errors that models raise."""

from __future__ import annotations

from typing import Any

from .case import Case, brief, infer, one, post, tensor

_INPUT = {"inputs": [tensor("IN", "INT32", [1], [1])]}


def _ask(**fields: Any) -> Any:
    return post(infer("parameters"), {**_INPUT, **fields})


_PARAMETERS: tuple[Any, ...] = (
    {},
    {"a": 1, "b": True, "c": "x"},
    {"a": 1.5},
    {"a": None},
    {"a": [1]},
    {"a": {}},
    {"a": -5},
    {"a": 2**63 - 1},
    {"a": 2**63},
    {"a": 2**64},
    {"a": -(2**63)},
    {"a": -(2**63) - 1},
    {"": 1},
    {"a": "é\n"},
    {"sequence_id": 5},
    {"sequence_id": "five"},
    {"sequence_id": ""},
    {"sequence_id": 0},
    {"sequence_id": -1},
    {"sequence_id": 2**64 - 1},
    {"sequence_id": 2**64},
    {"sequence_id": 1.0},
    {"sequence_id": True},
    {"sequence_id": None},
    {"sequence_id": 5, "sequence_start": True, "sequence_end": True},
    {"sequence_id": 5, "sequence_start": False, "sequence_end": True},
    {"sequence_start": 1},
    {"sequence_end": "x"},
    {"priority": 1},
    {"priority": -1},
    {"priority": "1"},
    {"priority": 2**32},
    {"timeout": 10**9},
    {"timeout": -1},
    {"timeout": "5"},
    {"timeout": 1.5},
    {"binary_data_output": True},
    {"binary_data_output": False},
    {"binary_data_output": 1},
    {"binary_data": True},
    {"triton_x": 1},
    {"triton_enable_empty_final_response": True},
    {"TRITON_x": 1},
    {"headers": {"a": "b"}},
    {"headers": "s"},
    [],
    5,
    None,
    "x",
)

CASES: list[Case] = [
    one("no parameters", _ask()),
    *(one(f"parameters {brief(value)}", _ask(parameters=value)) for value in _PARAMETERS),
    *(one(f"id {brief(value)!r}", _ask(id=value)) for value in ("abc", "", "é", "x" * 300, 5, None, True, ["a"])),
    one("an id that is not UTF-8", post(infer("types"), b'{"id":"\xff","inputs":[]}')),
    one("the id in an error", post(infer("parameters"), {"id": "my-id", "inputs": []})),
    one(
        "the id in another error",
        post(infer("parameters"), {"id": "my-id", "inputs": [tensor("IN", "INT32", [2], [1, 2])]}),
    ),
    one("a NUL in an id", _ask(id="a\0b"), "nul"),
    one("a NUL in a name", _ask(parameters={"a\0b": 1}), "nul"),
    one(
        "forwarded headers", post(infer("parameters"), _INPUT, {"x-fwd-a": "1", "x-fwd-b": "two words", "x-other": "3"})
    ),
    one(
        "a header and a parameter",
        post(infer("parameters"), {**_INPUT, "parameters": {"x-fwd-a": "body"}}, {"x-fwd-a": "1"}),
    ),
    one("a header in another case", post(infer("parameters"), _INPUT, {"X-Fwd-A": "1"}), "header names"),
    *(
        one(
            f"the model fails in way {how}",
            post(infer("failing"), {"inputs": [tensor("HOW", "INT32", [1, 1], [how])]}),
            "unknown code" if how == 1 else "",
        )
        for how in (*range(9), 100, 101)
    ),
]
