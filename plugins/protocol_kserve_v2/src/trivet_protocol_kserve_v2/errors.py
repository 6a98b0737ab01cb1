"""The one mapping of the kernel's errors to HTTP and gRPC status.

Source: what Triton answers for each code of ``TRITONSERVER_Error``; what it has no code for takes the status that
stands for the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.errors import Code, TrivetError, message_of

HTTP_STATUS: Mapping[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.ALREADY_EXISTS: 400,
    Code.CANCELLED: 400,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    # Triton rejects a request that waited too long as unavailable, and clients retry on that.
    Code.DEADLINE_EXCEEDED: 503,
}

GRPC_STATUS: Mapping[Code, int] = {
    Code.CANCELLED: 1,
    Code.INVALID_ARGUMENT: 3,
    Code.NOT_FOUND: 5,
    Code.ALREADY_EXISTS: 6,
    Code.RESOURCE_EXHAUSTED: 8,
    Code.UNIMPLEMENTED: 12,
    Code.INTERNAL: 13,
    Code.UNAVAILABLE: 14,
    Code.DEADLINE_EXCEEDED: 14,
}
"""Canonical gRPC codes as numbers, so that nothing of gRPC is imported to know them."""


_DETAILS_SIZE = 6 * 1024
"""Bytes of a percent-encoded message. The rest of the 8 KiB is for the other headers."""


def http_status(error: TrivetError) -> int:
    """The HTTP status that tells a client of ``error``."""
    return HTTP_STATUS[error.code]


def grpc_status(error: TrivetError) -> int:
    """The gRPC status code that tells a client of ``error``."""
    return GRPC_STATUS[error.code]


def grpc_details(error: TrivetError) -> str:
    """The message that goes with the status.

    It travels in a header, percent-encoded, and clients refuse headers of more than 8 KiB in all: of a longer message,
    a model's deep traceback, they would see nothing but that. So it ends where it would grow too long.
    """
    message = message_of(error)
    if len(message) <= _DETAILS_SIZE // 12:  # a character takes at most four bytes, a byte three of percent-encoding
        return message
    size = 0
    for index, character in enumerate(message):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if size > _DETAILS_SIZE:
            return f"{message[:index]}..."
    return message
