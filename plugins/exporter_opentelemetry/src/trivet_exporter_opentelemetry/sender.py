"""OTLP over HTTP: posts what is encoded, and tries again where the collector says that this may help.

Source: the OpenTelemetry protocol specification, "OTLP/HTTP Response" and "OTLP/HTTP Throttling".
"""

from __future__ import annotations

import gzip
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from trivet_exporter_opentelemetry.options import Target

_RETRYABLE = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_LONGEST_ANSWER = 64 * 1024
"""Bytes: what is longer comes from something else than a collector, and perhaps without end."""
_LONGEST_REASON = 200
"""Characters: a text that says why may quote what came."""


class SendError(Exception):
    """What could not be delivered is lost; the text says why."""


class Sender:
    """Posts to one URL over one connection, kept. Used by one thread; :meth:`close` from any."""

    def __init__(self, target: Target) -> None:
        self._target = target
        parts = urlsplit(target.url)
        assert parts.hostname is not None
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=target.timeout_s)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"content-type": "application/x-protobuf", "user-agent": "trivet", **target.headers}
        if target.compressed:
            self._headers["content-encoding"] = "gzip"
        self._stopping = threading.Event()

    def send(self, payload: bytes) -> None:
        """Deliver, within the target's timeout, tries again included. Raises :class:`SendError`."""
        body = gzip.compress(payload, 1) if self._target.compressed else payload
        deadline = time.monotonic() + self._target.timeout_s
        pause = _FIRST_PAUSE_S
        while True:
            problem, retryable, wanted_pause = self._post(body)
            if problem is None:
                return
            pause = min(wanted_pause or pause, _LONGEST_PAUSE_S)
            if not retryable or time.monotonic() + pause > deadline or self._stopping.wait(pause):
                raise SendError(problem)
            pause *= 2

    def _post(self, body: bytes) -> tuple[str | None, bool, float]:
        """What went wrong, whether to try again, and how long to wait where the collector says."""
        connection = self._connection
        try:
            for attempt in (1, 2):
                kept = connection.sock is not None
                try:
                    connection.request("POST", self._path, body, self._headers)
                    response = connection.getresponse()
                    response.read(_LONGEST_ANSWER)
                    if not response.isclosed():
                        connection.close()
                    break
                except (HTTPException, OSError):
                    connection.close()
                    # One that was kept has perhaps been closed meanwhile; a new one shows.
                    if attempt == 2 or not kept:
                        raise
        except (HTTPException, OSError) as error:
            return f"{type(error).__name__}: {error}"[:_LONGEST_REASON], True, 0.0
        if 200 <= response.status < 300:
            return None, False, 0.0
        after = response.headers.get("retry-after", "")
        return f"status {response.status}", response.status in _RETRYABLE, float(after) if after.isdecimal() else 0.0

    def close(self) -> None:
        """Wait for no further try."""
        self._stopping.set()

    def disconnect(self) -> None:
        """Close the connection, when nothing is sent any more."""
        self._connection.close()
