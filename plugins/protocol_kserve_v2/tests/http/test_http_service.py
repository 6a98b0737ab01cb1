"""The protocol over HTTP, from outside: one running server, spoken to over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import base64
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

INFER = "/v2/models/double/infer"
HEADER_LENGTH = "inference-header-content-length"


def double(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "data": [1.5] * 16}], **fields}


def error(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.json()["error"]


def connect(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=f"http://{server.http_url}")


def binary(document: Any, *parts: bytes) -> dict[str, Any]:
    """Arguments of a POST with binary tensor data."""
    header = json.dumps(document).encode()
    return {"content": header + b"".join(parts), "headers": {HEADER_LENGTH: str(len(header))}}


class TestHealthAndMetadata:
    def test_health(self, client: httpx.Client) -> None:
        for path in (
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/double/ready",
            "/v2/models/double/versions/1/ready",
        ):
            response = client.get(path)
            assert (response.status_code, response.content) == (200, b"")

    @pytest.mark.parametrize("path", ["/v2/models/nope/ready", "/v2/models/double/versions/2/ready"])
    def test_not_ready(self, client: httpx.Client, path: str) -> None:
        assert error(client.get(path)) == (400, "Model version not ready")

    def test_server_metadata(self, client: httpx.Client) -> None:
        document = client.get("/v2").json()
        assert document["name"] == "trivet"
        assert {"binary_tensor_data", "classification", "statistics"} <= set(document["extensions"])
        assert len(set(document["extensions"])) == len(document["extensions"])

    @pytest.mark.parametrize(
        "path", ["/v2/models/double", "/v2/models/double/versions/1", "/v2/models/double/versions/01"]
    )
    def test_model_metadata(self, client: httpx.Client, path: str) -> None:
        assert client.get(path).json() == {
            "name": "double",
            "versions": ["1"],
            "platform": "models",
            "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [-1, 16]}],
            "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, 16]}],
        }

    def test_model_config(self, client: httpx.Client) -> None:
        config = client.get("/v2/models/double/config").json()
        assert config["max_batch_size"] == 8
        assert config["input"][0]["data_type"] == "TYPE_FP32"

    def test_statistics(self, client: httpx.Client) -> None:
        def inferences(path: str) -> list[tuple[str, int, int]]:
            stats = client.get(path).json()["model_stats"]
            return [(s["name"], s["inference_count"], s["inference_stats"]["success"]["count"]) for s in stats]

        ((_, inferences_before, requests_before),) = inferences("/v2/models/double/stats")
        batch = {"name": "INPUT0", "datatype": "FP32", "shape": [2, 16], "data": [0] * 32}
        assert client.post(INFER, json={"inputs": [batch]}).status_code == 200
        after = ("double", inferences_before + 2, requests_before + 1)
        assert inferences("/v2/models/double/versions/1/stats") == [after]
        assert after in inferences("/v2/models/stats")

    @pytest.mark.parametrize(
        ("path", "status", "message"),
        [
            ("/v2/models/nope", 404, "Request for unknown model: 'nope' is not found"),
            ("/v2/models/double/versions/7", 404, "Request for unknown model: 'double' version 7 is not found"),
            ("/v2/models/nope/config", 404, "Request for unknown model: 'nope' is not found"),
            ("/v2/models/nope/stats", 400, "requested model 'nope' is not available"),
            ("/v2/models/double/versions/7/stats", 400, "requested model version is not available for model 'double'"),
            ("/v2/models/double/versions/9999999999999999999", 400, "failed to get model version from specified"),
            ("/v2/models/double/versions/x", 404, "Not Found"),
            ("/v2/models/double/versions/-1", 404, "Not Found"),
            ("/v2/models/double/nope", 404, "Not Found"),
            ("/v2/models", 404, "Not Found"),
            ("/", 404, "Not Found"),
        ],
    )
    def test_what_is_not_there(self, client: httpx.Client, path: str, status: int, message: str) -> None:
        found_status, found_message = error(client.get(path))
        assert found_status == status
        assert found_message.startswith(message)

    @pytest.mark.parametrize(
        ("method", "path", "allowed"), [("POST", "/v2", "GET"), ("GET", INFER, "POST"), ("PUT", "/v2/logging", "GET")]
    )
    def test_other_methods(self, client: httpx.Client, method: str, path: str, allowed: str) -> None:
        response = client.request(method, path)
        assert error(response) == (405, "Method Not Allowed")
        assert allowed in response.headers["allow"]

    def test_openapi_document(self, client: httpx.Client) -> None:
        assert client.get("/v2/openapi.json").json()["openapi"] == "3.1.0"


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


class TestModelControl:
    def index(self, client: httpx.Client, **body: Any) -> dict[str, Any]:
        entries = client.post("/v2/repository/index", json=body).json()
        return {entry.pop("name"): entry for entry in entries}

    def test_index(self, client: httpx.Client) -> None:
        assert self.index(client)["double"] == {"version": "1", "state": "READY"}
        assert client.post("/v2/repository/index").json() == client.post("/v2/repository/any/index").json()

    def test_unload_and_load(self, client: httpx.Client) -> None:
        for path in ("unload", "load"):
            response = client.post(f"/v2/repository/models/double/{path}", json={"parameters": {}})
            assert (response.status_code, response.content) == (200, b"")
            ready = path == "load"
            assert ("double" in self.index(client, ready=True)) is ready
            assert (client.get("/v2/models/double/ready").status_code == 200) is ready
            assert (client.post(INFER, json=double()).status_code == 200) is ready

    def test_load_with_a_configuration(self, client: httpx.Client) -> None:
        config = {**client.get("/v2/models/double/config").json(), "max_batch_size": 2}
        path = "/v2/repository/models/double/load"
        assert client.post(path, json={"parameters": {"config": json.dumps(config)}}).status_code == 200
        assert client.get("/v2/models/double/config").json()["max_batch_size"] == 2
        assert client.post(path).status_code == 200
        assert client.get("/v2/models/double/config").json()["max_batch_size"] == 8

    @pytest.mark.parametrize(
        ("path", "body", "status", "message"),
        [
            ("nope/load", {}, 500, "failed to load 'nope', failed to poll from model repository"),
            (
                "double/load",
                b"{",
                500,
                "failed to parse the request JSON buffer: Missing a name for object member. at 1",
            ),
            ("double/load", {"parameters": 5}, 500, "attempt to get members for non-object"),
            ("double/load", {"parameters": {"config": 5}}, 500, "attempt to access JSON non-string as string"),
            ("double/load", {"parameters": {"other": "x"}}, 500, "unexpected parameter 'other' to load a model"),
            ("double/load", {"parameters": {"file:1/x": "?"}}, 400, "parameter 'file:1/x' is not valid base64"),
            ("double/load", {"parameters": {"file:1/x": "é"}}, 400, "parameter 'file:1/x' is not valid base64"),
            (
                "double/load",
                {"parameters": {"config": '{"parameters": {"\\ud800": {}}}'}},
                400,
                "'config' of the load request for 'double':1:17: parameters.\ud800: is not valid Unicode",
            ),
            ("double/unload", {"parameters": {"unload_dependents": 1}}, 500, "Unable to parse 'unload_dependents'"),
        ],
    )
    def test_refused(self, client: httpx.Client, path: str, body: Any, status: int, message: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        found_status, found_message = error(client.post(f"/v2/repository/models/{path}", content=content))
        assert (found_status, found_message[: len(message)]) == (status, message)

    def test_files_need_a_configuration(self, client: httpx.Client) -> None:
        parameters = {"file:1/model": base64.b64encode(b"x").decode()}
        response = client.post("/v2/repository/models/double/load", json={"parameters": parameters})
        assert error(response) == (500, "failed to load 'double', failed to poll from model repository")

    def test_repositories_have_no_names(self, client: httpx.Client) -> None:
        response = client.post("/v2/repository/mine/models/double/load")
        assert error(response) == (501, "'repository_name' specification is not supported")


def test_a_client_that_goes_away_cancels_its_request(server: RunningServer, gate: Any) -> None:
    body = json.dumps({"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [7001]}]}).encode()
    host, _, port = server.http_url.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v2/models/gate/infer HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        gate.request(7001)
    assert gate.cancelled(7001)


def test_restricted_apis(serve: Callable[..., Any]) -> None:
    restricted = ["model-repository,statistics:Admin-Key=secret"]
    with serve(http_restricted_api=restricted) as server, connect(server) as client:
        assert client.get("/v2").status_code == 200
        for given in ({}, {"admin-key": "wrong"}):
            response = client.get("/v2/models/stats", headers=given)
            assert error(response) == (403, "This API is restricted, expecting header 'Admin-Key'")
        assert client.get("/v2/models/stats", headers={"admin-key": "secret"}).status_code == 200
        assert client.post("/v2/repository/index").status_code == 403


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"http_restricted_api": ["health"]}, "expected API"),
        ({"http_restricted_api": ["nope:a=b"]}, "unknown API 'nope'"),
        ({"http_restricted_api": ["health:a=b", "health:c=d"]}, "restricted already"),
        ({"http_header_forward_pattern": "("}, "not a regular expression"),
    ],
)
def test_settings_that_make_no_sense(serve: Callable[..., Any], setting: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message), serve(**setting):
        pass


def test_nothing_is_mounted_when_http_is_off(serve: Callable[..., Any]) -> None:
    with serve(allow_http=False) as server, pytest.raises(LookupError):
        server.url("http")
