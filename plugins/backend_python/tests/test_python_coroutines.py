"""Models whose ``execute`` is a coroutine: requests that wait together, and how such a model fails and ends."""

from __future__ import annotations

import asyncio
import threading

import pytest
from bls_models import DECOUPLED, SHARED, request, serve

pytestmark = pytest.mark.anyio


class TestConcurrentCoroutines:
    BODY = """
        for r in requests:
            sender = r.get_response_sender()
            SHARED.setdefault("loops", []).append(asyncio.get_running_loop())
            everyone = SHARED.setdefault("everyone", asyncio.Barrier(5))
            await everyone.wait()
            sender.send(answer(values(await request("double", given(r)).async_exec())))
            sender.send(flags=FINAL)
    """

    async def ask(self, engine, *values):
        received: list[object] = []
        done = asyncio.Event()

        def on_response(_, response):
            received.append(response)
            if response.final:
                done.set()

        asked = request("async", *values, on_response=on_response)
        engine.submit(asked)
        await asyncio.wait_for(done.wait(), 30)
        return received

    async def test_requests_of_one_instance_wait_together(self, repository):
        repository.double()
        repository.add("async", self.BODY, DECOUPLED, is_async=True)
        async with serve(repository) as engine:
            results = await asyncio.gather(*(self.ask(engine, i) for i in range(5)))
        assert [result[0].outputs[0].numpy().tolist() for result in results] == [[2 * i] for i in range(5)]
        assert len(set(SHARED["loops"])) == 1

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("raise ValueError('mine')", "ValueError: mine"),
            ("return [answer([0])]", "decoupled mode and the execute function must return None"),
            ("return 5", "Expected a list in the execute return"),
            ("await asyncio.sleep(0)", "neither in what execute returned nor to the end"),
        ],
    )
    async def test_a_failure_is_answered(self, repository, body, message):
        repository.add("async", body, DECOUPLED, is_async=True)
        async with serve(repository) as engine:
            (response,) = await self.ask(engine, 1)
            assert message in str(response.error)

    async def test_a_coroutine_may_wait_for_a_slow_reader(self, repository):
        repository.add(
            "async",
            """
            sender = requests[0].get_response_sender()
            for i in range(100):
                room = sender.send(answer([i]))
                SHARED["sent"].append(i)
                if given(requests[0])[0]:
                    await room
            sender.send(flags=FINAL)
            """,
            DECOUPLED,
            is_async=True,
        )
        # Reads three responses, then waits until it is told to read on.
        read, read_on = threading.Semaphore(3), threading.Event()

        def throttle():
            if not read.acquire(blocking=False):
                SHARED["sent_enough"].set()
                read_on.wait(30)

        async with serve(repository) as engine:
            done = asyncio.Event()
            asked = request("async", 1, on_response=lambda _, response: response.final and done.set())
            asked.throttle = throttle
            engine.submit(asked)
            assert await asyncio.to_thread(SHARED["sent_enough"].wait, 30)
            # Another request on the same event loop does not wait for it.
            assert len(await self.ask(engine, 0)) == 101
            assert SHARED["sent"][:4] == [0, 1, 2, 3]
            assert SHARED["sent"][4:] == list(range(100))
            read_on.set()
            await asyncio.wait_for(done.wait(), 30)

    async def test_what_runs_on_after_the_answer_ends_with_the_model(self, repository):
        repository.add(
            "async",
            """
            requests[0].get_response_sender().send(answer([1]), flags=FINAL)
            try:
                await asyncio.sleep(1000)
            finally:
                SHARED["cancelled"].set()
            """,
            DECOUPLED,
            is_async=True,
            extra="def finalize(self): SHARED['before_finalize'] = SHARED['cancelled'].is_set()",
        )
        async with serve(repository) as engine:
            await self.ask(engine, 1)
        assert SHARED["before_finalize"] is True
