"""Content codings of HTTP bodies: gzip and deflate, in and out.

Source: RFC 9110, section 8.4; Triton for what it accepts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

from trivet.errors import InvalidArgumentError, ResourceExhaustedError, UnimplementedError
from trivet.tensor import Buffer

Coding = Literal["gzip", "deflate"]

SUPPORTED = "gzip, deflate"

# Window bits of zlib: 15 is the largest window, +16 writes a gzip header, +32 reads either header.
_READ_EITHER = 15 + 32
_WRITE = {"gzip": 15 + 16, "deflate": 15}
_CODINGS: dict[str, Coding] = {"gzip": "gzip", "deflate": "deflate"}


class UnknownCodingError(UnimplementedError):
    """A ``Content-Encoding`` that nobody here can undo."""


class ContentTooLargeError(ResourceExhaustedError):
    """A body that would be larger than it may be once it is decompressed."""


def is_compressed(content_encoding: bytes) -> bool:
    """Whether a body with this ``Content-Encoding`` has to be decompressed.

    Raises :class:`UnknownCodingError` for a coding that is not supported.
    """
    if content_encoding == b"identity":
        return False
    if content_encoding.decode("latin-1") not in _CODINGS:
        raise UnknownCodingError("Unsupported compression type")
    return True


def decompress(body: Buffer, limit: int) -> bytes:
    """The content of a body that is gzip or zlib data; which of both is told by the data, as in Triton.

    Raises :class:`~trivet.errors.InvalidArgumentError` where it is neither or ends early, and
    :class:`ContentTooLargeError` as soon as the content exceeds ``limit`` bytes.
    """
    if not body:
        raise InvalidArgumentError("nothing to be decompressed")
    inflater = zlib.decompressobj(_READ_EITHER)
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidArgumentError(f"failed to decompress the request body: {error}") from None
    if len(content) > limit:
        raise ContentTooLargeError(f"decompressed request body exceeds {limit} bytes")
    if not inflater.eof:
        raise InvalidArgumentError("failed to decompress the request body: it ends before the compressed data does")
    return content


def compress(buffers: Iterable[Buffer], coding: Coding) -> list[bytes]:
    """The buffers, one after the other, as one compressed stream in pieces."""
    deflater = zlib.compressobj(wbits=_WRITE[coding])
    pieces = [deflater.compress(buffer) for buffer in buffers]
    pieces.append(deflater.flush())
    return [piece for piece in pieces if piece]


def preferred_coding(accept_encoding: bytes) -> Coding | None:
    """The coding to answer in, ``None`` for none: the heaviest that is known, and of equal ones the first.

    As in Triton, names and ``;q=`` are matched exactly as written, and ``*`` means nothing.
    """
    best = "identity"
    best_weight = 0.0
    for item in accept_encoding.decode("latin-1").split(","):
        name, has_weight, weight_text = item.lstrip(" ").partition(";q=")
        try:
            weight = float(weight_text) if has_weight else 1.0
        except ValueError:
            continue
        if (name == "identity" or name in _CODINGS) and weight > best_weight:
            best, best_weight = name, weight
    return _CODINGS.get(best)
