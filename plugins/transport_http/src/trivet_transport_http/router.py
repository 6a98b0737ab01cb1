"""Which handler answers a method and a path: no I/O, shared by all lanes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes

from trivet.http import Handler, HttpResponse, NotFoundHandler, Route

from trivet_transport_http.errors import error_response

_NO_PARAMS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Match:
    """Where a request goes."""

    handler: Handler
    """The route's; where there is no route, one that says so."""
    path: str
    """Percent-decoded."""
    params: Mapping[str, str]


@dataclass(slots=True)
class _Node:
    """One segment in the tree of routes."""

    literals: dict[str, _Node] = field(default_factory=dict)
    named: _Node | None = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)
    """By method: the route, and the names of its ``{name}`` segments from left to right."""


class Router:
    """Finds routes. Literal segments win over ``{name}`` segments, from left to right.

    A path that only a less literal route allows the method for is still served by it. ``HEAD`` is served by ``GET``
    where no route of its own exists. Paths are compared after percent-decoding, segment by segment: an encoded slash
    never separates segments. A trailing slash is a segment, an empty one, and so matches nothing but itself.

    Used on one event loop: what it remembers has no lock.
    """

    CACHE_SIZE = 1024
    """Paths that are remembered; when there are more, all are forgotten."""
    CACHED_LENGTH = 512
    """Bytes up to which a path is remembered."""

    def __init__(self, routes: Iterable[Route], not_found: NotFoundHandler | None = None) -> None:
        """:class:`ValueError` if two routes have the same method and the same shape, or a path is malformed."""
        self._root = _Node()
        self._not_found = not_found or _plain_not_found
        self._cache: dict[tuple[str, bytes], Match] = {}
        methods: set[str] = set()
        for route in routes:
            self._add(route)
            methods.add(route.method)
        self._methods = _with_head(methods)

    def resolve(self, method: str, raw_path: bytes) -> Match:
        """The match for ``raw_path``, still percent-encoded and without the query."""
        key = (method, raw_path)
        match = self._cache.get(key)
        if match is None:
            match = self._search(method, raw_path)
            # Paths come from clients: bound what they can make us keep. Hot ones are back after one search each.
            if len(raw_path) <= self.CACHED_LENGTH:
                if len(self._cache) >= self.CACHE_SIZE:
                    self._cache.clear()
                self._cache[key] = match
        return match

    def _add(self, route: Route) -> None:
        if not route.path.startswith("/"):
            raise ValueError(f"route {route.method} {route.path}: the path must start with a slash")
        node = self._root
        names = []
        for segment in route.path[1:].split("/"):
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                if node.named is None:
                    node.named = _Node()
                node = node.named
            elif "{" in segment or "}" in segment:
                raise ValueError(f"route {route.method} {route.path}: a segment is literal or one {{name}}, not both")
            else:
                node = node.literals.setdefault(segment, _Node())
        if len(set(names)) != len(names):
            raise ValueError(f"route {route.method} {route.path}: a name occurs twice")
        if route.method in node.routes:
            other = node.routes[route.method][0]
            raise ValueError(f"two routes answer the same requests: {route.method} {other.path} and {route.path}")
        node.routes[route.method] = (route, tuple(names))

    def _search(self, method: str, raw_path: bytes) -> Match:
        if raw_path == b"*" and method == "OPTIONS":
            return Match(_Missing(self._methods, _all_methods), "*", _NO_PARAMS)
        if not raw_path.startswith(b"/"):
            return Match(_Missing((), self._not_found), raw_path.decode("utf-8", "replace"), _NO_PARAMS)
        if b"%" in raw_path:
            segments = [unquote_to_bytes(s).decode("utf-8", "replace") for s in raw_path[1:].split(b"/")]
        else:
            segments = raw_path[1:].decode("utf-8", "replace").split("/")
        path = "/" + "/".join(segments)
        leaves: list[tuple[_Node, list[str]]] = []
        _collect(self._root, segments, 0, [], leaves)
        for wanted in (method, "GET") if method == "HEAD" else (method,):
            for node, values in leaves:
                found = node.routes.get(wanted)
                if found is not None:
                    route, names = found
                    params = MappingProxyType(dict(zip(names, values, strict=True))) if names else _NO_PARAMS
                    return Match(route.handler, path, params)
        allowed = _with_head({name for node, _ in leaves for name in node.routes})
        return Match(_Missing(allowed, self._not_found), path, _NO_PARAMS)


@dataclass(frozen=True, slots=True)
class _Missing:
    """The handler of a path without a route for the method. Adds ``allow``, which a 405 must have."""

    allowed: tuple[str, ...]
    respond: NotFoundHandler

    def __call__(self, request: Any) -> HttpResponse:
        response = self.respond(request, self.allowed)
        if self.allowed and not any(name == b"allow" for name, _ in response.headers):
            headers = (*response.headers, (b"allow", ", ".join(self.allowed).encode()))
            return HttpResponse(response.status, response.body, headers)
        return response


def _plain_not_found(_: Any, allowed: Sequence[str]) -> HttpResponse:
    return error_response(405, "Method Not Allowed") if allowed else error_response(404, "Not Found")


def _all_methods(_: Any, __: Sequence[str]) -> HttpResponse:
    return HttpResponse(204)


def _collect(
    node: _Node, segments: Sequence[str], index: int, values: list[str], leaves: list[tuple[_Node, list[str]]]
) -> None:
    """Append every node with routes that ``segments[index:]`` leads to, the most literal first."""
    if index == len(segments):
        if node.routes:
            leaves.append((node, values))
        return
    segment = segments[index]
    literal = node.literals.get(segment)
    if literal is not None:
        _collect(literal, segments, index + 1, values, leaves)
    if node.named is not None and segment:
        _collect(node.named, segments, index + 1, [*values, segment], leaves)


def _with_head(methods: set[str]) -> tuple[str, ...]:
    return tuple(sorted(methods | {"HEAD"} if "GET" in methods else methods))
