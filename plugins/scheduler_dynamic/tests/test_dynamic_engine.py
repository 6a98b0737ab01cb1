"""The batcher inside an engine: real instances on real threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import ArithmeticPlugin
from trivet.engine import Engine
from trivet.errors import InvalidArgumentError, UnavailableError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_scheduler_dynamic import plugin as batching

pytestmark = pytest.mark.anyio

Running = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def arithmetic() -> ArithmeticPlugin:
    return ArithmeticPlugin()


@pytest.fixture
def running(tmp_path: Path, arithmetic: ArithmeticPlugin) -> Running:
    """Starts an engine with a model ``m`` that multiplies by 10 and has the given configuration."""

    @asynccontextmanager
    async def start(config: str, **options: Any) -> AsyncIterator[Engine]:
        (tmp_path / "m" / "1").mkdir(parents=True)
        (tmp_path / "m" / "1" / "model.arith").write_text("10")
        (tmp_path / "m" / "config.pbtxt").write_text(f"max_batch_size: 8 {config}")
        registry = PluginRegistry.of(arithmetic=arithmetic, dynamic_batching=batching)
        async with running_engine(tmp_path, registry=registry, **options) as engine:
            yield engine

    return start


def asking(*rows: float) -> InferenceRequest:
    return InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array([[row] for row in rows], np.float32))})


async def ask(engine: Engine, *rows: float) -> list[list[float]]:
    response = await engine.infer(asking(*rows))
    if response.error is not None:
        raise response.error
    return response.outputs[0].numpy().tolist()


async def test_requests_that_come_while_the_model_computes_share_an_execution(
    running: Running, arithmetic: ArithmeticPlugin
) -> None:
    async with running("dynamic_batching {}") as engine:
        with arithmetic.journal.gate as gate:
            first = asyncio.ensure_future(ask(engine, 1))
            await to_thread.run_sync(gate.wait_until_entered)
            others = [asyncio.ensure_future(ask(engine, *rows)) for rows in ([2], [3, 4], [5])]
            await asyncio.sleep(0)
            assert engine.model("m").scheduler.queued == 3
        assert await first == [[10]]
        assert await asyncio.gather(*others) == [[[20]], [[30], [40]], [[50]]]
        [statistics] = engine.statistics("m")
        assert (statistics.execution_count, statistics.inference_count) == (2, 5)
        assert sorted(statistics.batches) == [1, 4]


async def test_an_input_that_the_model_refuses_costs_no_other_request_of_the_batch(
    running: Running, arithmetic: ArithmeticPlugin
) -> None:
    async with running("dynamic_batching {}") as engine:
        with arithmetic.journal.gate as gate:
            first = asyncio.ensure_future(ask(engine, 1))
            await to_thread.run_sync(gate.wait_until_entered)
            others = [asyncio.ensure_future(ask(engine, *rows)) for rows in ([2], [np.inf, 3], [4, 5])]
        good, refused, better = await asyncio.gather(*others, return_exceptions=True)
        assert (await first, good, better) == ([[10]], [[20]], [[40], [50]])
        assert isinstance(refused, InvalidArgumentError)
        assert arithmetic.journal.batches == [1, 5, 1, 2, 2]
        [statistics] = engine.statistics("m")
        assert (statistics.success.count, statistics.fail.count) == (3, 1)


async def test_a_full_queue_refuses_and_what_it_holds_is_served(running: Running, arithmetic: ArithmeticPlugin) -> None:
    async with running("dynamic_batching { default_queue_policy { max_queue_size: 2 } }") as engine:
        with arithmetic.journal.gate as gate:
            asked = [asyncio.ensure_future(ask(engine, 1))]
            await to_thread.run_sync(gate.wait_until_entered)
            asked += [asyncio.ensure_future(ask(engine, number)) for number in (2, 3, 4, 5)]
            with pytest.raises(UnavailableError, match="Exceeds maximum queue size"):
                await asked[3]
            with pytest.raises(UnavailableError, match="Exceeds maximum queue size"):
                await asked[4]
        assert await asyncio.gather(*asked[:3]) == [[[10]], [[20]], [[30]]]
        [statistics] = engine.statistics("m")
        assert (statistics.success.count, statistics.fail.count) == (3, 2)


async def test_a_timeout_answers_while_the_model_still_computes(running: Running, arithmetic: ArithmeticPlugin) -> None:
    policy = "default_queue_policy { default_timeout_microseconds: 1000 }"
    async with running(f"dynamic_batching {{ {policy} }}") as engine:
        with arithmetic.journal.gate as gate:
            first = asyncio.ensure_future(ask(engine, 1))
            await to_thread.run_sync(gate.wait_until_entered)
            with pytest.raises(UnavailableError, match="Request timeout expired"):
                await ask(engine, 2)
        assert await first == [[10]]


async def test_responses_keep_the_order_of_requests_over_several_instances(
    running: Running, arithmetic: ArithmeticPlugin
) -> None:
    ordered = "dynamic_batching { preserve_ordering: true } instance_group { count: 3 kind: KIND_CPU }"
    answered: list[float] = []
    done = asyncio.Event()

    def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
        answered.extend(response.outputs[0].numpy()[:, 0].tolist())
        if len(answered) == 200:
            done.set()

    async with running(ordered) as engine:
        requests = [asking(number) for number in range(200)]
        for number, request in enumerate(requests):
            request.on_response = on_response
            engine.submit(request)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await done.wait()
    assert answered == [number * 10.0 for number in range(200)]


async def test_every_request_of_a_model_that_unloads_is_answered(
    running: Running, arithmetic: ArithmeticPlugin
) -> None:
    delayed = "dynamic_batching { max_queue_delay_microseconds: 50000 }"
    async with running(delayed, model_control_mode="explicit", load_models=["m"]) as engine:
        asked = [asyncio.ensure_future(ask(engine, number)) for number in range(20)]
        await asyncio.sleep(0)
        await engine.unload("m")
        assert await asyncio.gather(*asked) == [[[number * 10]] for number in range(20)]
