"""Ids, versions, parameters, metadata that becomes parameters, shared memory, errors that models raise."""

from __future__ import annotations

from typing import Any

from .case import Case, Unsigned, both, infer, one, request, tensor

_INPUT = tensor("IN", "INT32", [1], [1])
_REGION = {"shared_memory_region": "r", "shared_memory_byte_size": 4}


def _ask(**fields: Any) -> Any:
    return request("parameters", _INPUT, **fields)


def _fail(how: int) -> Any:
    return request("failing", tensor("HOW", "INT32", [1, 1], [how]))


_PARAMETERS: tuple[dict[str, Any], ...] = (
    {},
    {"a": 1, "b": True, "c": "x"},
    {"a": -(2**63)},
    {"a": 1.5},
    {"a": ""},
    {"a": "é\n"},
    {"": 1},
    {"a": Unsigned(1)},
    {"a": None},
    {"sequence_id": 5},
    {"sequence_id": 0},
    {"sequence_id": -5},
    {"sequence_id": "five"},
    {"sequence_id": ""},
    {"sequence_id": True},
    {"sequence_id": Unsigned(5)},
    {"sequence_id": None},
    {"sequence_id": 5, "sequence_start": True, "sequence_end": True},
    {"sequence_id": 5, "sequence_start": False, "sequence_end": True},
    {"sequence_start": 1},
    {"sequence_start": None},
    {"sequence_end": "x"},
    {"priority": 1},
    {"priority": -1},
    {"priority": Unsigned(2**63)},
    {"priority": "1"},
    {"priority": 2**40},
    {"timeout": 10**9},
    {"timeout": -1},
    {"timeout": "5"},
    {"timeout": Unsigned(5)},
    {"binary_data_output": True},
    {"triton_x": 1},
    {"triton_enable_empty_final_response": True},
    {"triton_enable_empty_final_response": 1},
    {"TRITON_x": 1},
)

_MEMORY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a region", _REGION),
    ("a region and an offset", {**_REGION, "shared_memory_offset": 8}),
    ("a region without a size", {"shared_memory_region": "r"}),
    ("a size without a region", {"shared_memory_byte_size": 4}),
    ("an offset without a region", {"shared_memory_offset": 4}),
    ("a region that is a number", {**_REGION, "shared_memory_region": 5}),
    ("a size that is a text", {**_REGION, "shared_memory_byte_size": "4"}),
    ("an offset that is a text", {**_REGION, "shared_memory_offset": "4"}),
    ("other parameters", {"foo": 1, "binary_data_size": 4}),
)

CASES: list[Case] = [
    *(one(f"parameters {value}", infer(_ask(parameters=value))) for value in _PARAMETERS),
    *(
        one(f"version {version!r}", infer(request("versioned", tensor("IN", "INT32", [1], [1]), model_version=version)))
        for version in ("", "1", "2", "3", "4", "0", "-1", "x", "1.0", "9" * 30)
    ),
    *(one(f"version {version!r}", infer(_ask(model_version=version))) for version in ("1x", " 1", "+1", "-0", "01")),
    *(one(f"id {id!r}", infer(_ask(id=id))) for id in ("", "7", "é", "x" * 500)),
    one("metadata as parameters", infer(_ask(), x_fwd_a="1", x_fwd_b="é".encode().decode("latin-1"), other="c")),
    *(
        one(f"input in shared memory: {name}", infer(request("parameters", tensor("IN", "INT32", [1], None, memory))))
        for name, memory in _MEMORY
        if "other" not in name and "without a region" not in name
    ),
    *(
        one(f"input with raw contents: {name}", infer(request("parameters", tensor("IN", "INT32", [1], [1], memory))))
        for name, memory in _MEMORY
    ),
    one(
        "input in shared memory and typed",
        infer(request("parameters", tensor("IN", "INT32", [1], None, _REGION, int_contents=[1]))),
    ),
    *(one(f"output: {name}", infer(_ask(outputs={"SEEN": memory}))) for name, memory in _MEMORY),
    one("output in shared memory, as classes", infer(_ask(outputs={"SEEN": {**_REGION, "classification": 1}}))),
    *(
        case
        for how in range(2, 9)
        for case in both(
            f"a model that fails with code {how}", request("failing", tensor("HOW", "INT32", [1, 1], [how]))
        )
    ),
    one("a model that fails with code 1", infer(_fail(1)), "unknown code"),
    *(case for how in (0, 100) for case in both(f"the model answers {how}", _fail(how))),
]
