"""Models that call other models: one another in chains, decoupled ones, and calls that are cancelled."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
from bls_models import SHARED, infer, request, serve
from trivet.errors import InternalError, RequestCancelledError
from trivet_backend_python.waits import MOST_WAITING

pytestmark = pytest.mark.anyio

MODELS = Path(__file__).parents[3] / "tests" / "differential" / "models_bls"


class TestChains:
    async def test_many_callers_of_many_instances_in_three_levels(self, repository):
        repository.double()
        group = "instance_group [{ count: 3 }]"
        repository.add(
            "middle", 'return [answer(values(request("double", given(r)).exec()) + 1) for r in requests]', group
        )
        repository.add(
            "top",
            """
            responses = await asyncio.gather(*(request("middle", given(r)).async_exec() for r in requests))
            return [answer(values(response)) for response in responses]
            """,
            group,
            is_async=True,
        )
        async with serve(repository) as engine:
            results = await asyncio.gather(*(infer(engine, "top", i) for i in range(100)))
        assert results == [[2 * i + 1] for i in range(100)]

    async def test_a_model_that_calls_itself_with_one_instance(self, repository):
        repository.add("again", 'return [answer(values(request("again", given(r)).exec())) for r in requests]')
        async with serve(repository) as engine:
            with pytest.raises(InternalError, match=r"'again' calls itself: all of its 1 instances"):
                await infer(engine, "again", 1)

    async def test_a_model_that_calls_itself_with_two(self, repository):
        repository.add(
            "again",
            """
            x = given(requests[0])
            return [answer(values(request("again", x - 1).exec()) + 1 if x[0] > 0 else x)]
            """,
            "instance_group [{ count: 2 }]",
        )
        async with serve(repository) as engine:
            assert await infer(engine, "again", 1) == [1]
            with pytest.raises(InternalError, match=r"'again' calls itself: all of its 2 instances"):
                await infer(engine, "again", 2)

    async def test_a_trace_and_fields_are_handed_on(self, repository):
        shutil.copytree(MODELS / "fields", repository.path / "fields")
        repository.add(
            "asks",
            """
            asked = pb_utils.InferenceRequest(model_name="fields", requested_output_names=["FIELDS"], inputs=[],
                trace=requests[0].trace(), correlation_id="c", timeout=9, request_id="r", parameters={"a": 1.5})
            SHARED["seen"] = asked.exec().output_tensors()[0].as_numpy().tolist()
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            traced = request("asks", 0)
            traced.trace_context = "00-abc"
            await engine.infer(traced)
        seen = [text.decode() for text in SHARED["seen"]]
        assert "trace '00-abc'" in seen
        assert {"correlation 'c'", "timeout 9", "id 'r'", 'parameters {"a":1.5}'} < set(seen)


