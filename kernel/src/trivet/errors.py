"""The errors a caller can get, and the one code by which every protocol maps them.

A protocol maps :class:`Code` to its own status once; nobody else needs to know status numbers. Messages say what was
wrong, what was expected, and which model and tensor it concerns.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Code(Enum):
    """What kind of failure an error is, in words that every protocol can translate."""

    NOT_FOUND = "not found"
    INVALID_ARGUMENT = "invalid argument"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline exceeded"
    CANCELLED = "cancelled"
    INTERNAL = "internal"
    ALREADY_EXISTS = "already exists"
    RESOURCE_EXHAUSTED = "resource exhausted"
    UNIMPLEMENTED = "unimplemented"


def message_of(error: BaseException) -> str:
    """``str(error)`` as text that can be sent and logged, whatever a model raised.

    Halves of surrogate pairs (from names of files that are not UTF-8) are escaped; an exception whose class does not
    manage to say anything has a text all the same.
    """
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # noqa: BLE001 - the code of a model's exception class may raise anything in turn
        return "<this exception has no text>"


def named_message_of(error: BaseException) -> str:
    """The same with the name of its class before it, for an exception that nobody foresaw."""
    return f"{type(error).__name__}: {message_of(error)}"


class TrivetError(Exception):
    """Base of all errors that are meant for a caller. ``str(error)`` is the message that goes over the wire."""

    code: ClassVar[Code] = Code.INTERNAL

    @property
    def message(self) -> str:
        """The text for the caller, without a traceback."""
        return str(self)


class NotFoundError(TrivetError):
    """The model, version, region or other named thing does not exist."""

    code = Code.NOT_FOUND


class InvalidArgumentError(TrivetError):
    """The request, configuration or option is malformed; sending it again cannot succeed."""

    code = Code.INVALID_ARGUMENT


class UnavailableError(TrivetError):
    """What was asked for exists but cannot serve now: not ready, draining, queue full, no such device."""

    code = Code.UNAVAILABLE


class DeadlineExceededError(TrivetError):
    """The request's timeout passed before a result was there."""

    code = Code.DEADLINE_EXCEEDED


class RequestCancelledError(TrivetError):
    """The caller cancelled the request or went away."""

    code = Code.CANCELLED


class InternalError(TrivetError):
    """The model, the backend or the server failed; the request itself was fine."""

    code = Code.INTERNAL


class AlreadyExistsError(TrivetError):
    """A thing of that name is there already."""

    code = Code.ALREADY_EXISTS


class ResourceExhaustedError(TrivetError):
    """A limit on size, count or memory was reached."""

    code = Code.RESOURCE_EXHAUSTED


class UnimplementedError(TrivetError):
    """The protocol knows the operation, this server does not offer it."""

    code = Code.UNIMPLEMENTED


def with_context(error: TrivetError, context: str) -> TrivetError:
    """An error of the same kind whose message begins with ``context``."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == __name__)
    wrapped: TrivetError = kind(f"{context}{message_of(error)}")
    wrapped.__cause__ = error
    return wrapped
