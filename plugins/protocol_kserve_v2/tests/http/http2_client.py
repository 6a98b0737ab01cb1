"""One HTTP/2 connection that does what a polite client does not: reset streams, and leave them unread."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events


class Http2Client:
    """A context manager. It never grants the server more room than HTTP/2 begins with, 65,535 bytes."""

    def __init__(self, address: str) -> None:
        """``address`` is ``HOST:PORT``."""
        host, _, port = address.partition(":")
        self._address = address
        self._socket = socket.create_connection((host, int(port)), timeout=20)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def post(self, path: str, body: bytes) -> int:
        """Begin a stream; returns its id."""
        stream: int = self._h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", self._address)]
        self._h2.send_headers(stream, headers)
        self._h2.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def reset(self, stream: int) -> None:
        self._h2.reset_stream(stream)
        self._flush()

    def events(self) -> Iterator[h2.events.Event]:
        """What the server sends, one read after the other."""
        while received := self._socket.recv(65536):
            yield from self._h2.receive_data(received)
            self._flush()

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