class TestDecoupled:
    async def test_a_slow_reader_holds_back_the_model_that_answers(self, repository):
        repository.count()
        repository.add(
            "slow",
            """
            responses = request("count", given(requests[0])).exec(decoupled=True)
            first = [values(next(responses))[0] for _ in range(3)]
            SHARED["sent_enough"].wait(30)
            time.sleep(0.05)  # for a model that is not held back
            SHARED["sent_meanwhile"] = len(SHARED["sent"])
            rest = [values(response)[0] for response in responses if response.output_tensors()]
            return [answer(first + rest)]
            """,
        )
        SHARED["enough"] = MOST_WAITING
        async with serve(repository) as engine:
            assert await infer(engine, "slow", 200) == list(range(200))
        # Three were taken.
        assert SHARED["sent_meanwhile"] <= MOST_WAITING + 3

    async def test_streams_of_one_instance_taken_in_any_order(self, repository):
        repository.count()
        repository.add(
            "backwards",
            """
            many = [request("count", [100 + i]).exec(decoupled=True) for i in range(4)]
            return [answer([len(list(responses)) for responses in reversed(many)])]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "backwards", 0) == [104, 103, 102, 101]

    async def test_a_call_to_the_model_that_is_streaming(self, repository):
        repository.count()
        repository.add(
            "nested",
            """
            found = 0
            for response in request("count", [100]).exec(decoupled=True):
                found += len(list(request("count", [1]).exec(decoupled=True)))
            return [answer([found])]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "nested", 0) == [2 * 101]

    async def test_async_iteration(self, repository):
        repository.count()
        repository.add(
            "sums",
            """
            async def total(n):
                found = 0
                async for response in await request("count", [n]).async_exec(decoupled=True):
                    found += sum(values(response)) if response.output_tensors() else 0
                return found
            return [answer(await asyncio.gather(*map(total, (100, 2, 50))))]
            """,
            is_async=True,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "sums", 0) == [4950, 1, 1225]

    @pytest.mark.parametrize("end", ["del responses", "responses.close()", "responses.cancel()", "asked.cancel()"])
    async def test_what_is_not_read_is_cancelled(self, repository, end):
        repository.count()
        repository.add(
            "first",
            f"""
            asked = request("count", [1000000])
            responses = asked.exec(decoupled=True)
            first = values(next(responses))
            {end}
            return [answer(first)]
            """,
        )
        async with serve(repository) as engine:
            assert await infer(engine, "first", 0) == [0]
            await asyncio.to_thread(SHARED["cancelled"].wait, 30)
            assert SHARED["cancelled"].is_set()

    async def test_a_cancelled_stream_ends_with_an_error(self, repository):
        repository.count()
        repository.add(
            "cancels",
            """
            responses = request("count", [1000000]).exec(decoupled=True)
            next(responses)
            responses.cancel()
            *_, last = responses
            SHARED["code"] = last.error().code()
            return [answer([0])]
            """,
        )
        async with serve(repository) as engine:
            await infer(engine, "cancels", 0)
        assert SHARED["code"].name == "CANCELLED"


class TestCancellation:
    @pytest.mark.parametrize("kind", ["exec", "async_exec", "iterator"])
    async def test_a_client_that_goes_away_cancels_what_was_made_for_it(self, repository, kind):
        repository.add(
            "waits",
            """
            SHARED["entered"].set()
            while not requests[0].is_cancelled():
                SHARED["poll"].wait(0.001)
            SHARED["cancelled"].set()
            return [answer([0])]
            """,
        )
        call = {
            "exec": 'request("waits", [1]).exec()',
            "async_exec": 'await request("waits", [1]).async_exec()',
            "iterator": 'next(request("waits", [1]).exec(decoupled=True))',
        }[kind]
        repository.add(
            "parent",
            f"""
            response = {call}
            SHARED["code"] = response.error().code().name
            SHARED["ended"].set()
            return [answer([0])]
            """,
            is_async=kind == "async_exec",
        )
        SHARED.update(entered=threading.Event(), poll=threading.Event(), ended=threading.Event())
        async with serve(repository) as engine:
            asked = request("parent", 1)
            task = asyncio.ensure_future(engine.infer(asked))
            await asyncio.to_thread(SHARED["entered"].wait, 30)
            engine.cancel(asked)
            assert isinstance((await task).error, RequestCancelledError)
            for event in ("cancelled", "ended"):
                await asyncio.to_thread(SHARED[event].wait, 30)
                assert SHARED[event].is_set()
        assert SHARED["code"] == "CANCELLED"

    async def test_cancelling_the_awaitable(self, repository):
        repository.add(
            "waits",
            """
            SHARED["entered"].set()
            while not requests[0].is_cancelled():
                SHARED["poll"].wait(0.001)
            SHARED["cancelled"].set()
            return [answer([0])]
            """,
        )
        repository.add(
            "impatient",
            """
            called = asyncio.ensure_future(request("waits", [1]).async_exec())
            await asyncio.to_thread(SHARED["entered"].wait, 30)
            try:
                await asyncio.wait_for(called, 0.01)
            except TimeoutError:
                return [answer([1])]
            """,
            is_async=True,
        )
        SHARED.update(entered=threading.Event(), poll=threading.Event())
        async with serve(repository) as engine:
            assert await infer(engine, "impatient", 1) == [1]
            await asyncio.to_thread(SHARED["cancelled"].wait, 30)
            assert SHARED["cancelled"].is_set()
