"""What kind of JSON value something is, and Triton's words for its not being the kind that is wanted.

Triton counts a value of the wrong kind as an internal error and answers 500; clients see that status.
"""

from __future__ import annotations

from typing import Any

from trivet.errors import InternalError

INT64_MIN, INT64_MAX, UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1

NOT_ARRAY = "attempt to access JSON non-array as array"
NOT_STRING = "attempt to access JSON non-string as string"
NOT_BOOLEAN = "attempt to access JSON non-boolean as boolean"
NOT_SIGNED = "attempt to access JSON non-signed-integer as signed-integer"
NOT_UNSIGNED = "attempt to access JSON non-unsigned-integer as unsigned-integer"
NOT_NUMBER = "attempt to access JSON non-number as double"
NOT_OBJECT = "attempt to get members for non-object"


def unparsable(what: str, problem: str) -> InternalError:
    """The error for a field that is missing or of the wrong kind."""
    return InternalError(f"Unable to parse '{what}': {problem}")


def absent(name: str) -> str:
    """The problem of a field that is not there."""
    return f"attempt to access non-existing object member '{name}'"


def string_member(value: dict[str, Any], name: str) -> str:
    """A field that must be there and be a string."""
    member = value.get(name)
    if type(member) is not str:
        raise unparsable(name, NOT_STRING if name in value else absent(name))
    return member


def array_member(value: dict[str, Any], name: str) -> list[Any]:
    """A field that must be there and be an array."""
    member = value.get(name)
    if type(member) is not list:
        raise unparsable(name, NOT_ARRAY if name in value else absent(name))
    return member


def unsigned(value: object, what: str) -> int:
    """An integer from 0 to 2**64 - 1; ``what`` names the field in the error."""
    if type(value) is not int or not 0 <= value <= UINT64_MAX:
        raise unparsable(what, NOT_UNSIGNED)
    return value


def boolean(value: object, what: str) -> bool:
    """``true`` or ``false``; ``what`` names the field in the error."""
    if type(value) is not bool:
        raise unparsable(what, NOT_BOOLEAN)
    return value


def text(value: object, what: str) -> str:
    """A string; ``what`` names the field in the error."""
    if type(value) is not str:
        raise unparsable(what, NOT_STRING)
    return value
