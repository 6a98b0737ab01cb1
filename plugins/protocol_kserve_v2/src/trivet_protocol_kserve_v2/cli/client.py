"""A small blocking client of the protocol's HTTP side, on the standard library.

Source: Open Inference Protocol v2, REST; Triton's model repository, binary tensor data and generate extensions.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import click

_EVENT = b"data: "


class ServerError(click.ClickException):
    """The server cannot be reached, or answered with an error. The message is for the person at the terminal."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def model_path(name: str, version: str) -> tuple[str, ...]:
    """The path of a model below ``/v2``, in segments; ``version`` "" is the latest."""
    return ("models", name, "versions", version) if version else ("models", name)


class Client:
    """One connection to one server. Requests raise :class:`ServerError`."""

    def __init__(self, url: str, timeout_s: float, ca_certificate: str | None = None) -> None:
        """``url`` is ``HOST:PORT`` or has a scheme, and may have a path prefix.

        Raises :class:`click.UsageError` for a URL or a certificate file that will not do.
        """
        self.url = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise click.UsageError(f"--url {url}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise click.UsageError(f"--url {url}: expected HOST:PORT or http(s)://HOST:PORT")
        self._prefix = parts.path.rstrip("/")
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca_certificate)
            except OSError as error:
                raise click.UsageError(f"--ca-certificate {ca_certificate}: {error.strerror or error}") from error
            self._connection = http.client.HTTPSConnection(parts.hostname, port, timeout=timeout_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port or 80, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, *segments: str) -> Any:
        """The JSON document at ``/v2/SEGMENT/…``; segments are percent-encoded here."""
        return _json(self._exchange("GET", segments, None, {})[1])

    def post(self, *segments: str, document: Any = None) -> Any:
        """Post ``document`` as JSON and return the answer's JSON; ``None`` where the answer is empty."""
        body = json.dumps({} if document is None else document).encode()
        answer = self._exchange("POST", segments, body, {"Content-Type": "application/json"})[1]
        return _json(answer) if answer else None

    def post_binary(self, *segments: str, header: Mapping[str, Any], data: bytes) -> tuple[Any, bytes]:
        """An inference with the binary tensor data extension: JSON header and the tensors' bytes, both ways."""
        head = json.dumps(header).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        answered, answer = self._exchange("POST", segments, head + data, headers)
        length = answered.get("inference-header-content-length")
        if length is None:
            return _json(answer), b""
        return _json(answer[: int(length)]), answer[int(length) :]

    def post_for_events(self, *segments: str, document: Any) -> Iterator[Any]:
        """Post ``document`` as JSON; yields the JSON document of each server-sent event as it comes.

        Raises :class:`ServerError` where the server cannot be reached, refuses the request or answers with no stream.
        """
        body = json.dumps(document).encode()
        with self._reading():
            response = self._send("POST", segments, body, {"Content-Type": "application/json"})
            if response.headers.get_content_type() != "text/event-stream":
                _refuse_errors(self.url, response, response.read())
                raise ServerError("the server's answer is no stream of events; does it have the generate extension?")
            for line in response:
                if line.startswith(_EVENT):
                    yield _json(line.removeprefix(_EVENT))

    def _exchange(
        self, method: str, segments: tuple[str, ...], body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[dict[str, str], bytes]:
        with self._reading():
            response = self._send(method, segments, body, headers)
            answer = response.read()
        _refuse_errors(self.url, response, answer)
        return {name.lower(): value for name, value in response.getheaders()}, answer

    def _send(
        self, method: str, segments: tuple[str, ...], body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        path = "/".join([self._prefix, "v2", *(quote(segment, safe="") for segment in segments)])
        self._connection.request(method, path, body, dict(headers))
        return self._connection.getresponse()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Says what went wrong with the connection, as :class:`ServerError`."""
        try:
            yield
        except TimeoutError as error:
            raise ServerError(f"{self.url} did not answer in {self._connection.timeout:g} s (see --timeout)") from error
        except ConnectionRefusedError as error:
            raise ServerError(
                f"nobody listens at {self.url}; start a server with `trivet serve REPOSITORY`, or name one with --url"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
                reason = "it does not answer in HTTP; is that another port, such as gRPC's?"
            raise ServerError(f"cannot talk to {self.url}: {reason}") from error


def _refuse_errors(url: str, response: http.client.HTTPResponse, answer: bytes) -> None:
    if response.status >= 400:
        raise ServerError(_message(answer) or f"{url} answered {response.status} {response.reason}", response.status)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ServerError(f"the server's answer is not JSON ({error}); does it speak KServe v2?") from error


def _message(answer: bytes) -> str:
    """The ``error`` of an error body, "" where it has none."""
    try:
        document = json.loads(answer)
    except ValueError:
        return ""
    error = document.get("error", "") if isinstance(document, dict) else ""
    return str(error)
