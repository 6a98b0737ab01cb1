"""Inputs and outputs: names, datatypes, shapes, raw and typed contents, strings, classes."""

from __future__ import annotations

from typing import Any

from .case import Case, both, infer, one, request, tensor, text

_SIXTEEN = list(range(16))
_GOOD = tensor("INPUT0", "FP32", [1, 16], _SIXTEEN)


def _double(datatype: str = "FP32", shape: tuple[int, ...] = (1, 16), data: Any = None, **contents: Any) -> Any:
    given = None if contents else (_SIXTEEN if data is None else data)
    if given is not None and not isinstance(given, bytes):
        given = tensor("INPUT0", "FP32", shape, given)[1]
    return request("double", tensor("INPUT0", datatype, shape, given, **contents))


def _echo(datatype: str, count: int, data: Any = None, **contents: Any) -> Any:
    entry = tensor(f"IN_{datatype}", datatype, [count], data, **contents)
    return request("types", entry, outputs=[f"OUT_{datatype}"])


_NAMES_AND_SHAPES: tuple[tuple[str, Any, str], ...] = (
    ("a request", _double(), ""),
    ("a batch of three", _double(shape=(3, 16), data=_SIXTEEN * 3), ""),
    ("with an id", request("double", _GOOD, id="7"), ""),
    ("with the output named", request("double", _GOOD, outputs=["OUTPUT0"]), ""),
    ("unknown model", request("nope", _GOOD), ""),
    ("no model", request("", _GOOD), ""),
    ("no inputs", request("double"), ""),
    ("two of two inputs missing", request("shapes"), ""),
    ("one of two inputs missing", request("shapes", tensor("B", "INT32", [1, 2], [1, 2])), ""),
    ("an input too many", request("double", _GOOD, tensor("X", "FP32", [1, 16], _SIXTEEN)), ""),
    ("an input of another name", request("double", tensor("X", "FP32", [1, 16], _SIXTEEN)), ""),
    ("an input twice", request("double", _GOOD, _GOOD), ""),
    ("an input twice, with an id", request("double", _GOOD, _GOOD, id="7"), ""),
    ("an unknown output", request("double", _GOOD, outputs=["X"]), ""),
    ("another datatype", _double("INT32"), ""),
    ("a datatype that does not exist", _double("FP31"), ""),
    ("a datatype in lower case", _double("fp32"), ""),
    ("no datatype", _double(""), ""),
    ("the configuration's name of a datatype", _double("TYPE_FP32"), ""),
    ("a dimension too small", _double(shape=(1, 15), data=_SIXTEEN[:15]), ""),
    ("a dimension too many", _double(shape=(1, 1, 16)), ""),
    ("no batch dimension", _double(shape=(16,)), ""),
    ("no shape", _double(shape=()), ""),
    ("a batch too large", _double(shape=(9, 16), data=_SIXTEEN * 9), ""),
    ("a batch of none", _double(shape=(0, 16), data=b""), ""),
    ("a shape that overflows", request("types", tensor("IN_FP32", "FP32", [2**62], _SIXTEEN)), "overflow"),
    (
        "batch sizes that differ",
        request("shapes", tensor("A", "FP32", [1, 2, 3], range(6)), tensor("B", "INT32", [2, 2], range(4))),
        "",
    ),
    (
        "two inputs, two outputs",
        request("shapes", tensor("A", "FP32", [2, 2, 3], range(12)), tensor("B", "INT32", [2, 2], range(4))),
        "",
    ),
    (
        "inputs in another order",
        request("shapes", tensor("B", "INT32", [2, 2], range(4)), tensor("A", "FP32", [2, 1, 3], range(6))),
        "",
    ),
    (
        "outputs in another order",
        request(
            "shapes",
            tensor("A", "FP32", [1, 2, 3], range(6)),
            tensor("B", "INT32", [1, 2], range(2)),
            outputs=["B_TWICE", "A_SUM"],
        ),
        "",
    ),
    (
        "one output of two",
        request(
            "shapes",
            tensor("A", "FP32", [1, 2, 3], range(6)),
            tensor("B", "INT32", [1, 2], range(2)),
            outputs=["B_TWICE"],
        ),
        "",
    ),
)

