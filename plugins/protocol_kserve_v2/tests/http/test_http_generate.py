"""The generate extension from outside, over HTTP/1.1 and HTTP/2: answers, streams, slow clients and those that go."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h2.events
import httpx
import pytest
from trivet.errors import RequestCancelledError, ResourceExhaustedError, TrivetError, UnavailableError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.testing import RunningServer

from .http2_client import Http2Client

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
NOT_ONE = (
    "generate expects model to produce exactly 1 response, use generate stream for model that generates various number"
    " of responses"
)


def generate(client: httpx.Client, model: str, document: Any, **options: Any) -> tuple[int, str, Any]:
    response = client.post(f"/v2/models/{model}/generate", json=document, **options)
    return response.status_code, response.headers["content-type"], response.json()


def stream(client: httpx.Client, model: str, document: Any) -> tuple[int, str, list[Any]]:
    response = client.post(f"/v2/models/{model}/generate_stream", json=document)
    return response.status_code, response.headers["content-type"], list(events(response.content))


def events(body: bytes) -> Iterator[Any]:
    """The documents of a body of events, which must be nothing but events."""
    *found, rest = body.split(b"\n\n")
    assert rest == b""
    for event in found:
        assert event.startswith(b"data: ")
        yield json.loads(event[6:])


def repeated(*values: int) -> list[dict[str, Any]]:
    return [{"OUT": value, "model_name": "repeat", "model_version": "1"} for value in values]


class TestOneResponse:
    def test_a_model_that_answers_once(self, client: httpx.Client) -> None:
        status, content_type, document = generate(client, "double", {"INPUT0": [1.5] * 16, "id": "q"})

        assert (status, content_type) == (200, JSON)
        assert document == {"OUTPUT0": [3.0] * 16, "id": "q", "model_name": "double", "model_version": "1"}

    def test_a_decoupled_model_that_answers_once(self, client: httpx.Client) -> None:
        assert generate(client, "repeat", {"IN": 7}) == (200, JSON, *repeated(7))

    @pytest.mark.parametrize("values", [[], [1, 2], [-1, 2], [1, -2]])
    def test_a_model_that_answers_otherwise(self, client: httpx.Client, values: list[int]) -> None:
        assert generate(client, "repeat", {"IN": values}) == (500, JSON, {"error": NOT_ONE})

    def test_no_third_response_is_waited_for(self, client: httpx.Client, gate: Any) -> None:
        """The model would wait at the gate for ever, was its request not cancelled."""
        assert generate(client, "repeat", {"IN": [1, 2, 8100]}) == (500, JSON, {"error": NOT_ONE})

    def test_an_error_of_the_model(self, client: httpx.Client) -> None:
        assert generate(client, "repeat", {"IN": -3}) == (500, JSON, {"error": "negative element -3"})

    def test_a_version(self, client: httpx.Client) -> None:
        assert generate(client, "repeat/versions/1", {"IN": 7}) == (200, JSON, *repeated(7))

    def test_parameters_both_ways(self, client: httpx.Client) -> None:
        status, _, document = generate(
            client, "parameters", {"IN": 1, "top_k": 3, "parameters": {"timeout": 5}}, headers={"x-fwd-user": "me"}
        )
        said = json.loads(document.pop("OUT"))

        assert status == 200
        assert said["parameters"] == {"top_k": 3, "timeout": 5, "x-fwd-user": "me"}
        assert said["timeout_us"] == 0
        assert document == {
            "count": -7,
            "flag": True,
            "model_name": "parameters",
            "model_version": "1",
            "ratio": 0.5,
            "text": "hello",
        }


@pytest.mark.parametrize("endpoint", ["generate", "generate_stream"])
class TestRefused:
    @pytest.mark.parametrize(
        ("path", "document", "status", "message"),
        [
            ("nope", {}, 404, "Request for unknown model: 'nope' is not found"),
            ("repeat/versions/9", {}, 404, "Request for unknown model: 'repeat' version 9 is not found"),
            ("repeat/versions/x", {}, 404, "Not Found"),
            ("repeat", [], 500, "attempt to get members for non-object"),
            ("double", {"INPUT0": [1, 2]}, 400, "The schema can not convert input 'INPUT0' to tensor with proper"),
            ("repeat", {}, 400, "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for model 'repeat'."),
        ],
    )
    def test_before_it_is_a_request(
        self, client: httpx.Client, endpoint: str, path: str, document: Any, status: int, message: str
    ) -> None:
        response = client.post(f"/v2/models/{path}/{endpoint}", json=document)
        assert (response.status_code, response.headers["content-type"]) == (status, JSON)
        assert response.json()["error"].startswith(message)

    def test_compressed_bodies(self, client: httpx.Client, endpoint: str) -> None:
        response = client.post(f"/v2/models/repeat/{endpoint}", content=b"{}", headers={"content-encoding": "gzip"})
        assert response.status_code == 400
        assert response.json() == {"error": "Unsupported content-encoding, only 'identity' is supported."}

    @pytest.mark.parametrize(
        ("error", "status"),
        [(UnavailableError("Exceeds maximum queue size"), 503), (ResourceExhaustedError("no more"), 429)],
    )
    def test_by_a_scheduler_that_has_no_room(
        self,
        client: httpx.Client,
        server: RunningServer,
        endpoint: str,
        error: TrivetError,
        status: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As Triton: a full queue is 503, and the answer is there at once."""

        def refuse(_: InferenceRequest) -> None:
            raise error

        monkeypatch.setattr(server.call(server.engine.model, "repeat").scheduler, "enqueue", refuse)
        response = client.post(f"/v2/models/repeat/{endpoint}", json={"IN": 1})
        assert (response.status_code, response.json()) == (status, {"error": str(error)})


