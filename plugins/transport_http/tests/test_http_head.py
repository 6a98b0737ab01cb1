"""Request line and headers: what is understood, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.http import HttpResponse, Route
from trivet.options import Settings
from trivet_transport_http.errors import HttpError
from trivet_transport_http.head import CHUNKED, Head, HeadParser
from trivet_transport_http.options import OPTIONS, Limits
from trivet_transport_http.router import Router


def parser(**limits: int) -> HeadParser:
    routes = [Route("POST", "/v2/models/{model}/infer", lambda request: HttpResponse())]
    return HeadParser(Router(routes), Limits.of(Settings.of(OPTIONS, **limits)))


def parse(raw: bytes, **limits: int) -> Head:
    return parser(**limits).parse(raw)


def refusal(raw: bytes, **limits: int) -> int:
    with pytest.raises(HttpError) as caught:
        parse(raw, **limits)
    assert str(caught.value)
    return caught.value.status


def post(*headers: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    return b"".join(
        (b"POST ", target, b" ", version, b"\r\n", b"Host: a\r\n", *(h + b"\r\n" for h in headers), b"\r\n")
    )


def test_a_head() -> None:
    head = parse(
        b"POST /v2/models/a%20b/infer?x=1&y HTTP/1.1\r\nHost: example.com\r\nContent-Length: 12\r\n"
        b"Accept: text/plain \r\naccept:\tapplication/json\r\nX-Empty:\r\n\r\n"
    )
    assert (head.method, head.match.path, head.query) == ("POST", "/v2/models/a b/infer", b"x=1&y")
    assert head.match.params == {"model": "a b"}
    assert dict(head.headers) == {
        b"host": b"example.com",
        b"content-length": b"12",
        b"accept": b"text/plain, application/json",
        b"x-empty": b"",
    }
    assert (head.content_length, head.keep_alive, head.is_head, head.expects_continue) == (12, True, False, False)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://example.com/a/b?q", "/a/b", b"q"),
        (b"HTTPS://example.com:8000/a", "/a", b""),
        (b"http://example.com", "/", b""),
        (b"http://example.com?q=/x", "/", b"q=/x"),
        (b"/http://example.com/a", "/http://example.com/a", b""),
        (b"/a??b", "/a", b"?b"),
        (b"*", "*", b""),
    ],
)
def test_forms_of_the_target(target: bytes, path: str, query: bytes) -> None:
    head = parse(post(target=target))
    assert (head.match.path, head.query) == (path, query)


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"HTTP/1.1", None, True),
        (b"HTTP/1.1", b"keep-alive", True),
        (b"HTTP/1.1", b"Close", False),
        (b"HTTP/1.1", b"keep-alive, close", False),
        (b"HTTP/1.1", b"close, keep-alive", False),
        (b"HTTP/1.0", None, False),
        (b"HTTP/1.0", b"Keep-Alive", True),
        (b"HTTP/1.0", b"keep-alive, close", False),
    ],
)
def test_whether_the_connection_stays(version: bytes, connection: bytes | None, keep_alive: bool) -> None:
    headers = [] if connection is None else [b"Connection: " + connection]
    assert parse(post(*headers, version=version)).keep_alive == keep_alive


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"Content-Length: 0", 0),
        (b"Content-Length: 5 ", 5),
        (b"Content-Length: 0005", 5),
        (b"content-length:7", 7),
        (b"Transfer-Encoding: chunked", CHUNKED),
        (b"transfer-encoding:\tChunked ", CHUNKED),
        (b"X: y", 0),
    ],
)
def test_where_the_body_ends(header: bytes, length: int) -> None:
    assert parse(post(header)).content_length == length


# Each of these is read in two ways by servers and proxies that are out there, or was.
SMUGGLING = [
    (b"Content-Length: 5", b"Content-Length: 5"),
    (b"Content-Length: 5", b"Content-Length: 6"),
    (b"Content-Length: 5, 5",),
    (b"Content-Length: 5, 6",),
    (b"Content-Length: +5",),
    (b"Content-Length: -5",),
    (b"Content-Length: 0x5",),
    (b"Content-Length: 5.0",),
    (b"Content-Length: 5e0",),
    (b"Content-Length: 5 5",),
    (b"Content-Length: 5;",),
    (b"Content-Length: \xb2",),
    (b"Content-Length:",),
    (b"Content-Length: 18446744073709551621",),
    (b"Content-Length: 99999999999999999999999999",),
    (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    (b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked, chunked",),
    (b"Transfer-Encoding: chunked, identity",),
    (b"Transfer-Encoding: gzip",),
    (b"Transfer-Encoding: identity",),
    (b"Transfer-Encoding: xchunked",),
    (b"Transfer-Encoding: chunkedx",),
    (b"Transfer-Encoding: \x0bchunked",),
    (b'Transfer-Encoding: "chunked"',),
    (b"Transfer-Encoding:",),
    (b"Transfer-Encoding : chunked",),
    (b"Transfer-Encoding\t: chunked",),
    (b"Content-Length : 5",),
    (b" Content-Length: 5",),
    (b"X: y", b" Transfer-Encoding: chunked"),
    (b"X: y", b"\tfolded"),
    (b"X: y\n Content-Length: 5",),
    (b"X: y\nTransfer-Encoding: chunked",),
    (b"X: y\rTransfer-Encoding: chunked",),
    (b"X: y\x00",),
    (b"X\x00: y",),
    (b"X y: z",),
    (b"no colon",),
    (b": no name",),
    (b"Host: b",),
    (b"X: \x7f",),
]


@pytest.mark.parametrize("headers", SMUGGLING, ids=repr)
def test_a_head_that_can_be_read_in_two_ways_is_refused(headers: tuple[bytes, ...]) -> None:
    assert refusal(post(*headers)) == 400


def test_codings_that_are_fine_and_not_ours_are_not_implemented() -> None:
    assert refusal(post(b"Transfer-Encoding: gzip, chunked")) == 501


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 400),
        (b"SOURCE / ICE/1.0\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"\r\n\r\n", 400),
    ],
)
def test_malformed_request_lines(raw: bytes, status: int) -> None:
    assert refusal(raw) == status


def test_http10_needs_no_host_and_knows_no_chunks() -> None:
    assert parse(b"GET / HTTP/1.0\r\n\r\n").is_http10
    assert refusal(post(b"Transfer-Encoding: chunked", version=b"HTTP/1.0")) == 400


def test_expectations() -> None:
    assert parse(post(b"Expect: 100-Continue", b"Content-Length: 5")).expects_continue
    assert not parse(post(b"Expect: 100-continue", version=b"HTTP/1.0")).expects_continue
    assert refusal(post(b"Expect: a pony")) == 417


def test_limits() -> None:
    assert refusal(post(*(b"X-%d: y" % i for i in range(128)))) == 431
    parse(post(*(b"X-%d: y" % i for i in range(127))))
    assert refusal(post(b"X: " + b"y" * 70_000)) == 431
    parse(post(b"X: " + b"y" * 60_000))
    assert refusal(post(target=b"/" + b"x" * 8192)) == 414
    parse(post(target=b"/" + b"x" * 8191))
    assert refusal(post(b"X: y"), http_max_header_count=1) == 431
    assert refusal(post(b"Content-Length: 11"), http_max_body_size=10) == 413
    parse(post(b"Content-Length: 10"), http_max_body_size=10)


def test_an_upgrade_that_nobody_offers_is_ignored() -> None:
    head = parse(post(b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 5"))
    assert (head.content_length, head.wants_h2c) == (5, False)


def test_asking_for_http2() -> None:
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    assert parse(post(*upgrade)).wants_h2c
    assert not parse(post(*upgrade, b"Content-Length: 5")).wants_h2c
    assert not parse(post(*upgrade[:2])).wants_h2c
    assert not parse(post(*upgrade[1:])).wants_h2c


def test_heads_that_come_again_are_remembered_by_their_bytes() -> None:
    mine = parser()
    raw = post(target=b"/v2/models/m/infer")
    mine.parse(raw)
    assert mine.lookup(raw) is None
    head = mine.parse(raw)
    assert mine.lookup(raw) is head
    with pytest.raises(TypeError):
        head.headers[b"host"] = b"other"  # type: ignore[index]
    for number in range(2 * HeadParser.SEEN_SIZE):
        mine.parse(post(b"X-Request-Id: %d" % number))
    assert mine.lookup(raw) is head
    for number in range(2 * HeadParser.CACHE_SIZE):
        for _ in range(2):
            mine.parse(post(b"X-Other: %d" % number))
    large = post(b"X: " + b"y" * HeadParser.CACHED_LENGTH)
    for _ in range(2):
        mine.parse(large)
    assert mine.lookup(large) is None
    assert len(mine._cache) <= HeadParser.CACHE_SIZE
    assert len(mine._seen) <= HeadParser.SEEN_SIZE


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(line: bytes, header: bytes) -> None:
    for raw in (line + b"\r\nHost: a\r\n\r\n", post(header)):
        try:
            parse(raw)
        except HttpError as error:
            assert 400 <= error.status < 600  # noqa: PT017 - both outcomes are fine


@given(st.text("GET /\r\n:abHTP1.0 \tContent-Length5chunked", max_size=80).map(str.encode))
def test_what_looks_like_a_request_is_parsed_or_refused(raw: bytes) -> None:
    with contextlib.suppress(HttpError):
        parse(raw + b"\r\n\r\n")
