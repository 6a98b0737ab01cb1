"""The engine: models are asked, and no request is lost on the way."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio import to_thread
from arithmetic_backend import Journal
from arithmetic_models import Repository, ask, request
from trivet.engine import Engine
from trivet.errors import (
    Code,
    InvalidArgumentError,
    NotFoundError,
)
from trivet.inference import InferenceRequest, InferenceResponse

pytestmark = pytest.mark.anyio


async def test_a_request_is_answered(engine: Engine) -> None:
    assert await ask(engine, "double", 1.0, 2.5) == [2.0, 5.0]


async def test_every_part_of_an_instance_runs_on_one_thread_of_its_own(engine: Engine, journal: Journal) -> None:
    await ask(engine)
    await engine.unload("double")
    await engine.stop()
    assert journal.threads["create"] == journal.threads["execute"] == journal.threads["close"]
    assert len(journal.threads["execute"]) == 1
    assert journal.closed == ["double/1"]


async def test_a_failing_execution_costs_only_its_own_request(engine: Engine) -> None:
    response = await engine.infer(request("double", -1.0))
    assert response.error is not None
    assert response.error.code is Code.INTERNAL
    assert "ValueError: negative input" in response.error.message
    assert await ask(engine) == [2.0]


async def test_unknown_models_and_versions_are_named(engine: Engine) -> None:
    with pytest.raises(NotFoundError, match="Request for unknown model: 'nope' is not found"):
        await ask(engine, "nope")
    with pytest.raises(NotFoundError, match="Request for unknown model: 'double' version 7 is not found"):
        await ask(engine, "double", version="7")
    with pytest.raises(InvalidArgumentError, match="failed to get model version from specified version string 'x'"):
        await ask(engine, "double", version="x")


async def test_the_latest_version_is_the_default_and_policy_chooses(repository: Repository) -> None:
    repository.add("many", "version_policy { all {} }", v1=1.0, v2=2.0, v10=10.0)
    repository.add("latest", "version_policy { latest { num_versions: 2 } }", v1=1.0, v2=2.0, v10=10.0)
    repository.add("one", "version_policy { specific { versions: [2] } }", v1=1.0, v2=2.0, v10=10.0)
    repository.add("default", v1=1.0, v2=2.0)
    async with repository.serve() as engine:
        assert engine.versions("many") == [1, 2, 10]
        assert engine.versions("latest") == [2, 10]
        assert engine.versions("one") == [2]
        assert engine.versions("default") == [2]
        assert await ask(engine, "many") == [10.0]
        assert await ask(engine, "many", version="2") == [2.0]


async def test_an_instance_group_runs_that_many_at_once(repository: Repository, journal: Journal) -> None:
    repository.add("double", "instance_group { count: 2 kind: KIND_CPU }")
    async with repository.serve() as engine:
        with journal.gate:
            answers = [asyncio.ensure_future(ask(engine)) for _ in range(2)]
            for _ in answers:
                await to_thread.run_sync(journal.gate.wait_until_entered)
        assert await asyncio.gather(*answers) == [[2.0], [2.0]]
        assert len(journal.threads["execute"]) == 2


async def test_requests_of_one_instance_are_served_in_the_order_they_came(engine: Engine) -> None:
    order: list[str] = []
    done = asyncio.Event()

    def on_response(answered: InferenceRequest, _: InferenceResponse) -> None:
        order.append(answered.id)
        if len(order) == 50:
            done.set()

    for number in range(50):
        engine.submit(request(id=str(number), on_response=on_response))
    await done.wait()
    assert order == [str(number) for number in range(50)]


async def test_statistics_count_successes_failures_and_time(engine: Engine) -> None:
    for value in (1.0, 1.0, -1.0):
        await engine.infer(request("double", value))
    with pytest.raises(InvalidArgumentError):
        engine.submit(InferenceRequest("double", {}))
    [stats] = engine.statistics("double")
    assert (stats.success.count, stats.fail.count) == (2, 1)
    assert (stats.inference_count, stats.execution_count) == (2, 3)
    assert stats.batches[1].compute_infer.count == 3
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert all(part.count == 2 for part in parts)
    assert 0 < sum(part.ns for part in parts) <= stats.success.ns
    assert stats.last_inference_ms > 0


async def test_a_decoupled_model_answers_many_times_and_the_last_is_final(repository: Repository) -> None:
    repository.add(
        "stream",
        'model_transaction_policy { decoupled: true } parameters { key: "contract" value { string_value: "requests" } }'
        ' parameters { key: "responses" value { string_value: "3" } }',
    )
    async with repository.serve() as engine:
        finals: list[bool] = []
        done = asyncio.Event()

        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            finals.append(response.final)
            if response.final:
                done.set()

        engine.submit(request("stream", on_response=on_response))
        await done.wait()
        assert finals == [False, False, True]


async def test_both_contracts_give_the_same_answer(repository: Repository) -> None:
    repository.add("requests", 'parameters { key: "contract" value { string_value: "requests" } }')
    async with repository.serve() as engine:
        assert await ask(engine, "requests", 3.0) == [6.0]
        response = await engine.infer(request("requests", -3.0))
        assert response.error is not None


class TestCancellation:
    async def test_a_waiting_request_is_answered_at_once_and_never_executed(
        self, engine: Engine, journal: Journal
    ) -> None:
        with journal.gate:
            first = asyncio.ensure_future(ask(engine))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            answers: list[InferenceResponse] = []
            waiting = request(on_response=lambda _, response: answers.append(response))
            engine.submit(waiting)
            engine.cancel(waiting)
            assert [answer.error and answer.error.code for answer in answers] == [Code.CANCELLED]
        await first
        await ask(engine)
        assert len(journal.batches) == 2

    async def test_an_executing_request_is_answered_at_once_and_its_result_dropped(
        self, engine: Engine, journal: Journal
    ) -> None:
        answers: list[InferenceResponse] = []
        running = request(on_response=lambda _, response: answers.append(response))
        with journal.gate:
            engine.submit(running)
            await to_thread.run_sync(journal.gate.wait_until_entered)
            engine.cancel(running)
        await ask(engine)
        assert len(answers) == 1
        assert engine.statistics("double")[0].fail.count == 1

    async def test_what_waits_behind_an_execution_never_holds_its_answer_up(
        self, engine: Engine, journal: Journal
    ) -> None:
        with journal.gate:
            first = asyncio.ensure_future(ask(engine))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            waiting = request()
            engine.submit(waiting)
            await anyio.lowlevel.checkpoint()  # it is with the instance's thread now, which puts no inputs together
            engine.cancel(waiting)
        assert await first == [2.0]

    async def test_cancelling_the_waiting_task_cancels_the_request(self, engine: Engine, journal: Journal) -> None:
        asked = request()
        with journal.gate:
            task = asyncio.ensure_future(engine.infer(asked))
            await to_thread.run_sync(journal.gate.wait_until_entered)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asked.cancelled
