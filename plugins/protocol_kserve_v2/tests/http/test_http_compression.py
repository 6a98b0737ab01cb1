"""Content codings: what is chosen, what is read, and what is refused before it fills the memory."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError, ResourceExhaustedError, TrivetError, UnimplementedError
from trivet_protocol_kserve_v2.codec.compression import compress, decompress, is_compressed, preferred_coding

LIMIT = 1000


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"", None),
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"gzip, deflate", "gzip"),
        (b"deflate, gzip", "deflate"),
        (b"gzip;q=0.5, deflate;q=0.8", "deflate"),
        (b"identity, gzip", None),
        (b"identity;q=0.4,gzip;q=0.5", "gzip"),
        (b"gzip;q=0", None),
        (b"gzip;q=x", None),
        (b"GZIP", None),
        (b"br", None),
        (b"*", None),
        (b";q=1", None),
        (b"\xff", None),
    ],
)
def test_the_coding_that_triton_answers_in(header: bytes, coding: str | None) -> None:
    assert preferred_coding(header) == coding


def test_content_encodings() -> None:
    assert is_compressed(b"gzip")
    assert is_compressed(b"deflate")
    assert not is_compressed(b"identity")
    for other in (b"br", b"GZIP", b"gzip, gzip", b""):
        with pytest.raises(UnimplementedError, match=r"^Unsupported compression type$"):
            is_compressed(other)


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress])
def test_either_format_is_read(encode: object) -> None:
    assert decompress(encode(b"x" * LIMIT), LIMIT) == b"x" * LIMIT  # type: ignore[operator]


def test_a_body_that_grows_too_large() -> None:
    bomb = gzip.compress(bytes(LIMIT + 1))
    with pytest.raises(ResourceExhaustedError, match="exceeds 1000 bytes"):
        decompress(bomb, LIMIT)


@pytest.mark.parametrize("body", [b"", b"plain", gzip.compress(b"x", mtime=0)[:-1], zlib.compress(b"x" * 500)[:10]])
def test_a_body_that_is_damaged(body: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="decompress"):
        decompress(body, LIMIT)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_content_or_refused(body: bytes, framed: bool) -> None:
    with contextlib.suppress(TrivetError):
        decompress(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body if framed else body, LIMIT)


@given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from(["gzip", "deflate"]))
def test_buffers_become_one_stream(buffers: list[bytes], coding: object) -> None:
    pieces = compress(buffers, coding)  # type: ignore[arg-type]
    assert decompress(b"".join(pieces), 10_000) == b"".join(buffers)
