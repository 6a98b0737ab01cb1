"""The chunked transfer coding."""

from __future__ import annotations

from itertools import pairwise

import pytest
from httptools import HttpParserError, HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st
from trivet_transport_http.chunked import ChunkedDecoder
from trivet_transport_http.errors import HttpError


def decode(data: bytes, cuts: list[int] | None = None, limit: int = 1 << 20) -> tuple[bytes, bytes] | None:
    """Body and what follows it, fed in pieces as a connection would; ``None`` if it is not complete."""
    decoder = ChunkedDecoder(limit)
    places = sorted({min(cut, len(data)) for cut in cuts or []} | {0, len(data)})
    held = bytearray()
    for start, stop in pairwise(places):
        held += data[start:stop]
        del held[: decoder.feed(held, 0, len(held))]
        if decoder.done:
            return bytes(decoder.body), bytes(held) + data[stop:]
    return None


def test_a_body_in_chunks() -> None:
    assert decode(b"4\r\nWiki\r\n6\r\npedia \r\nB\r\nin \r\nchunks\r\n0\r\n\r\nnext") == (
        b"Wikipedia in \r\nchunks"[:21],
        b"next",
    )


def test_extensions_and_trailers_are_dropped() -> None:
    data = b'3;name=value;quoted="x y"\r\nabc\r\n0;last\r\nX-Check: 1\r\nX-Other:\r\n\r\n'
    assert decode(data) == (b"abc", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\nabc\r\n0\r\n\r\n",
        b"+1\r\na\r\n0\r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b" 1\r\na\r\n0\r\n\r\n",
        b"1 \r\na\r\n0\r\n\r\n",
        b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nabc",
        b"00000000000000000000000000000001\r\na\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\rX0\r\n\r\n",
        b"0\r\nnot a trailer\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\nname : x\r\n\r\n",
        b"1;" + b"x" * 2000,
        b"1" * 2000,
    ],
)
def test_malformed_bodies_are_refused(data: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        decode(data)
    assert caught.value.status == 400


def test_limits() -> None:
    assert decode(b"5\r\nhello\r\n0\r\n\r\n", limit=5) == (b"hello", b"")
    for data in (b"6\r\n", b"3\r\nabc\r\n3\r\n", b"fffffffffffffff\r\n"):
        with pytest.raises(HttpError) as caught:
            decode(data, limit=5)
        assert caught.value.status == 413
    with pytest.raises(HttpError) as caught:
        decode(b"0\r\n" + b"a: b\r\n" * 100)
    assert caught.value.status == 431


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.binary(max_size=10),
    st.lists(st.integers(0, 500), max_size=20),
)
def test_how_a_body_is_cut_into_segments_makes_no_difference(chunks: list[bytes], rest: bytes, cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n" + rest
    assert decode(data, cuts) == (b"".join(chunks), rest)


class _Body:
    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@given(st.text("0123aF;\r\n xg:-", max_size=40).map(str.encode), st.lists(st.integers(0, 40), max_size=5))
def test_nothing_is_read_that_llhttp_reads_differently(data: bytes, cuts: list[int]) -> None:
    try:
        ours = decode(data, cuts)
    except HttpError:
        return
    theirs = _Body()
    parser = HttpRequestParser(theirs)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(data)
    except HttpParserError:
        # Either in the middle of a line that we still wait for the end of, or in what follows the body.
        assert theirs.complete or ours is None
    if theirs.complete:
        assert ours is not None
        assert theirs.body == ours[0]
