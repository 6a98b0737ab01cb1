"""Settings of backends, read from text that anybody wrote."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError
from trivet.parameters import Parameters, warn_of_similar

READERS: dict[str, Callable[[Parameters], Any]] = {
    "integer": lambda p: p.integer("x", 0, 10),
    "fraction": lambda p: p.fraction("x", 0.0),
    "boolean": lambda p: p.boolean("x"),
    "choice": lambda p: p.choice("x", {"a": 1, "b": 2}, default=0),
    "mapping": lambda p: p.mapping("x"),
}


def parameters(value: str) -> Parameters:
    return Parameters("model 'm'", {"x": value})


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        ("integer", "0", 0),
        ("integer", "10", 10),
        ("fraction", "0.25", 0.25),
        ("fraction", ".5", 0.5),
        ("fraction", "1", 1.0),
        ("boolean", "On", True),
        ("boolean", "0", False),
        ("choice", "b", 2),
        ("mapping", '{"a": [1]}', {"a": [1]}),
    ],
)
def test_a_value_that_is_allowed(reader: str, value: str, expected: Any) -> None:
    assert READERS[reader](parameters(value)) == expected


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        ("integer", "11", "an integer from 0 to 10"),
        ("integer", "-1", "an integer from 0 to 10"),
        ("integer", "१", "an integer from 0 to 10"),
        ("integer", "9" * 5000, "an integer from 0 to 10"),
        ("fraction", "1.01", "a number from 0 to 1"),
        ("fraction", "nan", "a number from 0 to 1"),
        ("boolean", "yes", "one of true, on, 1, false, off, 0"),
        ("choice", "c", "one of a, b"),
        ("mapping", "[]", "a JSON object"),
        ("mapping", "[" * 100_000, "a JSON object"),
    ],
)
def test_a_value_that_is_not(reader: str, value: str, expected: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        READERS[reader](parameters(value))
    assert raised.value.message == f"parameter 'x' of model 'm' is '{value}', expected {expected}"


@pytest.mark.parametrize("reader", READERS)
@given(value=st.text())
def test_any_text_is_read_or_refused(reader: str, value: str) -> None:
    with suppress(InvalidArgumentError):
        READERS[reader](parameters(value))


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_given_has_a_default(reader: str) -> None:
    assert not READERS[reader](Parameters("model 'm'", {}))


def test_a_name_close_to_a_known_one_is_told(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test")
    warn_of_similar("model 'm'", ["num_thread", "mine", "NUM_THREADS"], ["NUM_THREADS"], logger)
    assert [record.getMessage() for record in caplog.records] == [
        "model 'm' sets parameter 'num_thread', which has no effect; did you mean 'NUM_THREADS'?"
    ]
