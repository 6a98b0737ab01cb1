"""What the transport itself answers: requests that never reach a handler, and handlers that fail."""

from __future__ import annotations

import json

from trivet.http import HttpResponse

JSON_HEADERS = ((b"content-type", b"application/json"),)

LINGER_S = 5.0
"""Seconds for which a refused client may go on sending, so that it comes to read why it was refused."""


class HttpError(Exception):
    """A request that the transport refuses. The connection is closed after the answer: where the next request would
    begin cannot be known.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def response(self) -> HttpResponse:
        """What the client is answered."""
        return error_response(self.status, str(self))


# The limits hold on every lane, and read the same on each.


def url_too_long(limit: int) -> HttpError:
    """For a request target of more than ``limit`` bytes."""
    return HttpError(414, f"the URL is longer than {limit} bytes (--http-max-url-length)")


def head_too_large(limit: int) -> HttpError:
    """For request line and headers of more than ``limit`` bytes together."""
    return HttpError(431, f"headers are larger than {limit} bytes (--http-max-header-size)")


def too_many_headers(limit: int) -> HttpError:
    """For more than ``limit`` headers."""
    return HttpError(431, f"more than {limit} headers (--http-max-header-count)")


def body_too_large(limit: int) -> HttpError:
    """For a body, announced or received, of more than ``limit`` bytes."""
    return HttpError(413, f"the body is larger than {limit} bytes (--http-max-body-size)")


def body_too_slow() -> HttpError:
    """For a body that is neither complete nor fast enough when its time is over."""
    return HttpError(408, "the body took too long to arrive (--http-body-timeout)")


def error_response(status: int, message: str) -> HttpResponse:
    """``{"error": message}`` as JSON, the shape that Triton's clients look for."""
    return HttpResponse(status, (json.dumps({"error": message}).encode(),), JSON_HEADERS)


def internal_error() -> HttpResponse:
    """What a client sees of a handler that raised: that it did. The log has the rest."""
    return error_response(500, "internal server error; the server's log has the details")
