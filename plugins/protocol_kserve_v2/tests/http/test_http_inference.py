"""Inference over HTTP, in JSON and in binary, compressed and not, and how requests are refused."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from trivet.errors import InvalidArgumentError
from trivet.testing import RunningServer
from trivet_protocol_kserve_v2.codec import compression

from .infer_requests import HEADER_LENGTH, INFER, binary, double, error


class TestInference:
    def test_json(self, client: httpx.Client) -> None:
        response = client.post(INFER, json=double(id="abc"))
        assert response.headers["content-type"] == "application/json"
        assert HEADER_LENGTH not in response.headers
        assert response.json() == {
            "id": "abc",
            "model_name": "double",
            "model_version": "1",
            "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 16], "data": [3.0] * 16}],
        }

    def test_binary_both_ways(self, client: httpx.Client) -> None:
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
        document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        response = client.post(
            "/v2/models/double/versions/1/infer", **binary(document, struct.pack("<16f", *[1.5] * 16))
        )
        assert response.headers["content-type"] == "application/octet-stream"
        size = int(response.headers[HEADER_LENGTH])
        assert json.loads(response.content[:size])["outputs"][0]["parameters"] == {"binary_data_size": 64}
        assert struct.unpack("<16f", response.content[size:]) == (3.0,) * 16

    def test_raw(self, client: httpx.Client) -> None:
        response = client.post(INFER, content=struct.pack("<16f", *[1.5] * 16), headers={HEADER_LENGTH: "0"})
        assert struct.unpack("<16f", response.content[int(response.headers[HEADER_LENGTH]) :]) == (3.0,) * 16

    def test_classes_with_labels(self, client: httpx.Client) -> None:
        scores = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "data": list(range(16, 0, -1))}
        outputs = [{"name": "OUTPUT0", "parameters": {"classification": 2}}]
        response = client.post(INFER, json={"inputs": [scores], "outputs": outputs})
        assert response.json()["outputs"] == [
            {"name": "OUTPUT0", "datatype": "BYTES", "shape": [1, 2], "data": ["32.000000:0:ant", "30.000000:1:bee"]}
        ]

    def test_parameters_reach_the_model_and_come_back(self, client: httpx.Client) -> None:
        document = {
            "id": "x",
            "inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [1]}],
            "parameters": {"sequence_id": 7, "sequence_start": True, "priority": 2, "timeout": 10**9, "mine": "yes"},
        }
        response = client.post("/v2/models/parameters/infer", json=document, headers={"X-Fwd-A": "1", "X-Other": "2"})
        assert response.json()["parameters"] == {"flag": True, "count": -7, "ratio": 0.5, "text": "hello"}
        assert json.loads(response.json()["outputs"][0]["data"][0]) == {
            "parameters": {"mine": "yes", "x-fwd-a": "1"},
            "id": "x",
            "correlation_id": 7,
            "sequence_start": True,
            "sequence_end": False,
            "priority": 2,
            "timeout_us": 10**9,
        }

    def test_a_large_tensor(self, client: httpx.Client) -> None:
        values = bytes(range(256)) * 64 * 1024
        tensor = {"name": "I_UINT8", "datatype": "UINT8", "shape": [len(values)]}
        document = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(values)}}],
            "parameters": {"binary_data_output": True},
        }
        response = client.post("/v2/models/echo/infer", **binary(document, values))
        assert response.content[int(response.headers[HEADER_LENGTH]) :] == values

    def test_an_error_of_the_model(self, client: httpx.Client) -> None:
        inputs = [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [-5]}]
        assert error(client.post("/v2/models/gate/infer", json={"inputs": inputs})) == (500, "negative value -5")

    def test_an_output_without_a_json_form(self, client: httpx.Client) -> None:
        tensor = {"name": "I_FP16", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}}
        status, message = error(client.post("/v2/models/echo/infer", **binary({"inputs": [tensor]}, bytes(2))))
        assert (status, message[:37]) == (400, "sending FP16 data via JSON is not sup")

    @pytest.mark.parametrize(
        ("path", "content", "headers", "status", "message"),
        [
            ("/v2/models/nope/infer", b"{}", {}, 404, "Request for unknown model: 'nope' is not found"),
            ("/v2/models/double/versions/x/infer", b"{}", {}, 404, "Not Found"),
            ("/v2/models/repeat/infer", b"{}", {}, 501, "HTTP end point doesn't support models with decoupled"),
            (INFER, b"{", {}, 500, "failed to parse the request JSON buffer: Missing a name for object member. at 1"),
            (
                INFER,
                b"",
                {},
                400,
                "[request id: <id_unknown>] input byte size mismatch for input 'raw_input' for model",
            ),
            (INFER, b"{}", {HEADER_LENGTH: "-1"}, 400, "inference header size should be in range (0, 2), got: -1"),
            (INFER, b"{}", {HEADER_LENGTH: "3"}, 400, "inference header size should be in range (0, 2), got: 3"),
            (INFER, b"{}", {HEADER_LENGTH: "x"}, 400, "[request id: <id_unknown>] input byte size mismatch for input"),
            (INFER, b'{"inputs":[]}', {}, 400, "[request id: <id_unknown>] expected 1 inputs but got 0 inputs"),
            (INFER, b"{}", {"content-encoding": "br"}, 501, "Unsupported compression type"),
            (INFER, b"{}", {"content-encoding": "gzip"}, 400, "failed to decompress the request body"),
            (
                INFER,
                gzip.compress(bytes(100_001)),
                {"content-encoding": "gzip"},
                413,
                "decompressed request body exceeds",
            ),
        ],
    )
    def test_refused_and_the_connection_goes_on(
        self, client: httpx.Client, path: str, content: bytes, headers: dict[str, str], status: int, message: str
    ) -> None:
        found_status, found_message = error(client.post(path, content=content, headers=headers))
        assert (found_status, found_message[: len(message)]) == (status, message)
        assert client.post(INFER, json=double()).status_code == 200

    def test_an_unsupported_coding_is_answered_with_the_supported(self, client: httpx.Client) -> None:
        response = client.post(INFER, content=b"{}", headers={"content-encoding": "br"})
        assert response.headers["accept-encoding"] == "gzip, deflate"

    @pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
    def test_compressed_both_ways(self, client: httpx.Client, coding: str, encode: Any) -> None:
        response = client.post(
            INFER,
            content=encode(json.dumps(double()).encode()),
            headers={"content-encoding": coding, "accept-encoding": coding},
        )
        assert response.headers["content-encoding"] == coding
        assert response.json()["outputs"][0]["data"] == [3.0] * 16


def test_large_bodies_are_compressed_both_ways(serve: Callable[..., Any]) -> None:
    """Past the size from which another thread does the work."""
    size = 300_000
    document = {
        "inputs": [{"name": "I_INT8", "datatype": "INT8", "shape": [size], "parameters": {"binary_data_size": size}}],
        "parameters": {"binary_data_output": True},
    }
    header = json.dumps(document).encode()
    values = bytes(i * i % 251 for i in range(size))
    with serve() as server:
        response = httpx.post(
            f"http://{server.http_url}/v2/models/echo/infer",
            content=gzip.compress(header + values),
            headers={"content-encoding": "gzip", "accept-encoding": "deflate", HEADER_LENGTH: str(len(header))},
        )
    assert response.headers["content-encoding"] == "deflate"
    assert response.content[int(response.headers[HEADER_LENGTH]) :] == values


def test_a_body_may_grow_to_something(serve: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="--http-max-decompressed-size=-1: expected at least 1"):
        serve(http_max_decompressed_size=-1).__enter__()


def test_no_more_bodies_grow_at_a_time_than_there_are_processors(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    growing = threading.Lock()
    decompress = compression.decompress

    def alone(body: Any, limit: int) -> bytes:
        assert growing.acquire(blocking=False)
        try:
            time.sleep(0.02)  # long enough for another to come
            return decompress(body, limit)
        finally:
            growing.release()

    monkeypatch.setattr(compression, "decompress", alone)
    size = 100_000
    tensor = {"name": "I_INT8", "datatype": "INT8", "shape": [size], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    body = gzip.compress(header + random.Random(1).randbytes(size))
    headers = {"content-encoding": "gzip", HEADER_LENGTH: str(len(header))}
    with serve() as server, ThreadPoolExecutor(8) as pool:

        def post(_: int) -> int:
            url = f"http://{server.http_url}/v2/models/echo/infer"
            return httpx.post(url, content=body, headers=headers).status_code

        assert set(pool.map(post, range(16))) == {200}


def test_a_client_that_goes_away_cancels_its_request(server: RunningServer, gate: Any) -> None:
    body = json.dumps({"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [7001]}]}).encode()
    host, _, port = server.http_url.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v2/models/gate/infer HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        gate.request(7001)
    assert gate.cancelled(7001)
