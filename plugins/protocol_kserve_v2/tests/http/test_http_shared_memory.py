"""Regions of shared memory over HTTP: registered, listed, forgotten, and refused."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from host_regions import HostRegions
from trivet import hookimpl
from trivet.hookspecs import MemoryPlugin
from trivet.testing import RunningServer

from .infer_requests import error

SYSTEM, CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
HANDLE = {"raw_handle": {"b64": base64.b64encode(bytes(64)).decode()}, "device_id": 1, "byte_size": 8}


class Memory:
    """Both kinds, in this process."""

    @hookimpl
    def trivet_memory_providers(self) -> Sequence[MemoryPlugin]:
        return [MemoryPlugin(name=kind, factory=lambda _: HostRegions()) for kind in ("system", "cuda")]


@pytest.fixture
def client(serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    with serve(plugins={"memory": Memory()}) as server, httpx.Client(base_url=f"http://{server.http_url}") as client:
        yield client


def test_regions_are_registered_and_listed_and_forgotten(client: httpx.Client) -> None:
    for name in ("b", "a"):
        body = {"key": f"/{name}", "offset": 4, "byte_size": 8}
        assert client.post(f"{SYSTEM}/region/{name}/register", json=body).status_code == 200
    assert client.post(f"{CUDA}/region/c/register", json=HANDLE).status_code == 200

    listed = [{"name": name, "key": f"/{name}", "offset": 4, "byte_size": 8} for name in ("a", "b")]
    assert client.get(f"{SYSTEM}/status").json() == listed
    assert client.get(f"{SYSTEM}/region/b/status").json() == listed[1:]
    assert client.get(f"{CUDA}/status").json() == [{"name": "c", "device_id": 1, "byte_size": 8}]

    assert client.post(f"{SYSTEM}/region/a/unregister").content == b""
    assert client.get(f"{SYSTEM}/status").json() == listed[1:]
    assert client.post(f"{SYSTEM}/unregister").status_code == 200
    assert client.get(f"{SYSTEM}/status").json() == []
    assert len(client.get(f"{CUDA}/status").json()) == 1


def test_a_name_is_taken_whatever_kind_of_memory_has_it(client: httpx.Client) -> None:
    client.post(f"{CUDA}/region/r/register", json=HANDLE)
    response = client.post(f"{SYSTEM}/region/r/register", json={"key": "/r", "byte_size": 8})
    assert error(response) == (400, "shared memory region 'r' already in manager")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (f"{SYSTEM}/register", {"key": "/r", "byte_size": 8}, 400, "'region name' is necessary to register system"),
        (f"{SYSTEM}/region/r/register", {"byte_size": 8}, 400, "Shared memory register request has no 'key' field"),
        (f"{SYSTEM}/region/r/register", {"key": "/r"}, 400, "Shared memory register request has no 'byte_size' field"),
        (f"{SYSTEM}/region/r/register", {"key": 1, "byte_size": 8}, 500, "attempt to access JSON non-string as string"),
        (f"{SYSTEM}/region/r/register", {"key": "/r", "byte_size": -8}, 500, "attempt to access JSON non-unsigned-int"),
        (f"{SYSTEM}/region/r/register", {"key": "/r", "offset": "0"}, 500, "attempt to access JSON non-unsigned-int"),
        (f"{SYSTEM}/region/r/register", [], 400, "Shared memory register request has no 'key' field"),
        (f"{CUDA}/region/r/register", {"device_id": 0}, 400, "Shared memory register request has no 'raw_handle'"),
        (f"{CUDA}/region/r/register", {**HANDLE, "raw_handle": "AA=="}, 500, "attempt to access non-existing object"),
        (f"{CUDA}/region/r/register", {**HANDLE, "raw_handle": {"b64": 7}}, 500, "attempt to access JSON non-string"),
        (f"{CUDA}/region/r/register", {**HANDLE, "raw_handle": {"b64": "AAEC"}}, 400, "'raw_handle' must be a valid"),
        (f"{CUDA}/region/r/register", {**HANDLE, "raw_handle": {"b64": "?"}}, 400, "'raw_handle' must be a valid base"),
        (f"{CUDA}/region/r/register", {**HANDLE, "device_id": "0"}, 500, "attempt to access JSON non-unsigned-int"),
        (f"{CUDA}/region/r/register", {**HANDLE, "device_id": -1}, 500, "attempt to access JSON non-unsigned-int"),
    ],
)
def test_a_request_that_is_malformed_registers_nothing(
    client: httpx.Client, path: str, body: Any, status: int, message: str
) -> None:
    found, text = error(client.post(path, json=body))
    assert found == status
    assert text.startswith(message)
    assert client.get(f"{SYSTEM}/status").json() == client.get(f"{CUDA}/status").json() == []


def test_without_a_provider_there_is_nothing_to_forget_and_nothing_can_be_registered(server: RunningServer) -> None:
    with httpx.Client(base_url=f"http://{server.http_url}") as client:
        for kind in ("system", "cuda"):
            assert client.post(f"/v2/{kind}sharedmemory/unregister").status_code == 200
            assert client.get(f"/v2/{kind}sharedmemory/status").json() == []
            body = {**HANDLE, "key": "/r"}
            status, message = error(client.post(f"/v2/{kind}sharedmemory/region/r/register", json=body))
            assert status == 503
            assert message.endswith(f"pip install trivet-memory-{kind}")
        assert not [name for name in client.get("/v2").json()["extensions"] if "memory" in name]
