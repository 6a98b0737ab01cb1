"""Health and metadata over HTTP, and whom and what a server serves there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from trivet.testing import RunningServer

from .infer_requests import INFER, error


def connect(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=f"http://{server.http_url}")


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
