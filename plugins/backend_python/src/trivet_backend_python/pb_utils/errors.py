"""Errors that a model raises or puts into a response."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar

from trivet.errors import (
    AlreadyExistsError,
    Code,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RequestCancelledError,
    TrivetError,
    UnavailableError,
    UnimplementedError,
)


class TritonModelException(Exception):  # noqa: N818 - Triton's name
    """Something that a model asked of ``pb_utils`` cannot be done, or a failure that the model itself reports."""


class ErrorCode(IntEnum):
    """Kinds of failure, with Triton's numbers."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7


# The kernel has no "unknown"; a failure of unknown kind is the server's, not the caller's.
_ERRORS: dict[ErrorCode, type[TrivetError]] = {
    ErrorCode.UNKNOWN: InternalError,
    ErrorCode.INTERNAL: InternalError,
    ErrorCode.NOT_FOUND: NotFoundError,
    ErrorCode.INVALID_ARG: InvalidArgumentError,
    ErrorCode.UNAVAILABLE: UnavailableError,
    ErrorCode.UNSUPPORTED: UnimplementedError,
    ErrorCode.ALREADY_EXISTS: AlreadyExistsError,
    ErrorCode.CANCELLED: RequestCancelledError,
}
_CODES: Mapping[Code, ErrorCode] = {
    error.code: code for code, error in _ERRORS.items() if code is not ErrorCode.UNKNOWN
} | {
    Code.DEADLINE_EXCEEDED: ErrorCode.UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED: ErrorCode.UNAVAILABLE,
}


class TritonError:
    """The error of one response: a message for the caller, and its kind."""

    UNKNOWN: ClassVar = ErrorCode.UNKNOWN
    INTERNAL: ClassVar = ErrorCode.INTERNAL
    NOT_FOUND: ClassVar = ErrorCode.NOT_FOUND
    INVALID_ARG: ClassVar = ErrorCode.INVALID_ARG
    UNAVAILABLE: ClassVar = ErrorCode.UNAVAILABLE
    UNSUPPORTED: ClassVar = ErrorCode.UNSUPPORTED
    ALREADY_EXISTS: ClassVar = ErrorCode.ALREADY_EXISTS
    CANCELLED: ClassVar = ErrorCode.CANCELLED

    __slots__ = ("_code", "_message")

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INTERNAL) -> None:
        """Raises :class:`TypeError` for arguments of other types, a bare number among them."""
        if not isinstance(message, str):
            raise TypeError(f"TritonError: message must be a str, got {type(message).__name__}")
        if not isinstance(code, ErrorCode):
            raise TypeError(f"TritonError: code must be one of TritonError's codes, such as NOT_FOUND, got {code!r}")
        self._message = message
        self._code = code

    def message(self) -> str:
        """What the caller is told."""
        return self._message

    def code(self) -> ErrorCode:
        """Which kind of failure it is."""
        return self._code

    def __repr__(self) -> str:
        return f"TritonError({self._message!r}, {self._code.name})"


def to_kernel(error: TritonError) -> TrivetError:
    """The error that a protocol reports for a response's error."""
    return _ERRORS[error.code()](error.message())


def from_kernel(error: TrivetError) -> TritonError:
    """The error of another model's response, as the calling model sees it."""
    return TritonError(error.message, _CODES[error.code])
