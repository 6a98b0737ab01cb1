"""A scheduler's own failure costs the request that it fails at, and nothing is kept of that one."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arithmetic_backend import ArithmeticPlugin
from trivet import hookimpl
from trivet.backend import RequestInstance
from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError, RequestCancelledError, UnavailableError
from trivet.hookspecs import SchedulerPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.scheduling import Batch, SchedulableInstance, Scheduler, SchedulerContext
from trivet.statistics import FailureReason
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet.trace_settings import TraceOptions, TraceSettings
from trivet.traced import Trace
from trivet.tracing import Sampler, TraceSink

pytestmark = pytest.mark.anyio


class Stumbling(Scheduler):
    """One request after the other, and a bug wherever a request's parameter ``fails`` says."""

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self.orders_responses = True

    def enqueue(self, request: InferenceRequest) -> None:
        fails = request.parameters.get("fails")
        if fails == "enqueue":
            raise KeyError("nobody thought of this")
        if fails == "on_done":
            request.on_done = self.fail
        if fails == "on_cancel":
            request.on_cancel = self.fail
            return  # it waits for ever
        if fails == "answered":
            self.context.reject(request, UnavailableError("no room"))
            raise KeyError("nobody thought of this")
        self.context.instances[0].submit(Batch([] if fails == "nothing to execute" else [request]))
        if fails == "queued":
            raise KeyError("nobody thought of this")

    def fail(self, request: InferenceRequest) -> None:
        raise KeyError("nobody thought of this")

    def reschedule(self, request: InferenceRequest) -> None:
        self.fail(request)

    def deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        if request.parameters.get("fails") == "deliver":
            self.fail(request)
        super().deliver(request, response)

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        if batch.requests[0].parameters.get("fails") == "batch_done":
            self.fail(batch.requests[0])

    @property
    def queued(self) -> int:
        return 0


class StumblingPlugin:
    @hookimpl
    def trivet_schedulers(self) -> Sequence[SchedulerPlugin]:
        return [SchedulerPlugin(name="dynamic_batching", factory=Stumbling, dedicated_queues=True)]


class Kept(TraceSink):
    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.retired: list[Sampler] = []

    def add(self, trace: Trace) -> None:
        self.traces.append(trace)

    def retire(self, sampler: Sampler) -> None:
        self.retired.append(sampler)


class House:
    """A model behind that scheduler, every request of which is traced."""

    def __init__(self, path: Path) -> None:
        self.arithmetic = ArithmeticPlugin()
        self.traces = Kept()
        self.path = path
        (path / "m" / "1").mkdir(parents=True)
        (path / "m" / "1" / "model.arith").write_text("2")
        self.configure()

    def configure(self, more: str = "") -> None:
        (self.path / "m" / "config.pbtxt").write_text(f"max_batch_size: 4 dynamic_batching {{}} {more}")

    @asynccontextmanager
    async def serve(self, **options: Any) -> AsyncIterator[Engine]:
        settings = TraceSettings(level=frozenset({"TIMESTAMPS"}), rate=1, file="none")
        registry = PluginRegistry.of(arithmetic=self.arithmetic, stumbling=StumblingPlugin())
        trace = TraceOptions(settings=settings)
        async with running_engine(self.path, registry=registry, trace=trace, **options) as engine:
            engine.tracing.use(self.traces)
            yield engine

    def nothing_is_kept(self, engine: Engine, failed: int) -> None:
        """Every request, the failed ones among them, was counted once, and its trace handed on."""
        engine.tracing.update("", {"rate": 7})
        assert len(self.traces.retired) == 1, "trace settings that were replaced are given up with their last trace"
        (statistics,) = engine.statistics("m")
        assert statistics.fail.count == sum(statistics.failures.values()) == failed
        assert sum(trace.requests[0].error is not None for trace in self.traces.traces) == failed
        assert not engine.model("m").in_flight


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def request(fails: str = "", **fields: Any) -> InferenceRequest:
    x = Tensor.from_numpy("x", np.ones((1, 1), np.float32))
    return InferenceRequest("m", {"x": x}, parameters={"fails": fails}, **fields)


async def answers(engine: Engine) -> bool:
    """Whether the model still serves."""
    return (await engine.infer(request())).error is None


