"""System shared memory: both servers map the same objects, and answer alike over HTTP and gRPC."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb

from .cases_grpc.case import SERVICE, request, tensor
from .cases_http.case import Request, get, infer, post
from .differences import DIFFERENCES
from .pairs import Endpoints
from .test_differential_http import Client

pytestmark = pytest.mark.differential

SYSTEM = "/v2/systemsharedmemory"
COUNT = 16
SIZE = 4 * COUNT


class Step(NamedTuple):
    """A request, and the entry of the table of differences where the answers are not the same."""

    request: Request
    difference: str = ""


@pytest.fixture
def key() -> Iterator[str]:
    """Of an object with room for four tensors; the first is counted up."""
    path = Path(f"/dev/shm/trivet_test_{os.getpid()}_differential")
    path.write_bytes(np.arange(COUNT, dtype=np.float32).tobytes() + bytes(3 * SIZE))
    yield path.name
    path.unlink()


@pytest.fixture
def clients(real_triton: Endpoints, trivet: Endpoints) -> Iterator[tuple[Client, Client]]:
    both = Client(real_triton.http), Client(trivet.http)
    yield both
    for client in both:
        client.send(post(f"{SYSTEM}/unregister"), frozenset())
        client.close()


def register(name: str, key: object, **fields: object) -> Request:
    return post(f"{SYSTEM}/region/{name}/register", {"key": key, **fields})


def double(source: dict[str, Any], target: dict[str, Any] | None = None, **fields: Any) -> Request:
    """Ask the model ``double``; ``source`` and ``target`` are parameters."""
    document: dict[str, Any] = {
        "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, COUNT], "parameters": source, **fields}]
    }
    if target is not None:
        document["outputs"] = [{"name": "OUTPUT0", "parameters": target}]
    return post(infer("double"), document)


def where(region: str, byte_size: int | None = SIZE, offset: int | None = None) -> dict[str, Any]:
    parameters = {
        "shared_memory_region": region,
        "shared_memory_byte_size": byte_size,
        "shared_memory_offset": offset,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def compare(clients: tuple[Client, Client], steps: list[Step]) -> None:
    triton, trivet = clients
    for asked, difference in steps:
        theirs, ours = (client.send(asked, frozenset()) for client in (triton, trivet))
        if not difference:
            assert ours == theirs, f"{asked}\nTriton: {theirs}\nTrivet: {ours}"
        else:
            assert difference in DIFFERENCES
            assert ours != theirs, f"the answers agree by now: take the difference '{difference}' off"
        if difference == "region message":
            assert ours.status == theirs.status
            assert ours.document["error"].startswith(theirs.document["error"])


def test_regions(clients: tuple[Client, Client], key: str) -> None:
    everything = 4 * SIZE
    message = "region message"
    compare(
        clients,
        [
            Step(register("a", f"/{key}", offset=0, byte_size=everything)),
            Step(register("a", f"/{key}", offset=0, byte_size=everything)),
            Step(get(f"{SYSTEM}/status")),
            Step(get(f"{SYSTEM}/region/a/status")),
            Step(get(f"{SYSTEM}/region/b/status")),
            Step(register("b", "/trivet_test_nobody_made_it", offset=0, byte_size=1), message),
            Step(register("b", "/../../etc/passwd", offset=0, byte_size=1), message),
            Step(register("b", "", offset=0, byte_size=1), message),
            Step(register("b", f"/{key}", offset=0, byte_size=everything + 1), message),
            Step(register("b", f"/{key}", offset=1, byte_size=everything), message),
            Step(register("b", f"/{key}", offset=0, byte_size=0), message),
            Step(register("b", f"/{key}", offset=0, byte_size=2**64 - 1), message),
            Step(register("b", f"/{key}", offset=2**64 - 1, byte_size=2), message),
            Step(register("b", f"/{key}", offset=-1, byte_size=4)),
            Step(register("b", f"/{key}", offset=0, byte_size="4")),
            Step(register("b", 7, offset=0, byte_size=4)),
            Step(register("b", f"/{key}", offset=0)),
            Step(post(f"{SYSTEM}/region/b/register", {"byte_size": 4})),
            Step(post(f"{SYSTEM}/region/b/register", b"nonsense")),
            Step(post(f"{SYSTEM}/register", {"key": key, "offset": 0, "byte_size": 4})),
            Step(get(f"{SYSTEM}/status")),
            Step(register("b", f"/{key}", offset=10, byte_size=4), "region offset"),
            Step(post(f"{SYSTEM}/region/b/unregister")),
            Step(post(f"{SYSTEM}/region/nobody/unregister")),
            Step(get(f"{SYSTEM}/status")),
            Step(post(f"{SYSTEM}/unregister")),
            Step(get(f"{SYSTEM}/status")),
        ],
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (where("r"), None),
        (where("r"), where("r", offset=SIZE)),
        (where("r"), where("r", 2 * SIZE, SIZE)),
        (where("r", offset=SIZE), where("r", offset=2 * SIZE)),
        (where("r"), where("r", SIZE // 2, SIZE)),
        (where("r"), where("r", 5 * SIZE)),
        (where("r"), where("r", SIZE, 3 * SIZE + 1)),
        (where("r"), where("r", None)),
        (where("r"), where("r", 0)),
        (where("r"), where("nobody")),
        (where("r", SIZE // 2), None),
        (where("r", 2 * SIZE), None),
        (where("r", 5 * SIZE), None),
        (where("r", None), None),
        (where("r", 0), None),
        (where("r", offset=4 * SIZE), None),
        (where("r", 0, 4 * SIZE), None),
        (where("r", offset=3 * SIZE + 1), None),
        (where("r", offset=-1), None),
        (where("r", offset=2**64 - 1), None),
        (where("r", 2**64 - 1, 1), None),
        (where("nobody"), None),
    ],
)
def test_tensors(
    clients: tuple[Client, Client], key: str, source: dict[str, Any], target: dict[str, Any] | None
) -> None:
    path = Path("/dev/shm", key)
    before = path.read_bytes()
    contents = []
    for client in clients:
        path.write_bytes(before)
        client.send(register("r", f"/{key}", offset=0, byte_size=4 * SIZE), frozenset())
        answer = client.send(double(source, target), frozenset())
        contents.append((answer, path.read_bytes()))
    assert contents[1] == contents[0]


def test_an_input_is_in_one_place(clients: tuple[Client, Client], key: str) -> None:
    compare(
        clients,
        [
            Step(register("r", f"/{key}", offset=0, byte_size=4 * SIZE)),
            Step(double(where("r"), data=[1.0] * COUNT)),
            Step(double({}, where("r"), data=[1.0] * COUNT)),
        ],
    )


def test_over_grpc(real_triton: Endpoints, trivet: Endpoints, key: str) -> None:
    path = Path("/dev/shm", key)
    before = path.read_bytes()
    inputs = tensor("INPUT0", "FP32", [1, COUNT], None, where("r"))
    calls: list[tuple[str, Any]] = [
        ("SystemSharedMemoryRegister", {"name": "r", "key": f"/{key}", "byte_size": 4 * SIZE}),
        ("SystemSharedMemoryRegister", {"name": "r", "key": f"/{key}", "byte_size": 4 * SIZE}),
        ("SystemSharedMemoryStatus", {}),
        ("SystemSharedMemoryStatus", {"name": "r"}),
        ("SystemSharedMemoryStatus", {"name": "nobody"}),
        ("ModelInfer", request("double", inputs)),
        ("ModelInfer", request("double", inputs, outputs={"OUTPUT0": where("r", offset=SIZE)})),
        ("ModelInfer", request("double", inputs, outputs={"OUTPUT0": where("r", SIZE // 2)})),
        ("ModelInfer", request("double", inputs, outputs={"OUTPUT0": where("nobody")})),
        ("ModelInfer", request("double", tensor("INPUT0", "FP32", [1, COUNT], None, where("r", 5 * SIZE)))),
        ("SystemSharedMemoryUnregister", {"name": "nobody"}),
        ("SystemSharedMemoryUnregister", {"name": "r"}),
        ("SystemSharedMemoryUnregister", {}),
        ("SystemSharedMemoryStatus", {}),
    ]
    answers = []
    for server in (real_triton, trivet):
        path.write_bytes(before)
        with grpc.insecure_channel(server.grpc) as channel:
            answers.append([_call(channel, method, message) for method, message in calls] + [path.read_bytes()])
    assert answers[1] == answers[0]


def _call(channel: grpc.Channel, method: str, message: Any) -> Any:
    if isinstance(message, dict):
        message = getattr(pb, f"{method}Request")(**message)
    try:
        payload = channel.unary_unary(SERVICE + method)(message.SerializeToString(), timeout=30)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return getattr(pb, f"{method}Response").FromString(payload)