_CONTENTS: tuple[tuple[str, Any, str], ...] = (
    ("raw, too short", _double(data=b"123"), ""),
    ("raw, too long", _double(data=bytes(65)), ""),
    ("raw, empty", _double(data=b""), ""),
    ("no contents", request("double", tensor("INPUT0", "FP32", [1, 16])), ""),
    ("raw contents without an input", request("double", _GOOD, extra=[b"x"]), ""),
    (
        "raw contents for one of two",
        request("shapes", tensor("A", "FP32", [1, 2, 3], range(6)), tensor("B", "INT32", [1, 2])),
        "",
    ),
    ("typed", _double(fp32_contents=_SIXTEEN), ""),
    ("typed, too few", _double(fp32_contents=_SIXTEEN[:15]), ""),
    ("typed, too many", _double(fp32_contents=[*_SIXTEEN, 1]), ""),
    ("typed, of another type", _double(int_contents=_SIXTEEN), ""),
    ("typed, two types", _double(fp32_contents=_SIXTEEN, fp64_contents=_SIXTEEN), ""),
    ("typed, two types, a wrong one first", _double(fp32_contents=_SIXTEEN, bool_contents=[True]), ""),
    ("typed, of a datatype that does not exist", _double("FP31", fp32_contents=_SIXTEEN), ""),
    (
        "typed and raw for one input",
        request("double", tensor("INPUT0", "FP32", [1, 16], _SIXTEEN, fp32_contents=_SIXTEEN)),
        "",
    ),
    (
        "typed for one, raw for another",
        request(
            "shapes",
            tensor("A", "FP32", [1, 2, 3], fp32_contents=range(6)),
            tensor("B", "INT32", [1, 2], range(2)),
        ),
        "",
    ),
    (
        "typed for one, nothing for another",
        request("shapes", tensor("A", "FP32", [1, 2, 3], fp32_contents=range(6)), tensor("B", "INT32", [1, 2])),
        "",
    ),
    *(
        (f"typed {datatype}", _echo(datatype, len(values), **{field: values}), "")
        for datatype, field, values in (
            ("BOOL", "bool_contents", [True, False]),
            ("INT8", "int_contents", [-128, 127]),
            ("INT16", "int_contents", [-32768, 32767]),
            ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
            ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
            ("UINT8", "uint_contents", [0, 255]),
            ("UINT16", "uint_contents", [0, 65535]),
            ("UINT32", "uint_contents", [0, 2**32 - 1]),
            ("UINT64", "uint64_contents", [0, 2**64 - 1]),
            ("FP32", "fp32_contents", [0.5, -1e30]),
            ("FP64", "fp64_contents", [0.1, -1e300]),
            ("BYTES", "bytes_contents", [b"a", b"", "ä".encode()]),
        )
    ),
    ("typed INT8 that does not fit", _echo("INT8", 2, int_contents=[300, -200]), ""),
    ("typed UINT16 that does not fit", _echo("UINT16", 1, uint_contents=[70000]), ""),
    ("typed FP16", _echo("FP16", 1, fp32_contents=[1.0]), ""),
    ("typed UINT8 in the signed field", _echo("UINT8", 1, int_contents=[1]), ""),
    ("typed INT64 in the narrow field", _echo("INT64", 1, int_contents=[1]), ""),
    ("typed BYTES, too few", _echo("BYTES", 3, bytes_contents=[b"a"]), ""),
    ("raw FP16", _echo("FP16", 2, [0.5, -1]), ""),
    *(
        (f"raw {datatype}, {count} elements", _echo(datatype, count, range(count)), "")
        for datatype in ("UINT8", "INT16", "UINT32", "INT64", "FP32", "FP64")
        for count in (0, 1, 5)
    ),
)

_STRINGS: tuple[tuple[str, Any, str], ...] = (
    ("strings", _echo("BYTES", 2, text(b"a", b"bc")), ""),
    ("strings with zeros and bytes that are no text", _echo("BYTES", 2, text(b"a\0b\0", b"\xff\xfe")), ""),
    ("no strings", _echo("BYTES", 0, b""), ""),
    ("an empty string", _echo("BYTES", 1, text(b"")), ""),
    ("strings, too few", _echo("BYTES", 2, text(b"a")), ""),
    ("strings, too many", _echo("BYTES", 2, text(b"a", b"b", b"c")), ""),
    ("strings, none where there should be", _echo("BYTES", 2, b""), ""),
    ("strings, a length that ends early", _echo("BYTES", 2, text(b"a") + b"\1\0"), ""),
    ("strings, an element that ends early", _echo("BYTES", 2, text(b"a") + b"\5\0\0\0ab"), "string end"),
)

_SCORES = tensor("SCORES", "FP32", [2, 4], [1, 5, 3, 2, 9, 8, 7, 9])


def _classes(output: str, count: Any, scores: Any = _SCORES) -> Any:
    return request("classes", scores, outputs={output: {"classification": count}})


_CLASSES: tuple[tuple[str, Any, str], ...] = (
    *((f"{count!r} classes", _classes("LABELLED", count), "") for count in (1, 2, 4, 9, 0, -1, "1", 1.0, True)),
    ("classes without labels", _classes("PLAIN", 3), ""),
    ("classes of integers", _classes("RANKS", 3), ""),
    ("classes of halves", _classes("HALF", 3), ""),
    (
        "classes and another output",
        request("classes", _SCORES, outputs={"PLAIN": {}, "LABELLED": {"classification": 2}}),
        "",
    ),
)

CASES: list[Case] = [
    case for name, message, difference in _NAMES_AND_SHAPES for case in both(name, message, difference)
]
CASES += [one(name, infer(message), difference) for name, message, difference in (*_CONTENTS, *_STRINGS, *_CLASSES)]
