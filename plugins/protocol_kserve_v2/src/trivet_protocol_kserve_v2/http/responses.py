"""The responses of the protocol: JSON documents, and errors as ``{"error": "..."}``.

Every body that is JSON says so. Triton sends the errors of some endpoints as ``text/plain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trivet.errors import TrivetError
from trivet.http import Header, HttpResponse

from trivet_protocol_kserve_v2.codec.json_writer import quote, write_json
from trivet_protocol_kserve_v2.errors import http_status

JSON: Sequence[Header] = ((b"content-type", b"application/json"),)


def json_response(document: Any, status: int = 200) -> HttpResponse:
    """A document of plain values, whose text may quote what clients sent."""
    return HttpResponse(status, (write_json(document),), JSON)


def error_response(error: TrivetError, status: int | None = None, headers: Sequence[Header] = ()) -> HttpResponse:
    """The answer to a request that failed; ``status`` only where it is not the usual one of the error's code."""
    # Its traceback leads to the request, which leads to the error. Nobody needs it any more, and it would keep the
    # request's memory until the next collection.
    error.__traceback__ = None
    return _error(status or http_status(error), error.message, headers)


def forbidden(message: str) -> HttpResponse:
    """403 for a request that lacks the secret of a restricted API."""
    return _error(403, message)


def method_not_allowed(allowed: Sequence[str]) -> HttpResponse:
    """405 with the methods that the path does allow."""
    return _error(405, "Method Not Allowed", ((b"allow", ", ".join(allowed).encode()),))


def not_found() -> HttpResponse:
    """404 for a path that is not of the protocol."""
    return _error(404, "Not Found")


def _error(status: int, message: str, headers: Sequence[Header] = ()) -> HttpResponse:
    # Messages quote what clients sent, which need not have been UTF-8.
    return HttpResponse(status, (b'{"error":' + quote(message) + b"}",), (*JSON, *headers))