class TestStream:
    def test_each_response_is_an_event(self, client: httpx.Client) -> None:
        assert stream(client, "repeat", {"IN": [3, 1, 2]}) == (200, EVENTS, repeated(3, 1, 2))

    def test_a_model_that_answers_once(self, client: httpx.Client) -> None:
        status, content_type, (document,) = stream(client, "double", {"INPUT0": [1.5] * 16})
        assert (status, content_type, document["OUTPUT0"]) == (200, EVENTS, [3.0] * 16)

    def test_no_response_at_all(self, client: httpx.Client) -> None:
        assert stream(client, "repeat", {"IN": []}) == (200, EVENTS, [])

    def test_an_error_is_an_event_among_others(self, client: httpx.Client) -> None:
        expected = [*repeated(1), {"error": "negative element -2"}, *repeated(3)]
        assert stream(client, "repeat", {"IN": [1, -2, 3]}) == (200, EVENTS, expected)

    def test_the_first_response_decides_the_status(self, client: httpx.Client) -> None:
        expected = [{"error": "negative element -1"}, *repeated(2)]
        assert stream(client, "repeat", {"IN": [-1, 2]}) == (500, EVENTS, expected)

    def test_an_event_goes_out_when_it_is_there(self, client: httpx.Client, gate: Any) -> None:
        document = {"IN": [1, 8001, 2]}
        with client.stream("POST", "/v2/models/repeat/generate_stream", json=document) as response:
            lines = response.iter_lines()
            first = next(lines)
            gate.request(8001)
            gate.open(8001)
            rest = [line for line in lines if line]

        assert [json.loads(line[6:])["OUT"] for line in (first, *rest)] == [1, 8001, 2]

    def test_many_at_once(self, server: RunningServer) -> None:
        def run(number: int) -> None:
            with httpx.Client(base_url=f"http://{server.http_url}") as own:
                answers[number] = stream(own, "repeat", {"IN": list(range(number, number + 50))})

        answers: dict[int, Any] = {}
        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {n: (200, EVENTS, repeated(*range(n, n + 50))) for n in range(8)}


# --- clients that are slow, or go away ----------------------------------------------------------------------------


