"""The one mapping of the kernel's errors to HTTP and gRPC status.

Source: what Triton answers for each code of ``TRITONSERVER_Error``; what it has no code for takes the status that
stands for the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.errors import Code, TrivetError

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


def http_status(error: TrivetError) -> int:
    """The HTTP status that tells a client of ``error``."""
    return HTTP_STATUS[error.code]


def grpc_status(error: TrivetError) -> int:
    """The gRPC status code that tells a client of ``error``."""
    return GRPC_STATUS[error.code]