@pytest.mark.parametrize("place", ["enqueue", "queued"])
async def test_a_request_that_fails_to_be_queued_is_refused(house: House, place: str) -> None:
    """In the second case it is in the instance's queue by then."""
    async with house.serve() as engine:
        refused: list[InferenceRequest] = []
        engine.on_refused.append(lambda request, _: refused.append(request))
        asked = request(place)
        with pytest.raises(InternalError, match="model 'm' failed to queue the request: KeyError: 'nobody thought"):
            await engine.infer(asked)
        assert refused == [asked]
        assert await answers(engine)
        assert house.arithmetic.journal.batches == [1], "nobody waits for the first"
        (statistics,) = engine.statistics("m")
        assert statistics.failures[FailureReason.OTHER] == 1
        house.nothing_is_kept(engine, failed=1)


async def test_what_is_refused_is_let_go_of_without_a_collection(house: House) -> None:
    """Clients that send what is refused would fill the memory with it until then."""
    async with house.serve() as engine:
        engine.tracing.update("", {"rate": 1000})
        gc.disable()
        try:
            array = np.ones((1, 1), np.float64)
            kept = weakref.ref(array)
            asked = InferenceRequest("m", {"x": Tensor.from_numpy("x", array)})
            with suppress(InvalidArgumentError):
                engine.submit(asked)
            del asked, array
            assert kept() is None
        finally:
            gc.enable()


async def test_a_batch_without_requests_costs_only_what_it_was_made_for(house: House) -> None:
    async with house.serve() as engine:
        with pytest.raises(InternalError, match="failed to queue the request: ValueError: a batch without requests"):
            await engine.infer(request("nothing to execute"))
        assert await answers(engine)
        house.nothing_is_kept(engine, failed=1)


@pytest.mark.parametrize("place", ["drain", "close"])
async def test_a_model_whose_scheduler_fails_as_it_leaves_is_gone_all_the_same(
    house: House, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Stumbling) -> None:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(Stumbling, place, fail)
    async with house.serve(model_control_mode="explicit", load_models=["m"]) as engine:
        for _ in range(2):
            assert await answers(engine)
            await engine.unload("m")
            await engine.load("m")
        assert "close" in house.arithmetic.journal.threads, "its instances were closed"
    assert f"the scheduler of model 'm' failed to {place}" in caplog.text


async def test_a_request_that_was_answered_is_not_refused_too(house: House) -> None:
    async with house.serve() as engine:
        response = await engine.infer(request("answered"))
        assert str(response.error) == "no room"
        assert await answers(engine)
        house.nothing_is_kept(engine, failed=1)


async def test_a_response_that_fails_to_be_delivered_becomes_an_error(house: House) -> None:
    async with house.serve() as engine:
        with house.arithmetic.journal.gate:
            both = [asyncio.ensure_future(engine.infer(request(fails))) for fails in ("deliver", "")]
            await asyncio.sleep(0)
        failed, other = await asyncio.gather(*both)
        assert "model 'm' failed to deliver a response: KeyError: 'nobody thought of this'" in str(failed.error)
        assert other.error is None
        house.nothing_is_kept(engine, failed=1)


@pytest.mark.parametrize("place", ["batch_done", "on_done"])
async def test_a_request_that_is_done_keeps_its_response(
    house: House, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with house.serve() as engine:
        assert (await engine.infer(request(place))).error is None
        assert await answers(engine)
        assert "nobody thought of this" in caplog.text
        house.nothing_is_kept(engine, failed=0)


async def test_an_execution_that_its_scheduler_fails_to_hear_of_gives_its_resources_back(house: House) -> None:
    house.configure('instance_group { kind: KIND_CPU rate_limiter { resources { name: "r" count: 1 } } }')
    async with house.serve(rate_limit="execution_count") as engine:
        for _ in range(3):
            assert (await engine.infer(request("batch_done"))).error is None


class Again(RequestInstance):
    """Wants every request once more."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            request.rescheduled = True


async def test_a_step_that_fails_to_be_queued_ends_its_request(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arithmetic_backend.Arrays", lambda _: Again())
    async with house.serve() as engine:
        response = await engine.infer(request())
        assert "model 'm' failed to queue the next step of a request: KeyError" in str(response.error)
        house.nothing_is_kept(engine, failed=1)


@pytest.mark.parametrize("stop", [False, True])
async def test_a_request_that_is_not_let_go_of_is_cancelled_all_the_same(house: House, stop: bool) -> None:
    async with house.serve() as engine:
        given: list[InferenceResponse] = []
        asked = request("on_cancel", on_response=lambda _, response: given.append(response))
        engine.submit(asked)
        if stop:
            engine.abandon()
        else:
            engine.cancel(asked)
        (response,) = given
        assert isinstance(response.error, UnavailableError if stop else RequestCancelledError)
        house.nothing_is_kept(engine, failed=1)
