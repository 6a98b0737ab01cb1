"""Which outputs are asked for, and how: classes, binary or not, shared memory."""

from __future__ import annotations

from typing import Any

from .case import Case, brief, infer, one, post, tensor

_ONE = {"inputs": [tensor("SCORES", "FP32", [1, 4], [0.1, 0.9, 0.5, 2.0])]}
_TWO = {"inputs": [tensor("SCORES", "FP32", [2, 4], [0.1, 0.9, 0.5, 2.0, -1, 5, 5, 1e10])]}
_EQUAL = {"inputs": [tensor("SCORES", "FP32", [1, 4], [0.1] * 4)]}


def _ask(outputs: Any, request: dict[str, Any] = _ONE) -> Any:
    return post(infer("classes"), {**request, "outputs": outputs})


def _classes(name: str, count: Any, **parameters: Any) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": {"classification": count, **parameters}}]


_ODD: tuple[Any, ...] = (
    {},
    None,
    5,
    [],
    [1],
    [[]],
    [{}],
    [{"name": 1}],
    [{"name": "NOPE"}],
    [{"name": "PLAIN"}, {"name": "NOPE"}],
    [{"name": "PLAIN"}, {"name": "PLAIN"}],
    [{"name": "RANKS"}, {"name": "PLAIN"}],
    [{"name": "PLAIN", "parameters": 5}],
    [{"name": "PLAIN", "parameters": {"foo": [1]}}],
    [{"name": "PLAIN", "foo": 1}],
    [{"name": "HALF"}],
    [{"name": "HALF", "parameters": {"binary_data": True}}],
    [{"name": "NAMES"}],
    [{"name": "PLAIN", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 64}}],
    [{"name": "PLAIN", "parameters": {"shared_memory_region": "r", "classification": 4}}],
    [{"name": "PLAIN", "parameters": {"shared_memory_region": "r", "binary_data": True}}],
    [{"name": "PLAIN", "parameters": {"shared_memory_region": "r", "binary_data": 1}}],
    [{"name": "PLAIN", "parameters": {"shared_memory_region": 1}}],
    [{"name": "PLAIN", "parameters": {"shared_memory_region": "r", "shared_memory_offset": -1}}],
)

_SHARED_INPUTS: tuple[dict[str, Any], ...] = (
    {"shared_memory_region": "r", "shared_memory_byte_size": 64},
    {"shared_memory_region": 1},
    {"shared_memory_region": "r", "shared_memory_byte_size": 64, "shared_memory_offset": -1},
    {"shared_memory_region": "r", "shared_memory_byte_size": "64"},
    {"shared_memory_region": "r", "binary_data_size": 64},
    {"shared_memory_offset": 4},
)

CASES: list[Case] = [
    *(one(f"outputs {brief(outputs)}", _ask(outputs)) for outputs in _ODD),
    *(
        one(f"classes of {name}, batch of {len(request['inputs'][0]['data']) // 4}", _ask(_classes(name, 2), request))
        for name in ("LABELLED", "PLAIN", "RANKS", "HALF")
        for request in (_ONE, _TWO)
    ),
    one("classes in binary", _ask(_classes("LABELLED", 3, binary_data=True), _TWO)),
    one("more classes than there are", _ask(_classes("LABELLED", 10), _TWO)),
    one("classes that are equal", _ask(_classes("LABELLED", 4), _EQUAL)),
    *(
        one(f"{count} classes", _ask(_classes("PLAIN", count)))
        for count in (0, -1, "2", 2.0, None, True, 2**32, 2**32 + 1, 2**64)
    ),
    *(
        one(f"binary_data {value}", _ask([{"name": "PLAIN", "parameters": {"binary_data": value}}]))
        for value in (True, False, 1, "true", None)
    ),
    one(
        "binary_data_output does not count for outputs that are named",
        post(infer("classes"), {**_ONE, "outputs": [{"name": "PLAIN"}], "parameters": {"binary_data_output": True}}),
    ),
    *(
        one(
            f"input in {parameters}",
            post(
                infer("double"),
                {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "parameters": parameters}]},
            ),
        )
        for parameters in _SHARED_INPUTS
    ),
]

# The real Triton's process ends on this one: it is sent to Trivet alone.
FATAL = _ask(_classes("NAMES", 2))
