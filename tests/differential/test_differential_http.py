"""The same requests over HTTP to a real Triton and to Trivet get the same status and equivalent bodies.

One connection per server carries all cases, good and bad: what one request does wrong must not cost the next.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .cases_http import CASES
from .cases_http.case import HEADER_LENGTH, Case, Request
from .cases_http.outputs import FATAL
from .differences import DIFFERENCES, render
from .messages import comparable
from .pairs import Endpoints

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "differences.md"

# Headers that are compared. Content-Type is, where the answer is a success with a body.
_HEADERS = ("content-encoding", "accept-encoding")


class Answer(NamedTuple):
    """What is compared of a response."""

    status: int
    headers: dict[str, str | None]
    document: Any
    """The JSON, a list of them where they are events, or the text where there is neither."""
    binary: bytes


class Client:
    """One connection, kept."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._connection = HTTPConnection(host, int(port), timeout=60)
        self.connected = 0

    def send(self, request: Request, ignoring: frozenset[str] = frozenset()) -> Answer:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
            self.connected += 1
        connection.putrequest(request.method, request.path, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value)
        if request.body is not None:
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body)
        response = connection.getresponse()
        return _answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read(), ignoring)

    def close(self) -> None:
        self._connection.close()


def _answer(status: int, headers: dict[str, str], body: bytes, ignoring: frozenset[str]) -> Answer:
    compared = {name: headers.get(name) for name in _HEADERS}
    if status == 200 and body:
        compared["content-type"] = headers.get("content-type")
    coding = headers.get("content-encoding")
    if coding is not None:
        body = gzip.decompress(body) if coding == "gzip" else zlib.decompress(body)
    if headers.get("content-type", "").startswith("text/event-stream"):
        return Answer(status, compared, _events(body, ignoring), b"")
    size = int(headers.get(HEADER_LENGTH.lower(), len(body)))
    return Answer(status, compared, _document(body[:size], ignoring), body[size:])


def _says_why(document: Any) -> bool:
    return any(map(_says_why, document)) if isinstance(document, list) else "error" in document


def _events(body: bytes, ignoring: frozenset[str]) -> list[Any]:
    *events, rest = body.split(b"\n\n")
    return [_document(event.removeprefix(b"data: "), ignoring) for event in events] + ([rest] if rest else [])


def _document(text: bytes, ignoring: frozenset[str]) -> Any:
    decoded = text.decode("utf-8", "surrogateescape")
    try:
        return _comparable(json.loads(decoded), ignoring)
    except ValueError:
        return decoded


def _comparable(value: Any, ignoring: frozenset[str]) -> Any:
    """Without what is ignored, and with what does not matter made equal: NaN, the order of names in messages, paths."""
    if isinstance(value, dict):
        return {key: "ignored" if key in ignoring else _comparable(item, ignoring) for key, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item, ignoring) for item in value]
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return comparable(value)
    return value


@pytest.fixture(scope="module")
def clients(real_triton: Endpoints, trivet: Endpoints) -> Iterator[tuple[Client, Client]]:
    both = Client(real_triton.http), Client(trivet.http)
    yield both
    for client in both:
        client.close()


@pytest.mark.differential
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_answer(case: Case, clients: tuple[Client, Client]) -> None:
    triton, trivet = clients
    answers = [(triton.send(request, case.ignoring), trivet.send(request, case.ignoring)) for request in case.requests]
    if not case.difference:
        for request, (theirs, ours) in zip(case.requests, answers, strict=True):
            assert ours == theirs, f"{request.method} {request.path}\nTriton: {theirs}\nTrivet: {ours}"
        assert trivet.connected == 1, "Trivet closed the connection"
    else:
        assert case.difference in DIFFERENCES
        same = all(theirs == ours for theirs, ours in answers)
        assert not same, f"the answers agree by now: take the difference '{case.difference}' off"
        assert all(ours.status < 500 or _says_why(ours.document) for _, ours in answers)


def test_what_ends_the_real_one(trivet: Endpoints) -> None:
    client = Client(trivet.http)
    answer = client.send(FATAL)
    client.close()
    assert answer.status == 400
    assert answer.document == {"error": "class result not available for output due to unsupported type 'BYTES'"}


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_the_published_table_is_this_one() -> None:
    command = "python tests/differential/differences.py > docs/reference/differences.md"
    assert PAGE.read_text() == render(), f"out of date; run: {command}"


def test_every_difference_is_shown_by_a_case() -> None:
    elsewhere = {name for name, difference in DIFFERENCES.items() if difference.transport in ("gRPC", "models")}
    elsewhere |= {"content type", "classes of text", "region message", "region offset", "cuda region"}
    shown = {case.difference for case in CASES} | elsewhere
    assert set(DIFFERENCES) <= shown
