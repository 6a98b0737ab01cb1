"""Random requests to every scheduler at once, while callers give up and models fail, are loaded anew and go away.

Whatever happens, each request gets exactly one final response, in time; who gets values gets those that belong to what
was asked; the event loop answers all the while; statistics add up; and nothing is left when the models are gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from traffic_models import ACTING, SUMMING, Act, write_models
from trivet.engine import Engine
from trivet.errors import TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_protocol_kserve_v2.throttle import Throttle

WORKERS = 24
ANSWER_S = 30.0
"""No request takes this long: whoever waits longer waits for ever."""
STALL_S = 5.0
"""The event loop is never busy this long. Far more than what it should be, as tests share their machine."""

COUNTING = ("count", "steps", "stream", "relay", "iterates")
EVERY = (*ACTING, *SUMMING, "calls", "chain", *COUNTING)
ASKED_BY_CALLERS = ("ordered", "cached", "adaptive", *SUMMING, "calls", "chain", "steps", "relay", "iterates")
"""Models that no other model asks."""
_GOOD = (Act.ANSWER, Act.SLOW, Act.LATER)
_BAD = (Act.ERROR, Act.RAISE, Act.EXIT, Act.FEW, Act.DROP, Act.JUNK)


class Traffic:
    """Random requests, from a seed."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.ends: Counter[tuple[str, bool]] = Counter()
        """Requests that ended, by model and whether with success."""
        self.longest_stall_s = 0.0
        self._number = 0

    async def run(self, seconds: float, *, control: bool) -> None:
        """``control``: models are loaded and unloaded meanwhile."""
        end = time.monotonic() + seconds
        heartbeat = asyncio.create_task(self._heartbeat())
        async with asyncio.TaskGroup() as workers:
            for _ in range(WORKERS):
                workers.create_task(self._work(end))
            if control:
                workers.create_task(self._control(end))
        heartbeat.cancel()

    async def _heartbeat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_stall_s = max(self.longest_stall_s, time.monotonic() - began - 0.01)

    async def _control(self, end: float) -> None:
        """Models come and go under load."""
        while time.monotonic() < end:
            await asyncio.sleep(self.random.uniform(0.05, 0.3))
            name = self.random.choice(EVERY)
            try:
                async with asyncio.timeout(ANSWER_S):
                    if self.random.random() < 0.3:
                        await self.engine.unload(name)
                    await self.engine.load(name)
            except TrivetError as error:
                self.outcomes[f"control: {error.message[:60]}"] += 1

    async def _work(self, end: float) -> None:
        while time.monotonic() < end:
            kind = self.random.choice(("acting", "acting", "chain", "calls", "sequence", *COUNTING))
            if kind == "acting":
                await self._ask_one(self.random.choice(list(ACTING)), 1)
            elif kind == "chain":
                await self._ask_one(kind, 3)
            elif kind == "calls":
                await self._ask_one(kind, 1)
            elif kind == "sequence":
                await self._ask_sequence(self.random.choice(list(SUMMING)))
            else:
                await self._ask_count(kind)

    # --- kinds of requests

    async def _ask_one(self, model: str, steps: int) -> None:
        act = self.random.choice(_GOOD * 4 + _BAD + (Act.KEEP,))
        if steps > 1 or model == "calls":
            act = self.random.choice((Act.ANSWER,) * 6 + (Act.RAISE, Act.ERROR))
        x = self._input(act)
        if model == "cached" and self.random.random() < 0.8:
            x = x[:1, :1] % 1600  # which others have asked before
        responses = await self._ask(model, x, cancel=act is Act.KEEP)
        error = responses[-1].error
        if error is not None:
            self._failed(model, error)
            return
        assert act in _GOOD, f"{model} answered a request to {act.name}"
        wanted = x
        for _ in range(steps):
            wanted = wanted + 16
        assert len(responses) == 1
        [y] = responses[0].outputs
        assert np.array_equal(y.numpy(), wanted), f"{model}: {y.numpy()} for {x}"
        self.outcomes[f"{model}: answered"] += 1

    async def _ask_sequence(self, model: str) -> None:
        self._number += 1
        number = self._number
        total = 0
        steps = self.random.randint(1, 6)
        for step in range(steps):
            act = Act.RAISE if self.random.random() < 0.02 else Act.ANSWER
            x = np.array([[number * 16 + act]], np.int64)
            total += int(x.sum())
            responses = await self._ask(
                model, x, correlation_id=number, sequence_start=step == 0, sequence_end=step == steps - 1
            )
            error = responses[-1].error
            if error is not None:
                self._failed(model, error)
                return
            [y] = responses[0].outputs
            assert y.numpy().tolist() == [[total]], f"{model}: {y.numpy()} after {step}, wanted {total}"
            if self.random.random() < 0.05:
                return  # and never comes back
        self.outcomes[f"{model}: answered"] += 1

    async def _ask_count(self, model: str) -> None:
        number = self.random.choice((0, 1, 2, 5, 40))
        act = self.random.choice((Act.ANSWER, Act.ANSWER, Act.ANSWER, Act.SLOW, Act.ERROR, Act.RAISE, Act.DROP))
        x = self._input(act, width=2)
        x[:, 1] = number
        if model == "steps":
            x = x[:1]
        responses = await self._ask(model, x)
        error = responses[-1].error
        values = [response.outputs[0].numpy() for response in responses if response.outputs]
        steps = {"stream": 2, "relay": 2, "steps": 0}.get(model, 1)
        for i, y in enumerate(values):
            assert np.array_equal(y, x + 16 * (i + steps)), f"{model}: {y} for {x}, {i}"
        if error is not None:
            self._failed(model, error)
            return
        assert len(values) == (1 if model == "iterates" else number), f"{model}: {len(values)} values of {number}"
        self.outcomes[f"{model}: answered"] += 1

    # --- one request

    def _input(self, act: Act, width: int = 0) -> np.ndarray:
        self._number += 100
        x = np.full(
            (self.random.choice((1, 1, 1, 2, 8)), width or self.random.choice((1, 2, 3, 5))), self._number, np.int64
        )
        x *= 16
        x += act
        return x

    async def _ask(
        self, model: str, x: np.ndarray, *, cancel: bool = False, **options: object
    ) -> list[InferenceResponse]:
        """All responses to a request that may be cancelled, or name a priority and a timeout."""
        loop = asyncio.get_running_loop()
        responses: list[InferenceResponse] = []
        final: asyncio.Future[None] = loop.create_future()
        # Who reads slowly takes a response after a while, and has four that wait at most.
        slow = model in COUNTING and self.random.random() < 0.3
        throttle = Throttle(4 if slow else 0, lambda: False)

        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            assert not final.done(), f"{model}: a response after the final one"
            responses.append(response)
            throttle.delivered()
            loop.call_later(self.random.choice((0, 0.001, 0.005)) if slow else 0, throttle.sent)
            if response.final:
                throttle.open()
                self.ends[model, response.error is None] += 1
                final.set_result(None)

        if model == "ranked":
            options["priority"] = self.random.choice((0, 1, 2, 3))
            options["timeout_us"] = self.random.choice((0, 0, 500, 5000))
        request = InferenceRequest(model, {"x": Tensor.from_numpy("x", x)}, on_response=on_response, **options)  # type: ignore[arg-type]
        if model in COUNTING:
            request.throttle = throttle
        try:
            self.engine.submit(request)
        except TrivetError as error:
            self.ends[model, False] += 1
            await asyncio.sleep(0)
            return [InferenceResponse(error=error)]
        if cancel or self.random.random() < 0.1:
            loop.call_later(self.random.choice((0, 0.001, 0.01)), self.engine.cancel, request)
        try:
            async with asyncio.timeout(ANSWER_S):
                await final
        except TimeoutError:
            raise AssertionError(f"{model} never answered {x[0, 0] // 16} ({Act(x[0, 0] % 16).name})") from None
        return responses

    def _failed(self, model: str, error: TrivetError) -> None:
        assert error.message, f"{model} failed without saying why"
        self.outcomes[f"{model}: {error.code.name}"] += 1


@contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no request stays behind."""
    threads = set(threading.enumerate())
    # Kept, so that none of those to come has the identity of one of these: other tests may hold some.
    others = _requests()
    known = set(map(id, others))
    # Log records that a test keeps, keep tracebacks, and so requests.
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
    deadline = time.monotonic() + 10
    while left := {thread for thread in threading.enumerate() if thread not in threads and not thread.daemon}:
        assert time.monotonic() < deadline, f"threads are left: {left}"
        time.sleep(0.05)
    gc.collect()
    left = [request for request in _requests() if id(request) not in known]
    assert not left, f"{len(left)} requests are left"


def _requests() -> list[InferenceRequest]:
    """Every request in memory. Not by isinstance(), which makes a lazy module of somebody else's warn."""
    return [found for found in gc.get_objects() if type(found) is InferenceRequest]


def counts(engine: Engine, model: str) -> tuple[int, int]:
    """How many requests succeeded and failed, as the statistics have it."""
    statistics = engine.model(model).statistics
    assert statistics.fail.count == sum(statistics.failures.values())
    return statistics.success.count, statistics.fail.count


async def soak(repository: Path, seed: int, seconds: float) -> None:
    write_models(repository)
    async with running_engine(
        repository,
        model_control_mode="explicit",
        load_models=["*"],
        rate_limit="execution_count",
        cache_config={"local": {"size": "1000000"}},
    ) as engine:
        traffic = Traffic(engine, seed)
        await traffic.run(seconds * 0.7, control=True)
        for name in EVERY:
            await engine.load(name)
        before = {name: counts(engine, name) for name in ASKED_BY_CALLERS}
        traffic.ends.clear()
        await traffic.run(seconds * 0.3, control=False)
        print(*sorted(traffic.outcomes.items()), f"longest stall: {traffic.longest_stall_s:.3f} s", sep="\n")
        for name, (succeeded, failed) in before.items():
            ended = succeeded + traffic.ends[name, True], failed + traffic.ends[name, False]
            assert counts(engine, name) == ended, name
        assert traffic.longest_stall_s < STALL_S
        assert all(traffic.outcomes[f"{model}: answered"] for model in EVERY), traffic.outcomes
        for model in engine.ready_models():
            assert not model.in_flight, model.name
            async with asyncio.timeout(ANSWER_S):
                while model.scheduler.queued:  # noqa: ASYNC110 - nothing tells when it is empty
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(ANSWER_S):
            for model in engine.ready_models():
                await engine.unload(model.name)


def test_random_traffic_for_a_moment(tmp_path: Path) -> None:
    with nothing_left():
        asyncio.run(soak(tmp_path, seed=1, seconds=4))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_random_traffic_for_a_minute(tmp_path: Path, seed: int) -> None:
    with nothing_left():
        asyncio.run(soak(tmp_path, seed, seconds=60))
