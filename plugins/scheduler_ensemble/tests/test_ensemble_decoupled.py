"""Ensembles with models that answer a request any number of times, and how far those may run ahead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import to_thread
from ensemble_models import Answers, Operations, Repository, ask, numbers, tensors
from trivet.engine import Engine
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio


async def stream(engine: Engine, model: str, start: float) -> tuple[list[float], int]:
    """The first number of each response with outputs, and how many responses there were."""
    answers = Answers()
    engine.submit(ask(model, tensors(I=[start, 0, 0, 0]), answers))
    await asyncio.wait_for(answers.final.wait(), 30)
    values = [numbers(response)["O"][0][0] for response in answers.all if numbers(response)]
    return values, len(answers.all)


@pytest.mark.parametrize("repeat", ["repeat", "repeat_last"])
@pytest.mark.parametrize("instances", [1, 4])
async def test_each_response_goes_through_the_steps_behind_it_and_keeps_its_place(
    models: Repository, operations: Operations, repeat: str, instances: int
) -> None:
    models.model("r", repeat)
    models.model("m", instances=instances)
    models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "u"}), ("m", {"x": "u"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        assert engine.model("e").spec.decoupled
        for count in (0, 1, 2, 50):
            values, responses = await stream(engine, "e", count)
            assert values == [count + number + 2 for number in range(count)]
            # The last one says so itself, unless it was on its way before that was known.
            assert responses in (max(count, 1), count + 1)
        assert not engine.model("m").in_flight


async def test_decoupled_models_behind_each_other_answer_in_order(models: Repository, operations: Operations) -> None:
    models.model("r", "repeat")
    models.model("q", "repeat", instances=3)
    models.model("m", instances=3)
    models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("q", {"x": "t"}, {"y": "u"}), ("m", {"x": "u"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        values, _ = await stream(engine, "e", 3)
        assert values == [3 + outer + inner + 1 for outer in range(3) for inner in range(3 + outer)]


async def test_an_ensemble_in_an_ensemble_is_decoupled_too(models: Repository, operations: Operations) -> None:
    models.model("r", "repeat")
    models.model("m")
    models.ensemble("inner", ("r", {"x": "I"}, {"y": "O"}))
    models.ensemble("e", ("inner", {"I": "I"}, {"O": "t"}), ("m", {"x": "t"}, {"y": "O"}))
    async with running_engine(models.root, registry=operations.registry()) as engine:
        assert (await stream(engine, "e", 3))[0] == [4, 5, 6]


async def test_branches_behind_one_response_come_together(models: Repository, operations: Operations) -> None:
    models.model("r", "repeat")
    models.model("m", instances=4)
    models.model("sum", "add", instances=2)
    models.ensemble(
        "e",
        ("sum", {"a": "l", "b": "q"}, {"s": "O"}),
        ("m", {"x": "t"}, {"y": "l"}),
        ("m", {"x": "t"}, {"z": "q"}),
        ("r", {"x": "I"}, {"y": "t"}),
    )
    async with running_engine(models.root, registry=operations.registry()) as engine:
        values, _ = await stream(engine, "e", 20)
        assert values == [(20 + number) * 11 + 1 for number in range(20)]


async def test_an_error_behind_a_response_ends_the_request_once(models: Repository, operations: Operations) -> None:
    models.model("r", "repeat")
    models.model("m", instances=2)
    models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("slow", {"x": "t"}, {"y": "O"}))
    models.model("slow", "wait", instances=2)
    async with running_engine(models.root, registry=operations.registry()) as engine:
        answers = Answers()
        request = ask("e", tensors(I=[40, 0, 0, -1]), answers)
        engine.submit(request)
        await to_thread.run_sync(operations.started["slow"].wait, 30)
        operations.gates["slow"].set()
        await asyncio.wait_for(answers.final.wait(), 30)
        assert str(answers.all[-1].error) == "in ensemble 'e', negative input"
        assert [response.error is not None for response in answers.all].count(True) == 1
        assert not engine.model("slow").in_flight
        assert not engine.model("r").in_flight


async def test_cancelling_frees_what_is_under_way(models: Repository, operations: Operations) -> None:
    models.model("r", "repeat")
    models.model("slow", "wait")
    models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("slow", {"x": "t"}, {"y": "O"}), most=2)
    async with running_engine(models.root, registry=operations.registry()) as engine:
        answers = Answers()
        request = ask("e", tensors(I=[1000, 0, 0, 0]), answers)
        engine.submit(request)
        await to_thread.run_sync(operations.started["slow"].wait, 30)
        engine.cancel(request)
        assert len(answers.all) == 1
        assert engine.model("e").scheduler.queued == 0
        assert not engine.model("slow").in_flight
        operations.gates["slow"].set()
        # The models are there for the next request.
        assert (await stream(engine, "e", 2))[0] == [3, 4]


class TestMaxInflightRequests:
    async def test_a_step_has_no_more_requests_at_its_model_and_its_producer_waits(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("r", "repeat")
        models.model("slow", "wait", instances=8)
        models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("slow", {"x": "t"}, {"y": "O"}), most=3)
        most = 0

        async with running_engine(models.root, registry=operations.registry()) as engine:
            slow = engine.model("slow")
            scheduler: Any = engine.model("e").scheduler
            submit = scheduler.models.submit

            def watch(model: Any, request: Any) -> None:
                nonlocal most
                submit(model, request)
                most = max(most, len(slow.in_flight))

            scheduler.models = type("Watched", (), {"submit": staticmethod(watch), "cancel": engine.cancel})
            answers = Answers()
            engine.submit(ask("e", tensors(I=[200, 0, 0, 0]), answers))
            await to_thread.run_sync(operations.started["slow"].wait, 30)
            assert len(slow.in_flight) <= 3
            operations.gates["slow"].set()
            await asyncio.wait_for(answers.final.wait(), 30)
            values = [numbers(response)["O"][0][0] for response in answers.all if response.outputs]
            assert values == [200 + number + 1 for number in range(200)]
            assert most == 3

    async def test_the_bound_is_for_all_requests_together_and_nobody_starves(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("r", "repeat", instances=3)
        models.model("m", instances=2)
        models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("m", {"x": "t"}, {"y": "O"}), most=2)
        async with running_engine(models.root, registry=operations.registry()) as engine:
            streams = await asyncio.gather(*(stream(engine, "e", count) for count in (30, 10, 20, 5)))
            for count, (values, _) in zip((30, 10, 20, 5), streams, strict=True):
                assert values == [count + number + 1 for number in range(count)]
            assert [limit.in_flight for limit in engine.model("e").scheduler.limits] == [0, 0]  # type: ignore[attr-defined]

    async def test_a_model_behind_itself_is_not_held_back_by_what_it_is_needed_for(
        self, models: Repository, operations: Operations
    ) -> None:
        models.model("r", "repeat")
        models.ensemble("inner", ("r", {"x": "I"}, {"y": "O"}))
        models.ensemble("e", ("r", {"x": "I"}, {"y": "t"}), ("inner", {"I": "t"}, {"O": "O"}), most=1)
        async with running_engine(models.root, registry=operations.registry()) as engine:
            values, _ = await stream(engine, "e", 3)
            assert values == [3 + outer + inner for outer in range(3) for inner in range(3 + outer)]
