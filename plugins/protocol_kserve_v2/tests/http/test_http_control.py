"""Models are listed, loaded and unloaded over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from .infer_requests import INFER, double, error


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
