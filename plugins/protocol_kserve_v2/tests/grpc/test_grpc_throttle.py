"""Models that answer faster than their caller reads are held back."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from trivet_protocol_kserve_v2.grpc import stream
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb
from trivet_protocol_kserve_v2.throttle import MOST_UNDELIVERED, Throttle

from .models import FLOOD
from .rpc import Rpc, int32, request


class Model(threading.Thread):
    """Gives responses to a throttle, and says how far it got."""

    def __init__(self, throttle: Throttle, count: int) -> None:
        super().__init__(daemon=True)
        self._throttle = throttle
        self._count = count
        self.given = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        for _ in range(self._count):
            self._throttle()
            self.given.release()

    def gave(self, count: int) -> bool:
        return all(self.given.acquire(timeout=20) for _ in range(count))

    def waits(self) -> bool:
        return not self.given.acquire(timeout=0.05)


def test_as_many_as_allowed_may_wait() -> None:
    throttle = Throttle(2, lambda: False)
    model = Model(throttle, 4)

    assert model.gave(2)
    assert model.waits()
    throttle.sent()
    assert model.gave(1)
    assert model.waits()
    throttle.sent()
    assert model.gave(1)


def test_who_asks_first_never_waits() -> None:
    """A thread that answers many requests is not stopped by what changes after it asked."""
    full = threading.Event()
    throttle = Throttle(0, full.is_set)
    assert not throttle.holds()
    full.set()

    model = Model(throttle, 2)
    assert model.gave(1)
    assert model.waits()
    assert throttle.holds()
    full.clear()
    throttle.recheck()
    assert model.gave(1)


def test_any_number_may_wait_without_a_limit() -> None:
    throttle = Throttle(0, lambda: False)
    model = Model(throttle, 1000)

    for _ in range(1000):
        assert model.gave(1)
        throttle.delivered()


def test_no_more_are_on_their_way_than_the_event_loop_takes() -> None:
    throttle = Throttle(0, lambda: False)
    model = Model(throttle, MOST_UNDELIVERED + 2)

    assert model.gave(MOST_UNDELIVERED)
    assert model.waits()
    throttle.delivered()
    assert model.gave(1)
    assert model.waits()
    throttle.open()
    assert model.gave(1)


def test_the_event_loop_is_not_held_back() -> None:
    throttle = Throttle(1, lambda: True)

    for _ in range(MOST_UNDELIVERED + 1):
        throttle()


def test_a_full_stream_holds_back() -> None:
    full = [True]
    throttle = Throttle(0, lambda: full[0])
    model = Model(throttle, 1)

    assert model.waits()
    full[0] = False
    throttle.recheck()
    assert model.gave(1)


def test_an_open_throttle_lets_everybody_go() -> None:
    throttle = Throttle(1, lambda: True)
    models = [Model(throttle, 3) for _ in range(3)]

    throttle.open()

    assert all(model.gave(3) for model in models)


def test_who_cannot_wait_is_called_back_when_there_is_room() -> None:
    throttle = Throttle(1, lambda: False)
    called: list[str] = []
    throttle()
    throttle.delivered()
    assert throttle.holds()

    throttle.when_room(lambda: called.append("first"))
    throttle.recheck()
    assert not called
    throttle.sent()
    assert called == ["first"]

    throttle.when_room(lambda: called.append("at once"))
    throttle()
    throttle.when_room(lambda: called.append("when it is open"))
    throttle.open()
    assert called == ["first", "at once", "when it is open"]
    assert not throttle.holds()


@pytest.mark.parametrize("bound", ["responses", "bytes"])
def test_a_client_that_does_not_read_holds_its_model_back(
    serve: Callable[..., Any], grpc_server: str, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte each, so that what gRPC and the sockets take in between is no more than a few."""
    total = 200
    options: dict[str, Any] = {"grpc_max_response_pool_size": 4} if bound == "responses" else {}
    if bound == "bytes":
        monkeypatch.setattr(stream, "MAX_UNSENT_BYTES", 4 * 2**20)
    with serve(grpc_server=grpc_server, **options) as server, Rpc(server.grpc_url) as rpc:
        call = rpc.stream([request("flood", IN=int32(total))])
        first = next(call)

        assert FLOOD.settled() < total / 2
        assert isinstance(first, pb.ModelStreamInferResponse)
        assert sum(len(answer.infer_response.raw_output_contents[0]) for answer in call) == (total - 1) * 2**20
        assert FLOOD.settled() == total


def test_requests_larger_than_what_may_wait_do_not_hold_their_model_back(
    serve: Callable[..., Any], grpc_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_PENDING_BYTES", 8)
    monkeypatch.setattr(stream, "MAX_UNSENT_BYTES", 8)
    with serve(grpc_server=grpc_server) as server, Rpc(server.grpc_url) as rpc:
        answers = rpc.stream([request("repeat", IN=int32(1, 2, 3)) for _ in range(3)])

        assert len(list(answers)) == 9


def test_a_client_that_leaves_lets_its_model_go(serve: Callable[..., Any], grpc_server: str) -> None:
    with serve(grpc_server=grpc_server, grpc_max_response_pool_size=1) as server, Rpc(server.grpc_url) as rpc:
        call: Any = rpc.stream([request("flood", IN=int32(100))])
        next(call)
        FLOOD.settled()

        call.cancel()

        assert FLOOD.ended()
        answer = rpc.call("ModelInfer", request("double", INPUT0=np.zeros((1, 16), np.float32)))
        assert answer.model_name == "double"
        assert call.code() is grpc.StatusCode.CANCELLED


def test_a_client_that_takes_nothing_is_given_up(serve: Callable[..., Any], grpc_server: str) -> None:
    with (
        serve(grpc_server=grpc_server, grpc_max_response_pool_size=1, grpc_write_timeout=0.2) as server,
        Rpc(server.grpc_url) as rpc,
    ):
        call: Any = rpc.stream([request("flood", IN=int32(200))], timeout=100)
        next(call)

        assert FLOOD.ended()  # while the client holds its call open
        server.call(wait_until_idle, server.engine)
        with pytest.raises(grpc.RpcError, match=r"took none of its responses for 0\.2 s") as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def wait_until_idle(engine: Any) -> None:
    async with asyncio.timeout(20):
        for model in engine.ready_models():
            await model.drained()


def test_a_client_that_has_nothing_to_take_is_not(serve: Callable[..., Any], grpc_server: str) -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with serve(grpc_server=grpc_server, grpc_write_timeout=0.4) as server, Rpc(server.grpc_url) as rpc:
        answers = rpc.stream(iter(requests.get, None))
        for _ in range(2):
            requests.put(request("repeat", IN=int32(1)))
            assert isinstance(next(answers), pb.ModelStreamInferResponse)
            time.sleep(0.8)  # nothing tells that a client is not given up
        requests.put(None)
        assert list(answers) == []
