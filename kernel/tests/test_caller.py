"""How models use the other models of the server: from any thread, without waiting for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import ArithmeticPlugin, Journal
from trivet.backend import ModelCaller
from trivet.caller import EngineCaller
from trivet.engine import Engine
from trivet.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RequestCancelledError,
    UnavailableError,
)
from trivet.inference import Execution, InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

MODELS = {
    "double": "",
    "single": 'parameters [{ key: "contract" value { string_value: "requests" } }]',
    "stream": """
        parameters [{ key: "contract" value { string_value: "requests" } },
                    { key: "responses" value { string_value: "3" } }]
        model_transaction_policy { decoupled: true }
    """,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, config in MODELS.items():
        folder = tmp_path / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.arith").write_text("2.0")
        (folder / "config.pbtxt").write_text(f'backend: "arithmetic" {config}')
    return tmp_path


@pytest.fixture
async def engine(repository: Path, plugin: ArithmeticPlugin) -> AsyncIterator[Engine]:
    async with running_engine(
        repository, registry=PluginRegistry.of(arithmetic=plugin), model_control_mode="explicit", load_models=["*"]
    ) as running:
        yield running


@pytest.fixture
def caller(engine: Engine) -> ModelCaller:
    found = engine.model("double")
    assert found
    return engine._caller


def request(model: str, value: float = 3, **fields: Any) -> InferenceRequest:
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", np.array([value], np.float32))}, **fields)


async def on_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await to_thread.run_sync(function, *arguments)


def value(response: InferenceResponse) -> float:
    if response.error is not None:
        raise response.error
    return float(response.outputs[0].numpy()[0])


async def test_infer_blocks_for_the_response(caller: ModelCaller) -> None:
    assert value(await on_thread(caller.infer, request("double"))) == 6


async def test_infer_gives_the_last_of_several(caller: ModelCaller) -> None:
    assert value(await on_thread(caller.infer, request("stream"))) == 6


async def test_a_refusal_is_a_response(caller: ModelCaller) -> None:
    for asked, error in ((request("nobody"), NotFoundError), (InferenceRequest("double", {}), InvalidArgumentError)):
        response = await on_thread(caller.infer, asked)
        assert isinstance(response.error, error)


@pytest.mark.timeout(30)
async def test_a_request_that_nothing_can_be_made_of_is_answered(
    caller: ModelCaller, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.model("double")

    def stumble(_: InferenceRequest) -> None:
        raise TypeError("not a number")

    monkeypatch.setattr(model.scheduler, "enqueue", stumble)
    response = await on_thread(caller.infer, request("double"))
    assert isinstance(response.error, InternalError)
    assert str(response.error) == "model 'double' failed to queue the request: TypeError: not a number"
    assert not model.in_flight
    assert model.statistics.fail.count == 1
    response = await on_thread(caller.infer, InferenceRequest("double", {"x": None}))  # type: ignore[dict-item]
    assert isinstance(response.error, InternalError)


@pytest.mark.timeout(30)
async def test_a_collection_of_garbage_may_cancel_a_request_at_any_moment(
    caller: EngineCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = caller._inbox.post

    class Inbox:
        @staticmethod
        def post(call: Callable[[], None]) -> None:
            monkeypatch.undo()
            caller.cancel(request("double"))  # as the iterator does over responses that nobody wants any more
            post(call)

    monkeypatch.setattr(caller, "_inbox", Inbox)
    assert value(await on_thread(caller.infer, request("double"))) == 6


async def test_the_event_loop_must_not_wait(caller: ModelCaller) -> None:
    assert caller.on_loop()
    with pytest.raises(InternalError, match="cannot wait for another model on the event loop"):
        caller.infer(request("double"))
    with pytest.raises(InternalError, match="on the event loop"):
        caller.load("double")


async def test_submit_delivers_each_response(caller: ModelCaller) -> None:
    received: list[InferenceResponse] = []
    done = asyncio.Event()

    def on_response(response: InferenceResponse) -> None:
        received.append(response)
        if response.final:
            done.set()

    await on_thread(caller.submit, request("stream"), on_response)
    await done.wait()
    assert [response.final for response in received] == [False, False, True]


async def test_a_deadline_cancels(caller: ModelCaller, journal: Journal, engine: Engine) -> None:
    with journal.gate:
        with pytest.raises(DeadlineExceededError, match=r"gave no response within 0\.01 s"):
            await on_thread(caller.infer, request("double"), 0.01)
        await asyncio.sleep(0)  # the cancellation is on its way to this loop
        assert not engine.model("double").in_flight


async def test_what_is_known_of_a_model(caller: ModelCaller) -> None:
    assert caller.is_ready("double")
    assert not caller.is_ready("double", "7")
    assert caller.is_decoupled("stream")
    assert not caller.is_decoupled("double")
    assert not caller.is_decoupled("nobody")


class TestWithTheRequestsThatLedToIt:
    async def test_cancelling_all_of_them_cancels_it(
        self, engine: Engine, caller: ModelCaller, journal: Journal
    ) -> None:
        parents = [request("single") for _ in range(2)]
        made = request("double")
        made.origin = Execution(parents)
        with journal.gate:
            for parent in parents:
                engine.submit(parent)
            answer = asyncio.ensure_future(on_thread(caller.infer, made))
            for _ in range(2):
                await to_thread.run_sync(journal.gate.wait_until_entered)
            engine.cancel(parents[0])
            assert not made.cancelled
            engine.cancel(parents[1])
            assert made.cancelled
            assert isinstance((await answer).error, RequestCancelledError)

    async def test_down_to_the_last_model(self, engine: Engine, caller: ModelCaller, journal: Journal) -> None:
        parent, child, grandchild = request("single"), request("stream"), request("double")
        child.origin, grandchild.origin = Execution([parent]), Execution([child])
        with journal.gate:
            engine.submit(parent)
            answers = [asyncio.ensure_future(on_thread(caller.infer, made)) for made in (child, grandchild)]
            for _ in range(3):
                await to_thread.run_sync(journal.gate.wait_until_entered)
            engine.cancel(parent)
            assert child.cancelled
            assert grandchild.cancelled
            await asyncio.gather(*answers)

    async def test_nothing_is_begun_for_one_that_was_cancelled(self, engine: Engine, caller: ModelCaller) -> None:
        parent, made = request("single"), request("double")
        parent.cancelled = True
        made.origin = Execution([parent])
        assert isinstance((await on_thread(caller.infer, made)).error, RequestCancelledError)
        assert made.model is None

    async def test_what_is_answered_is_forgotten(self, engine: Engine, caller: ModelCaller) -> None:
        execution = Execution([request("single")])
        for name in ("double", "nobody"):
            made = request(name)
            made.origin = execution
            await on_thread(caller.infer, made)
        assert execution.made == set()

    @pytest.mark.parametrize("distance", [1, 2])
    async def test_a_model_that_would_wait_for_itself(
        self, engine: Engine, caller: ModelCaller, journal: Journal, distance: int
    ) -> None:
        first = last = request("single")
        with journal.gate:
            engine.submit(first)
            for _ in range(distance - 1):
                between = request("double")
                between.origin = Execution([last])
                last = between
            made = request("single")
            made.origin = Execution([last])
            response = await on_thread(caller.infer, made)
        assert "model 'single' calls itself: all of its 1 instances" in str(response.error)

    async def test_a_model_whose_instance_is_free_may_call_itself(
        self, engine: Engine, caller: ModelCaller, journal: Journal
    ) -> None:
        parent, made = request("single"), request("single")
        engine.submit(parent)
        made.origin = Execution([parent], holds_instance=False)
        assert value(await on_thread(caller.infer, made)) == 6


class TestStopping:
    async def test_requests_made_for_others_are_taken_while_the_server_drains(
        self, engine: Engine, caller: ModelCaller
    ) -> None:
        engine.begin_drain()
        with pytest.raises(UnavailableError):
            engine.submit(request("double"))
        assert value(await on_thread(caller.infer, request("double"))) == 6

    async def test_who_waits_gets_an_error(self, engine: Engine, caller: ModelCaller, journal: Journal) -> None:
        with journal.gate:
            answer = asyncio.ensure_future(on_thread(caller.infer, request("double")))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            engine.abandon()
            assert isinstance((await answer).error, UnavailableError)

    async def test_who_comes_late_gets_an_error(self, engine: Engine, caller: ModelCaller) -> None:
        await engine.stop()
        response = await on_thread(caller.infer, request("double"))
        assert isinstance(response.error, UnavailableError)
        caller.cancel(request("double"))
        for control in (caller.load, caller.unload):
            with pytest.raises(UnavailableError, match="Server is stopping"):
                await on_thread(control, "double")

    async def test_who_comes_when_the_loop_is_gone(self, repository: Path, plugin: ArithmeticPlugin) -> None:
        found: list[ModelCaller] = []

        async def run() -> None:
            async with running_engine(repository, registry=PluginRegistry.of(arithmetic=plugin)) as engine:
                found.append(engine._caller)

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        thread.join()
        assert isinstance(found[0].infer(request("double")).error, UnavailableError)


class TestControl:
    async def test_unload_and_load(self, engine: Engine, caller: ModelCaller) -> None:
        await on_thread(caller.unload, "double")
        assert not engine.model_ready("double")
        await on_thread(caller.load, "double")
        assert engine.model_ready("double")

    async def test_a_failure_is_raised(self, caller: ModelCaller) -> None:
        with pytest.raises(InternalError, match="failed to load 'nobody', failed to poll from model repository"):
            await on_thread(caller.load, "nobody")

    async def test_files_make_a_model_that_no_repository_holds(self, engine: Engine, caller: ModelCaller) -> None:
        await on_thread(
            lambda: caller.load("made", config='{"backend": "arithmetic"}', files={"1/model.arith": b"7.0"})
        )
        assert value(await engine.infer(request("made"))) == 21

    async def test_a_load_that_waits_for_itself(self, caller: ModelCaller) -> None:
        with pytest.raises(InvalidArgumentError, match="they would wait for each other, as 'double' is being loaded"):
            await on_thread(lambda: caller.load("double", loading="double"))

    async def test_loads_that_wait_for_each_other(self, caller: ModelCaller, plugin: ArithmeticPlugin) -> None:
        # Stands for an instance of "double" that loads "single" in its constructor, which loads "double".
        caller._waits_for["double"] = ["single"]  # type: ignore[attr-defined]
        with pytest.raises(InvalidArgumentError, match="would wait for each other"):
            await on_thread(lambda: caller.unload("double", loading="single"))
