"""Reading JSON as Triton's parser does. The errors are those that Triton 2.51 gave for the same text."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InternalError
from trivet_protocol_kserve_v2.codec.json_errors import diagnose
from trivet_protocol_kserve_v2.codec.json_reader import encode_text, read_json

REFUSED = [
    (b"", "The document is empty. at 0"),
    (b" ", "The document is empty. at 1"),
    (b"{", "Missing a name for object member. at 1"),
    (b"nul", "Invalid value. at 3"),
    (b'{"a":tru}', "Invalid value. at 8"),
    (b'{"a":nan}', "Invalid value. at 6"),
    (b'{"a"}', "Missing a colon after a name of object member. at 4"),
    (b'{"a":}', "Invalid value. at 5"),
    (b"[}", "Invalid value. at 1"),
    (b'{"a":[] x', "Missing a comma or '}' after an object member. at 8"),
    (b'{"a":[]} x', "The document root must not be followed by other values. at 9"),
    (b"{a:1}", "Missing a name for object member. at 1"),
    (b"{'a':1}", "Missing a name for object member. at 1"),
    (b'{"a":1,}', "Missing a name for object member. at 7"),
    (b'{"a":1 "b":2}', "Missing a comma or '}' after an object member. at 7"),
    (b"[1,]", "Invalid value. at 3"),
    (b"[1 2]", "Missing a comma or ']' after an array element. at 3"),
    (rb'["\x"]', "Invalid escape character in string. at 2"),
    (b'["\x01"]', "Invalid escape character in string. at 2"),
    (b'["a', "Missing a closing quotation mark in string. at 3"),
    (b'["a\\', "Invalid escape character in string. at 3"),
    (rb'["\u12g4"]', "Incorrect hex digit after \\u escape in string. at 2"),
    (rb'["\ud800"]', "The surrogate pair in string is invalid. at 2"),
    (rb'["\ude00"]', "The surrogate pair in string is invalid. at 2"),
    (b"[1.]", "Miss fraction part in number. at 3"),
    (b"[1e]", "Miss exponent in number. at 3"),
    (b"[1e999]", "Number too big to be stored in double. at 1"),
    (b"[01]", "Missing a comma or ']' after an array element. at 2"),
    (b"[-]", "Invalid value. at 2"),
    (b"[+1]", "Invalid value. at 1"),
    (b"[.5]", "Invalid value. at 1"),
    (b"[/*x*/1]", "Invalid value. at 1"),
    (b'\xff{"a":1}', "Invalid value. at 0"),
    (b'{"a":"x\x00y"}', "Missing a closing quotation mark in string. at 7"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_the_error_and_its_place(text: bytes, message: str) -> None:
    with pytest.raises(InternalError) as caught:
        read_json(text)
    assert str(caught.value) == f"failed to parse the request JSON buffer: {message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":[1,-2,3.5,"x",true,null]}', {"a": [1, -2, 3.5, "x", True, None]}),
        (b"[Infinity,-Infinity]", [math.inf, -math.inf]),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":1}\x00binary data without a header length', {"a": 1}),
        (b"[NaN,18446744073709551615]", [math.nan, 2**64 - 1]),
        (b"[NaN,18446744073709551616,-9223372036854775809]", [math.nan, 2.0**64, -(2.0**63)]),
        (rb'["\ud83d\ude00",NaN]', ["\U0001f600", math.nan]),
        (rb'["\\ud83d",NaN]', [r"\ud83d", math.nan]),
    ],
)
def test_what_triton_takes(text: bytes, value: Any) -> None:
    assert str(read_json(text)) == str(value)  # NaN is not equal to itself


def test_text_that_is_not_utf8_survives() -> None:
    (value,) = read_json(b'["\xff\xfe\xc3\xa9"]')
    assert encode_text(value) == b"\xff\xfe\xc3\xa9"


@pytest.mark.parametrize("text", [rb'["\ud83dx",NaN]', rb'["\ud83d",NaN,"\ude00"]', rb'["\ud83d\u0041",NaN]'])
def test_half_a_surrogate_pair_beside_a_nan(text: bytes) -> None:
    with pytest.raises(InternalError, match=r"surrogate pair in string is invalid"):
        read_json(text)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[" * 5_000 + b"]" * 5_000])
def test_depth_is_bounded(text: bytes) -> None:
    with pytest.raises(InternalError, match=r"Nested too deeply"):
        read_json(text)


def test_an_error_far_into_a_large_text() -> None:
    with pytest.raises(InternalError, match=r"Invalid value. at 200001$"):
        read_json(b"[" + b"1," * 100_000 + b"]")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_json(data)
    except InternalError as error:
        assert str(error).startswith("failed to parse the request JSON buffer: ")  # noqa: PT017


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_json_of_the_standard_library_is_read_back(value: Any) -> None:
    text = json.dumps(value)
    assert diagnose(text.encode()) is None
    assert str(read_json(text.encode())) == str(value)


@given(JSON_VALUES, st.data())
def test_the_diagnosis_agrees_that_a_cut_text_is_no_json(value: Any, data: st.DataObject) -> None:
    text = json.dumps([value]).encode()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    found = diagnose(cut)
    assert found is not None
    assert 0 <= found.offset <= len(cut)
