"""CUDA shared memory without a GPU: what both servers refuse, and how."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import grpc
import pytest
from cuda.bindings import runtime
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb

from .cases_grpc.case import SERVICE
from .cases_http.case import Request, get, post
from .pairs import Endpoints
from .test_differential_http import Client
from .test_differential_shared_memory import Step, compare

_ERROR, _COUNT = runtime.cudaGetDeviceCount()
pytestmark = [
    pytest.mark.differential,
    pytest.mark.skipif(not _ERROR and _COUNT > 0, reason="the real Triton and this machine have a CUDA device"),
]

CUDA = "/v2/cudasharedmemory"
HANDLE = {"b64": base64.b64encode(bytes(64)).decode()}


@pytest.fixture
def clients(real_triton: Endpoints, trivet: Endpoints) -> Iterator[tuple[Client, Client]]:
    both = Client(real_triton.http), Client(trivet.http)
    yield both
    for client in both:
        client.close()


def register(**fields: object) -> Request:
    return post(f"{CUDA}/region/r/register", fields)


def test_over_http(clients: tuple[Client, Client]) -> None:
    refused = "cuda region"
    compare(
        clients,
        [
            Step(register(raw_handle=HANDLE, device_id=0, byte_size=64), refused),
            Step(register(raw_handle=HANDLE, device_id=7, byte_size=64), refused),
            Step(register(raw_handle=HANDLE, device_id=0, byte_size=0), refused),
            *(
                Step(register(raw_handle={"b64": wrong}, device_id=0, byte_size=64))
                for wrong in ("", "AAAA", "!!!!", "?", base64.b64encode(bytes(65)).decode(), HANDLE["b64"] + "AAAA")
            ),
            Step(register(raw_handle={"b64": 7}, device_id=0, byte_size=64)),
            Step(register(raw_handle={}, device_id=0, byte_size=64)),
            Step(register(raw_handle=HANDLE["b64"], device_id=0, byte_size=64)),
            Step(register(device_id=0, byte_size=64)),
            Step(register(raw_handle=HANDLE, byte_size=64)),
            Step(register(raw_handle=HANDLE, device_id=0)),
            Step(register(raw_handle=HANDLE, device_id=-1, byte_size=64)),
            Step(register(raw_handle=HANDLE, device_id="0", byte_size=64)),
            Step(register(raw_handle=HANDLE, device_id=0, byte_size=-1)),
            Step(register(raw_handle=HANDLE, device_id=0, byte_size="64")),
            Step(post(f"{CUDA}/region/r/register", b"nonsense")),
            Step(post(f"{CUDA}/register", {"raw_handle": HANDLE, "device_id": 0, "byte_size": 64})),
            Step(get(f"{CUDA}/status")),
            Step(get(f"{CUDA}/region/r/status")),
            Step(post(f"{CUDA}/region/r/unregister")),
            Step(post(f"{CUDA}/unregister")),
        ],
    )


def test_over_grpc(real_triton: Endpoints, trivet: Endpoints) -> None:
    def answers(server: Endpoints, method: str, **fields: object) -> tuple[grpc.StatusCode, str] | None:
        message = getattr(pb, f"CudaSharedMemory{method}Request")(**fields)
        with grpc.insecure_channel(server.grpc) as channel:
            call = channel.unary_unary(f"{SERVICE}CudaSharedMemory{method}")
            try:
                call(message.SerializeToString(), timeout=30)
            except grpc.RpcError as error:
                return error.code(), error.details()
        return None

    for size in (0, 63, 65):
        fields = {"name": "r", "raw_handle": bytes(size), "device_id": 0, "byte_size": 64}
        theirs, ours = (answers(server, "Register", **fields) for server in (real_triton, trivet))
        assert theirs is not None
        assert ours is not None
        assert theirs[0] == ours[0] == grpc.StatusCode.INVALID_ARGUMENT
        # Triton's says "invalid args" of everything, and ours what is wrong ("cuda region").
        assert ours[1].startswith("failed to register shared memory region: 'raw_handle' has")
        assert theirs[1].startswith("failed to register shared memory region: ")
    for method, name in (("Status", ""), ("Status", "r"), ("Unregister", "r"), ("Unregister", "")):
        assert answers(trivet, method, name=name) == answers(real_triton, method, name=name)
