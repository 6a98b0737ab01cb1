"""Cross-origin resource sharing: which web pages a browser lets call this server. Off unless origins are configured.

Source: the Fetch standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from trivet.http import Body, Handler, HandlerResult, Header, HttpRequest, HttpResponse, Route

_ANY = "*"
_PREFLIGHT_SECONDS = b"600"
# What a page may read beside the headers that every page may.
_EXPOSED = b"inference-header-content-length, content-encoding"


class Cors:
    """Adds the headers that tell a browser that a page of one of ``origins`` may read the answer."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = _ANY.encode() in self._origins

    @property
    def enabled(self) -> bool:
        """Whether any origin is allowed."""
        return bool(self._origins)

    def wrap(self, handler: Handler) -> Handler:
        """A handler whose answers carry the headers."""

        def handle(request: HttpRequest) -> HandlerResult:
            headers = self.headers(request)
            if not headers:
                return handler(request)
            result = handler(_Call(request, headers))
            if isinstance(result, HttpResponse):
                return _with(result, headers)
            return None if result is None else _with_later(result, headers)

        return handle

    def headers(self, request: HttpRequest) -> Sequence[Header]:
        """What to add to an answer to this request; nothing for a request from elsewhere."""
        origin = request.headers.get(b"origin")
        if origin is None or not (self._any or origin in self._origins):
            return ()
        allowed = _ANY.encode() if self._any else origin
        return (
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        )

    def preflight_routes(self, routes: Iterable[Route]) -> list[Route]:
        """A route for each path that answers whether its methods may be called with which headers."""
        methods: dict[str, list[str]] = {}
        for route in routes:
            methods.setdefault(route.path, []).append(route.method)
        return [
            Route("OPTIONS", path, self._preflight(", ".join(allowed)), "Tell a browser what it may do")
            for path, allowed in methods.items()
        ]

    def _preflight(self, methods: str) -> Handler:
        def handle(request: HttpRequest) -> HttpResponse:
            headers = self.headers(request)
            if not headers:
                return HttpResponse(403)
            wanted = request.headers.get(b"access-control-request-headers", b"")
            return HttpResponse(
                204,
                (),
                (
                    *headers,
                    (b"access-control-allow-methods", methods.encode()),
                    *(((b"access-control-allow-headers", wanted),) if wanted else ()),
                    (b"access-control-max-age", _PREFLIGHT_SECONDS),
                ),
            )

        return handle


class _Call:
    """An :class:`~trivet.http.HttpRequest` whose answer gets more headers."""

    def __init__(self, request: HttpRequest, headers: Sequence[Header]) -> None:
        self._request = request
        self._headers = headers
        self.method = request.method
        self.path = request.path
        self.query = request.query
        self.headers: Mapping[bytes, bytes] = request.headers
        self.body: Body = request.body
        self.params: Mapping[str, str] = request.params
        self.received_ns = request.received_ns

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        return self._request.on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        self._request.on_disconnect = callback

    def respond(self, response: HttpResponse) -> None:
        self._request.respond(_with(response, self._headers))


def _with(response: HttpResponse, headers: Sequence[Header]) -> HttpResponse:
    return HttpResponse(response.status, response.body, (*response.headers, *headers), response.stream)


async def _with_later(result: Awaitable[HttpResponse], headers: Sequence[Header]) -> HttpResponse:
    return _with(await result, headers)
