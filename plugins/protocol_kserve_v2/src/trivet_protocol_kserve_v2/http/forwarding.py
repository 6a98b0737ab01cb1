"""What an inference request takes over from the headers of the call that brought it."""

from __future__ import annotations

import re

from trivet.errors import InvalidArgumentError
from trivet.http import HttpRequest
from trivet.inference import InferenceRequest


class HeaderForwarding:
    """Headers that become parameters of the request, and the caller's trace context (W3C)."""

    def __init__(self, pattern: str = "") -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for what is no regular expression; "" forwards none."""
        self._pattern: re.Pattern[bytes] | None = None
        if pattern:
            try:
                self._pattern = re.compile(pattern.encode(), re.IGNORECASE)
            except re.error as error:
                raise InvalidArgumentError(
                    f"--http-header-forward-pattern={pattern}: not a regular expression: {error}"
                ) from None

    def apply(self, call: HttpRequest, request: InferenceRequest) -> None:
        """Add to ``request`` what ``call`` has for it, and note how it came."""
        request.protocol = "HTTP"
        headers = call.headers
        if self._pattern is not None:
            forwarded = {
                name.decode("latin-1"): value.decode("utf-8", "surrogateescape")
                for name, value in headers.items()
                if self._pattern.search(name)
            }
            if forwarded:
                request.parameters = {**request.parameters, **forwarded}
        if b"traceparent" in headers:
            request.trace_context = {
                name: headers[name.encode()].decode("latin-1")
                for name in ("traceparent", "tracestate")
                if name.encode() in headers
            }
