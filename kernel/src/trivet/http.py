"""The contract between protocols that speak HTTP and the transport that moves the bytes.

A protocol mounts :class:`Route` objects on a named listener (``"http"``, ``"metrics"``); an HTTP transport plugin owns
the sockets, parses, limits and writes. Neither imports the other. Everything here runs on the event loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Body = bytes | bytearray | memoryview
Header = tuple[bytes, bytes]


class HttpResponse:
    """A complete response, or the head of a streamed one.

    ``body`` is a sequence of buffers written one after the other without joining them; the transport adds
    ``content-length`` (or frames a stream), ``date`` is not sent. With ``stream`` set, ``body`` is ignored and the
    transport asks for the next chunk only when the client took the ones before; it closes the stream (``aclose``, where
    it has one) when the client goes away.
    """

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        body: Sequence[Body] = (),
        headers: Sequence[Header] = (),
        stream: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        """Names in lower case."""
        self.stream = stream


class HttpRequest(Protocol):
    """What a handler is given, once the body is complete."""

    @property
    def method(self) -> str:
        """As the client wrote it, e.g. ``"POST"``."""
        ...

    @property
    def path(self) -> str:
        """Percent-decoded, without the query."""
        ...

    @property
    def query(self) -> bytes:
        """Raw, without the question mark."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Names in lower case; a repeated header's values are joined by ``b", "``."""
        ...

    @property
    def body(self) -> Body:
        """The whole body as received, without transfer coding; content coding is the handler's."""
        ...

    @property
    def params(self) -> Mapping[str, str]:
        """Values of the route's ``{name}`` segments, percent-decoded."""
        ...

    @property
    def received_ns(self) -> int:
        """``time.perf_counter_ns()`` when the head of the request was complete."""
        ...

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        """Set by a handler that answers later: called once on the event loop if the client goes away before.

        With a stream for an answer it stays in place until the stream has ended, so that what feeds the stream is told
        at once.
        """
        ...

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """``None`` when nothing is left to be stopped."""
        ...

    def respond(self, response: HttpResponse) -> None:
        """Answer, from the event loop, exactly once; ignored when the client has gone."""
        ...


HandlerResult = HttpResponse | Awaitable[HttpResponse] | None
Handler = Callable[[HttpRequest], HandlerResult]
"""Returns the response; or ``None`` and calls ``request.respond`` later, which costs no
task; or a coroutine, which the transport runs in a task of its own and cancels when the client goes away. An exception
becomes a 500 with a log entry and never closes the server."""

NotFoundHandler = Callable[[HttpRequest, Sequence[str]], HttpResponse]
"""Takes the request and the methods that its path does allow (empty where the path is unknown): 404 or 405."""


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` is literal segments and ``{name}`` segments, e.g. ``/v2/models/{model}/infer``.

    A ``{name}`` matches one non-empty segment, percent-encoded slashes included. Literals win over names.
    """

    method: str
    path: str
    handler: Handler
    summary: str = ""


@dataclass(slots=True)
class Listener:
    """What is mounted under one listener's name by all protocols together."""

    name: str
    routes: list[Route] = field(default_factory=list)
    not_found: NotFoundHandler | None = None
    """Shapes 404 and 405 in the protocol's own way; the first protocol that sets it wins."""


class HttpTransport(ABC):
    """Serves listeners over HTTP. Constructed and run on the event loop; one per server."""

    @abstractmethod
    async def start(self, listeners: Mapping[str, Listener]) -> None:
        """Bind and accept; returns when all sockets listen. Raises :class:`OSError` naming a taken address."""

    @abstractmethod
    async def stop(self, grace_s: float) -> None:
        """Stop listening, let requests in flight finish for at most ``grace_s`` seconds, then close all connections."""

    @property
    @abstractmethod
    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Per listener, the URLs it answers on, e.g. ``{"http": ["http://127.0.0.1:8000"]}``."""
