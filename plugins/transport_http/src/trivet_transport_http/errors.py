"""What the transport itself answers: requests that never reach a handler, and handlers that fail."""

from __future__ import annotations

import json

from trivet.http import HttpResponse

JSON_HEADERS = ((b"content-type", b"application/json"),)


class HttpError(Exception):
    """A request that the transport refuses. The connection is closed after the answer: where the next request would
    begin cannot be known.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def response(self) -> HttpResponse:
        return error_response(self.status, str(self))


def error_response(status: int, message: str) -> HttpResponse:
    """``{"error": message}`` as JSON, the shape that Triton's clients look for."""
    return HttpResponse(status, (json.dumps({"error": message}).encode(),), JSON_HEADERS)


def internal_error() -> HttpResponse:
    """What a client sees of a handler that raised: that it did. The log has the rest."""
    return error_response(500, "internal server error; the server's log has the details")
