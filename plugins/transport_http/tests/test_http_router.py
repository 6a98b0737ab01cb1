"""Which route answers what."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.http import HttpResponse, Route
from trivet_transport_http.router import Router


def router(*routes: str, not_found: Any = None) -> Router:
    """Routes as ``"GET /path"``; each handler answers with its own text."""
    return Router((route(text) for text in routes), not_found)


def route(text: str) -> Route:
    method, path = text.split(" ")
    return Route(method, path, lambda request: HttpResponse(200, (text.encode(),)))


def answer(router: Router, method: str, path: bytes) -> str:
    response = router.resolve(method, path).handler(None)
    assert isinstance(response, HttpResponse)
    return bytes(response.body[0]).decode() if response.status == 200 else str(response.status)


KSERVE = (
    "GET /v2",
    "GET /v2/health/live",
    "GET /v2/models/stats",
    "GET /v2/models/{model}",
    "GET /v2/models/{model}/versions/{version}",
    "POST /v2/models/{model}/infer",
    "POST /v2/models/{model}/versions/{version}/infer",
)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", b"/v2", "GET /v2"),
        ("GET", b"/v2/health/live", "GET /v2/health/live"),
        ("POST", b"/v2/models/resnet/infer", "POST /v2/models/{model}/infer"),
        ("POST", b"/v2/models/resnet/versions/3/infer", "POST /v2/models/{model}/versions/{version}/infer"),
        ("GET", b"/v2/models/stats", "GET /v2/models/stats"),
        ("GET", b"/v2/models/statsx", "GET /v2/models/{model}"),
        ("GET", b"/%762/health/l%69ve", "GET /v2/health/live"),
        ("HEAD", b"/v2/health/live", "GET /v2/health/live"),
        ("GET", b"/v2/", "404"),
        ("GET", b"//v2", "404"),
        ("GET", b"/", "404"),
        ("GET", b"", "404"),
        ("GET", b"*", "404"),
        ("CONNECT", b"example.com:443", "404"),
        ("GET", b"/v2/models/", "404"),
        ("GET", b"/v2/models//versions/1", "404"),
        ("GET", b"/V2", "404"),
        ("GET", b"/v2/models/a/b/c", "404"),
        ("POST", b"/v2/health/live", "405"),
        ("DELETE", b"/v2/models/resnet/infer", "405"),
        ("HEAD", b"/v2/models/resnet/infer", "405"),
    ],
)
def test_the_route_for_a_path(method: str, path: bytes, expected: str) -> None:
    assert answer(router(*KSERVE), method, path) == expected


def test_names_are_decoded_after_splitting() -> None:
    match = router(*KSERVE).resolve("GET", b"/v2/models/a%2Fb%20%C3%A9/versions/1")
    assert match.params == {"model": "a/b é", "version": "1"}
    assert match.path == "/v2/models/a/b é/versions/1"


def test_a_name_that_is_not_utf8_still_reaches_its_route() -> None:
    assert router(*KSERVE).resolve("GET", b"/v2/models/%ff").params == {"model": "�"}


def test_a_less_literal_route_serves_the_methods_that_the_literal_one_does_not() -> None:
    both = router("GET /a/stats", "POST /a/{name}", "GET /{x}/stats", "PUT /{x}/stats")
    assert answer(both, "GET", b"/a/stats") == "GET /a/stats"
    assert answer(both, "POST", b"/a/stats") == "POST /a/{name}"
    assert answer(both, "PUT", b"/a/stats") == "PUT /{x}/stats"


def test_what_is_not_there_is_shaped_by_the_protocol() -> None:
    seen = []

    def not_found(request: Any, allowed: Any) -> HttpResponse:
        seen.append((request, tuple(allowed)))
        return HttpResponse(418)

    mine = router(*KSERVE, not_found=not_found)
    assert mine.resolve("GET", b"/nope").handler("request").headers == ()  # type: ignore[union-attr]
    response = mine.resolve("PUT", b"/v2/models/stats").handler("request")
    assert isinstance(response, HttpResponse)
    assert response.status == 418
    assert response.headers == ((b"allow", b"GET, HEAD"),)
    assert seen == [("request", ()), ("request", ("GET", "HEAD"))]


def test_options_of_the_server_as_a_whole() -> None:
    response = router("POST /a", "GET /b").resolve("OPTIONS", b"*").handler(None)
    assert isinstance(response, HttpResponse)
    assert (response.status, response.headers) == (204, ((b"allow", b"GET, HEAD, POST"),))


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        (("GET /a/{x}", "GET /a/{y}"), "two routes answer the same requests: GET /a/{x} and /a/{y}"),
        (("GET a",), "must start with a slash"),
        (("GET /a{x}",), "literal or one {name}"),
        (("GET /{x}/{x}",), "a name occurs twice"),
    ],
)
def test_routes_that_make_no_sense_are_refused(routes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        router(*routes)


def test_the_memory_of_paths_is_bounded() -> None:
    mine = router(*KSERVE)
    for number in range(3 * Router.CACHE_SIZE):
        assert answer(mine, "GET", b"/v2/models/m%d" % number) == "GET /v2/models/{model}"
    mine.resolve("GET", b"/" + b"x" * 10_000)
    assert len(mine._cache) <= Router.CACHE_SIZE
    assert all(len(path) <= Router.CACHED_LENGTH for _, path in mine._cache)


@given(st.text(min_size=1).filter(lambda s: s.isprintable()), st.text(min_size=1).filter(lambda s: s.isprintable()))
def test_any_name_comes_through_percent_encoding(model: str, version: str) -> None:
    path = f"/v2/models/{quote(model, safe='')}/versions/{quote(version, safe='')}"
    assert router(*KSERVE).resolve("GET", path.encode()).params == {"model": model, "version": version}


@given(st.binary())
def test_any_path_is_answered(path: bytes) -> None:
    assert answer(router(*KSERVE), "GET", path)
