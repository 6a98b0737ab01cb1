"""What waits in a queue: let go of when its caller goes, and refused at once where there is no room."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from trivet.errors import RequestCancelledError, ResourceExhaustedError, TrivetError, UnavailableError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.testing import RunningServer

from .models import GATE
from .rpc import Rpc, int32, request


@pytest.fixture
def rpc(server: RunningServer) -> Iterator[Rpc]:
    with Rpc(server.grpc_url) as connected:
        yield connected


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_caller_that_goes_frees_its_place_in_the_queue(
    server: RunningServer,
    rpc: Rpc,
    finished: queue.Queue[tuple[InferenceRequest, InferenceResponse]],
    method: str,
    how: str,
) -> None:
    """Both instances are held at the gate while the request waits; it is answered before they go on."""
    infer = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    held = [infer.future(request("gate", IN=int32(value)).SerializeToString()) for value in (1201, 1202)]
    for value in (1201, 1202):
        GATE.request(value)
    timeout = 0.5 if how == "deadline" else 60
    waiting = request("gate", IN=int32(1203))
    call: Any
    if method == "ModelInfer":
        call = infer.future(waiting.SerializeToString(), timeout=timeout)
    else:
        call = rpc.stream([waiting], timeout=timeout)
    if how == "cancel":
        _until_queued(server)
        call.cancel()

    cancelled, response = finished.get(timeout=20)
    assert isinstance(response.error, RequestCancelledError)
    assert cancelled.inputs["IN"].numpy().tolist() == [1203]
    assert cancelled.compute_start_ns == 0
    GATE.open(1201, 1202)
    for future in held:
        future.result(timeout=20)


def _until_queued(server: RunningServer) -> None:
    """Return when one request waits that no instance has taken."""

    async def wait() -> None:
        async with asyncio.timeout(20):
            while server.engine.model("gate").scheduler.queued != 1:  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0)

    server.call(wait)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("Exceeds maximum queue size"), grpc.StatusCode.UNAVAILABLE),
        (ResourceExhaustedError("no more"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_scheduler_that_has_no_room_says_so(
    server: RunningServer, rpc: Rpc, error: TrivetError, code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: InferenceRequest) -> None:
        raise error

    monkeypatch.setattr(server.call(server.engine.model, "gate").scheduler, "enqueue", refuse)
    with pytest.raises(grpc.RpcError) as caught:
        rpc.call("ModelInfer", request("gate", IN=int32(1)))
    assert (caught.value.code(), caught.value.details()) == (code, str(error))

    (answer,) = rpc.stream([request("gate", IN=int32(1))])
    assert answer.error_message == str(error)
