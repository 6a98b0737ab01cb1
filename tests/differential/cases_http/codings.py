"""Content codings of requests and responses."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

from .case import HEADER_LENGTH, Case, binary_tensor, infer, one, post, tensor

_DOCUMENT = {"inputs": [tensor("IN_INT32", "INT32", [3], [1, 2, 3])]}
_JSON = json.dumps(_DOCUMENT).encode()
_BINARY_HEADER = json.dumps(
    {"inputs": [binary_tensor("IN_INT8", "INT8", [4], 4)], "parameters": {"binary_data_output": True}}
).encode()


def _send(body: bytes, headers: Mapping[str, str]) -> Any:
    return post(infer("types"), body, headers)


_REQUESTS: dict[str, tuple[bytes, str]] = {
    "gzip": (gzip.compress(_JSON), "gzip"),
    "deflate": (zlib.compress(_JSON), "deflate"),
    "gzip said to be deflate": (gzip.compress(_JSON), "deflate"),
    "deflate said to be gzip": (zlib.compress(_JSON), "gzip"),
    "identity": (_JSON, "identity"),
    "another coding": (_JSON, "br"),
    "upper case": (gzip.compress(_JSON), "GZIP"),
    "two codings": (gzip.compress(gzip.compress(_JSON)), "gzip, gzip"),
    "nothing in gzip": (b"", "gzip"),
    "bytes behind the data": (gzip.compress(_JSON) + b"junk", "gzip"),
    "two members": (gzip.compress(_JSON[:20]) + gzip.compress(_JSON[20:]), "gzip"),
    "no JSON": (gzip.compress(b"{"), "gzip"),
}

_DAMAGED: dict[str, tuple[bytes, str]] = {
    "no gzip": (b"notgzip", "gzip"),
    "raw deflate": (zlib.compress(_JSON)[2:-4], "deflate"),
    "ends early": (gzip.compress(_JSON)[:-10], "gzip"),
    "ends very early": (gzip.compress(_JSON)[:20], "gzip"),
}

CASES: list[Case] = [
    *(one(f"coding: {name}", _send(body, {"Content-Encoding": coding})) for name, (body, coding) in _REQUESTS.items()),
    *(
        one(f"coding: {name}", _send(body, {"Content-Encoding": coding}), "compressed")
        for name, (body, coding) in _DAMAGED.items()
    ),
    *(
        one(
            f"coding: header length {length - len(_BINARY_HEADER):+}",
            _send(
                gzip.compress(_BINARY_HEADER + b"\1\2\3\4"), {"Content-Encoding": "gzip", HEADER_LENGTH: str(length)}
            ),
        )
        for length in (len(_BINARY_HEADER), len(_BINARY_HEADER) + 4, len(_BINARY_HEADER) + 5)
    ),
    *(
        one(f"accepts {accepted!r}", _send(_JSON, {"Accept-Encoding": accepted}))
        for accepted in (
            "gzip",
            "deflate",
            "gzip, deflate",
            "deflate, gzip",
            "gzip;q=0.5, deflate;q=0.8",
            "identity;q=0.5, gzip;q=0.4",
            "identity, gzip",
            "gzip;q=0",
            "gzip;q=x",
            "gzip; q=0.5",
            "GZIP",
            "br",
            "*",
        )
    ),
    one(
        "accepts gzip, binary out",
        _send(_BINARY_HEADER + b"\1\2\3\4", {"Accept-Encoding": "gzip", HEADER_LENGTH: str(len(_BINARY_HEADER))}),
    ),
    one("accepts gzip, an error", _send(b"{", {"Accept-Encoding": "gzip"})),
]