def infer_body(value: int) -> bytes:
    return json.dumps({"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [value]}]}).encode()


ENDPOINTS: list[tuple[str, Callable[[int], bytes]]] = [
    ("gate/infer", infer_body),
    ("gate/generate", lambda value: json.dumps({"IN": value}).encode()),
    ("repeat/generate_stream", lambda value: json.dumps({"IN": [1, value]}).encode()),
]


class Http1Client:
    """Sends a request on a connection of its own, and leaves by closing it."""

    def __init__(self, server: RunningServer, path: str, body: bytes, receive_buffer: int = 0) -> None:
        host, _, port = server.http_url.partition(":")
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(20)
        self._socket.connect((host, int(port)))
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)

    def read(self, size: int = 65536) -> bytes:
        return self._socket.recv(size)

    def leave(self, *, abruptly: bool = False) -> None:
        if abruptly:
            # No time to linger: closing resets the connection.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@pytest.mark.parametrize("how", ["close", "reset", "reset stream"])
@pytest.mark.parametrize(("endpoint", "body"), ENDPOINTS, ids=[path for path, _ in ENDPOINTS])
def test_a_client_that_goes_cancels_what_executes(
    server: RunningServer, gate: Any, endpoint: str, body: Callable[[int], bytes], how: str
) -> None:
    value = 8200
    gate.reset()
    path = f"/v2/models/{endpoint}"
    if how == "reset stream":
        with Http2Client(server.http_url) as client:
            call = client.post(path, body(value))
            gate.request(value)
            client.reset(call)
            assert gate.cancelled(value)
    else:
        one = Http1Client(server, path, body(value))
        gate.request(value)
        one.leave(abruptly=how == "reset")
        assert gate.cancelled(value)
    gate.reset()


@pytest.mark.parametrize(("endpoint", "body"), ENDPOINTS, ids=[path for path, _ in ENDPOINTS])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_client_that_goes_frees_its_place_in_the_queue(
    server: RunningServer,
    gate: Any,
    finished: queue.Queue[tuple[InferenceRequest, InferenceResponse]],
    endpoint: str,
    body: Callable[[int], bytes],
    version: str,
) -> None:
    """Both instances are held at the gate while the request waits; it is answered before they go on."""
    gate.reset()
    path = f"/v2/models/{endpoint}"
    held = [8301, 8302] if endpoint.startswith("gate") else [8301]
    holders = [Http1Client(server, path, body(value)) for value in held]
    for value in held:
        gate.request(value)
    model = server.call(server.engine.model, endpoint.partition("/")[0])

    if version == "HTTP/1.1":
        waiting = Http1Client(server, path, body(8303))
        _until_queued(server, model)
        waiting.leave()
        request, response = finished.get(timeout=20)
    else:
        with Http2Client(server.http_url) as client:
            call = client.post(path, body(8303))
            _until_queued(server, model)
            client.reset(call)
            request, response = finished.get(timeout=20)

    assert isinstance(response.error, RequestCancelledError)
    assert int(request.inputs["IN"].numpy()[-1]) == 8303
    assert request.compute_start_ns == 0
    gate.open(*held)
    for holder in holders:
        while holder.read():
            pass
        holder.leave()
    gate.reset()


def _until_queued(server: RunningServer, model: Any) -> None:
    """Return when one request waits that no instance has taken."""

    async def wait() -> None:
        async with asyncio.timeout(20):
            while model.scheduler.queued != 1:  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0)

    server.call(wait)


class TestSlowClients:
    COUNT = 200
    """Responses of a megabyte as bytes, and two as text: more than sockets and buffers take."""

    def test_http1(self, server: RunningServer, flood: Any) -> None:
        body = json.dumps({"IN": self.COUNT}).encode()
        client = Http1Client(server, "/v2/models/flood/generate_stream", body, receive_buffer=65536)
        client.read(1)

        # What its sockets take, and the megabytes on their way to the event loop.
        assert flood.settled() < self.COUNT / 2
        client.leave()
        assert flood.ended()

    def test_http2(self, server: RunningServer, flood: Any) -> None:
        with Http2Client(server.http_url) as client:
            call = client.post("/v2/models/flood/generate_stream", json.dumps({"IN": self.COUNT}).encode())
            assert any(isinstance(event, h2.events.DataReceived) for event in client.events())
            assert flood.settled() < self.COUNT / 2
            client.reset(call)
            assert flood.ended()

    def test_others_are_served_meanwhile(self, server: RunningServer, client: httpx.Client, flood: Any) -> None:
        body = json.dumps({"IN": self.COUNT}).encode()
        slow = Http1Client(server, "/v2/models/flood/generate_stream", body, receive_buffer=65536)
        slow.read(1)
        flood.settled()

        assert stream(client, "repeat", {"IN": list(range(100))}) == (200, EVENTS, repeated(*range(100)))
        slow.leave()
        assert flood.ended()

    def test_a_slow_client_gets_all_of_it(self, server: RunningServer, flood: Any) -> None:
        body = json.dumps({"IN": 10}).encode()
        client = Http1Client(server, "/v2/models/flood/generate_stream", body, receive_buffer=65536)
        flood.settled()
        received = b""
        while part := client.read():
            received += part
        client.leave()

        assert received.count(b"data: ") == 10
        assert received.endswith(b"0\r\n\r\n")
