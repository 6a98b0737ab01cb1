"""The entry point: what this package offers, without importing any of it."""

from __future__ import annotations

from collections.abc import Sequence

from trivet import hookimpl
from trivet.hookspecs import HttpTransportPlugin

from trivet_transport_http.options import OPTIONS


@hookimpl
def trivet_http_transports() -> Sequence[HttpTransportPlugin]:
    """The one HTTP transport of this package."""
    return [
        HttpTransportPlugin(
            name="http",
            factory="trivet_transport_http.transport:create",
            options=OPTIONS,
            description="HTTP/1.1 on httptools and uvloop; HTTP/2 and HTTP/3 on hypercorn",
        )
    ]
