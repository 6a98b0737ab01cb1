"""What a case is, and short ways to write one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``body`` is ``None`` where there is none, not even an empty one."""

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """Requests that are sent one after the other, and whose answers are compared one by one.

    ``difference`` is the entry of the table of differences that says why an answer differs. ``ignoring`` are the keys
    of the documents whose values are not compared, because they measure or count.
    """

    name: str
    requests: tuple[Request, ...]
    difference: str = ""
    ignoring: frozenset[str] = frozenset()


def get(path: str, **headers: str) -> Request:
    return Request("GET", path, headers=_headers(headers))


def post(path: str, body: Any = b"", headers: Mapping[str, str] | None = None) -> Request:
    """``body`` is bytes, or a document that becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", path, content, tuple((headers or {}).items()))


def binary(path: str, document: Any, *parts: bytes, headers: Mapping[str, str] | None = None) -> Request:
    """A document with binary tensor data behind it."""
    header = json.dumps(document).encode()
    return post(path, header + b"".join(parts), {HEADER_LENGTH: str(len(header)), **(headers or {})})


def one(name: str, request: Request, difference: str = "") -> Case:
    """A case of one request."""
    return Case(name, (request,), difference)


def _headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in headers.items())


def infer(model: str) -> str:
    """The path that runs inference on a model."""
    return f"/v2/models/{model}/infer"


def tensor(name: str, datatype: str, shape: Any, data: Any) -> dict[str, Any]:
    """An input with its data in JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary_tensor(name: str, datatype: str, shape: Any, size: Any) -> dict[str, Any]:
    """An input whose data follows the JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def brief(value: object) -> str:
    """A value in the name of a case."""
    shown = "nothing" if value is ... else str(value)
    return shown if len(shown) <= 60 else f"{shown[:36]}...{shown[-24:]}, {len(shown)} characters"
