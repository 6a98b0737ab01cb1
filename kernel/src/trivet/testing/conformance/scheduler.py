"""The kit for schedulers."""

from __future__ import annotations

import random
import tempfile
from abc import ABC
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import anyio
import numpy as np
import pytest

from trivet.config import normalize, parse_text_config
from trivet.engine import Engine
from trivet.errors import TrivetError
from trivet.hookspecs import Offer, SchedulerPlugin
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.scheduling import Scheduler, SchedulerContext
from trivet.testing.conformance import leaks
from trivet.testing.conformance.models import CONFIG, KitModels
from trivet.testing.conformance.requests import Answers, outputs_of, request
from trivet.testing.conformance.rules import PluginRules, offered, require
from trivet.testing.running import running_engine
from trivet.testing.simulation import Simulation

_ENQUEUE = "trivet.scheduling.Scheduler.enqueue"


class SchedulerConformance(PluginRules, ABC):
    """Drives the scheduler on a simulated clock with random traffic, then in an engine with a real model.

    The model is ``m``: ``y = 2 x``, of FP32 with any length, in batches of up to four.
    """

    scheduler: ClassVar[str]
    """The name of the scheduler, which is the configuration field that chooses it."""
    config: ClassVar[str]
    """Text that is added to the model's configuration, and has that field: ``dynamic_batching { }``."""
    simulated: ClassVar[bool] = True
    """False for a scheduler that needs the engine's other models, and so cannot run on the simulated clock."""
    seeds: ClassVar[int] = 50
    """How many runs of random traffic there are."""

    def request_fields(self, number: int) -> dict[str, Any]:
        """Further arguments of :class:`~trivet.inference.InferenceRequest` for the request of that number.

        Those that the scheduler needs, such as the sequence that it belongs to. By default none.
        """
        return {}

    def model_config(self) -> str:
        """The whole configuration of ``m``; by default the kit's model with :attr:`config`."""
        return CONFIG + self.config

    # --- on a simulated clock

    def test_every_request_is_answered_once_whatever_happens(self) -> None:
        """Random arrivals, cancellations and execution times; at the end nothing waits, and no timer is left."""
        self._need_simulation()
        for seed in range(self.seeds):
            self._traffic(seed)

    def test_what_is_cancelled_while_it_waits_is_not_executed(self) -> None:
        """Nobody waits for it any more."""
        self._need_simulation()
        simulation = self._simulate()
        requests = [self._request(number) for number in range(8)]
        for one in requests:
            require(simulation.submit(one) is None, "eight requests are accepted", _ENQUEUE)
        executing = {id(one) for instance in simulation.instances if instance.executing
                     for one in instance.executing.requests}  # fmt: skip
        cancelled = [one for one in requests if id(one) not in executing][::2]
        for one in cancelled:
            simulation.cancel(one)
        self._finish(simulation)
        executed = {id(one) for _, batch in simulation.executions for one in batch}
        found = f"{sum(id(one) in executed for one in cancelled)} of {len(cancelled)} were"
        require(
            not any(id(one) in executed for one in cancelled), "a cancelled request is not executed", _ENQUEUE, found
        )

    def _traffic(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret
        simulation = self._simulate(compute_ns=lambda _: chance.randrange(1, 5_000_000), instances=chance.randint(1, 3))
        accepted: list[InferenceRequest] = []
        for number in range(chance.randint(1, 40)):
            one = self._request(number)
            error = simulation.submit(one)
            if error is None:
                accepted.append(one)
            else:
                require(isinstance(error, TrivetError), "a refusal is an error for callers", _ENQUEUE, repr(error))
            if accepted and chance.random() < 0.2:
                simulation.cancel(chance.choice(accepted))
            simulation.advance(chance.randrange(0, 3_000_000))
            require(simulation.scheduler.queued >= 0, "queued counts requests", "trivet.scheduling.Scheduler.queued")
        self._finish(simulation)
        where = f"random traffic {seed}"
        for number, one in enumerate(accepted):
            finals = sum(response.final for response in simulation.answers.get(one, ()))
            found = f"request {number} had {finals}; {where}"
            require(finals == 1, "every accepted request gets exactly one final response", _ENQUEUE, found)
        times = Counter(id(one) for _, batch in simulation.executions for one in batch)
        found = f"one was {max(times.values(), default=0)} times; {where}"
        require(max(times.values(), default=0) <= 1, "a request is executed once", "trivet.scheduling.Batch", found)
        largest = max((len(batch) for _, batch in simulation.executions), default=0)
        found = f"a batch of {largest} with max_batch_size 4; {where}"
        require(largest <= 4, "a batch has at most max_batch_size rows", "trivet.scheduling.Batch", found)
        queued = simulation.scheduler.queued
        require(
            queued == 0, "queued is 0 when all is answered", "trivet.scheduling.Scheduler.queued", f"{queued}; {where}"
        )

    def _finish(self, simulation: Simulation) -> None:
        """No new request comes: what waits is executed."""
        simulation.scheduler.drain()
        for _ in range(10_000):
            simulation.run()
            busy = [instance for instance in simulation.instances if instance.executing]
            if not busy:
                break
            simulation.finish(busy[0])
        answered = len(simulation.in_flight) == 0
        found = f"{len(simulation.in_flight)} wait for ever"
        require(answered, "after drain() nothing waits for more to come", "trivet.scheduling.Scheduler.drain", found)
        simulation.scheduler.close()

    def _simulate(self, **options: Any) -> Simulation:
        registry, offer = self._offered()
        config = parse_text_config(f'name: "m" {self.model_config()}', "conformance")
        normalize(config)

        def make(context: SchedulerContext) -> Scheduler:
            return registry.create(offer, Scheduler, context)

        return Simulation(make, config, **options)

    def _request(self, number: int) -> InferenceRequest:
        return request("m", {"x": np.full((1, 3), number, np.float32)}, id=str(number), **self.request_fields(number))

    def _need_simulation(self) -> None:
        if not self.simulated:
            pytest.skip("this scheduler needs the engine's other models")

    # --- in an engine

    def test_requests_get_their_own_answers_in_an_engine(self) -> None:
        """Many at once, some of them cancelled, and an unload while they are in flight."""

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [self._request(number) for number in range(48)]
            answers.submit(*requests)
            cancelled = requests[::5]
            for one in cancelled:
                engine.cancel(one)
            await engine.unload("m")
            await answers.all()
            for number, one in enumerate(requests):
                if one in cancelled:
                    continue
                found = outputs_of(answers.responses[one])["y"].tolist()
                expected = [[2.0 * number] * 3]
                require(found == expected, "a request gets its own answer", _ENQUEUE, f"{found}, expected {expected}")

        self._run(check)

    def test_nothing_is_left_of_a_model_that_was_unloaded(self) -> None:
        """Schedulers, with their timers and queues."""

        async def check(engine: Engine) -> None:
            kind = type(engine.model("m").scheduler)
            for number in range(10):
                answers = Answers(engine)
                answers.submit(self._request(number))
                await answers.all()
                del answers
                await engine.unload("m")
                await engine.load("m")
            await engine.unload("m")
            for _ in range(50):
                if not leaks.alive(kind):
                    break
                await anyio.sleep(0.1)
            require(not leaks.alive(kind), "a closed scheduler is garbage", "trivet.scheduling.Scheduler.close")

        with leaks.apart():
            self._run(check)

    def _run(self, check: Any) -> None:
        async def run(repository: Path) -> None:
            models = KitModels()
            models.write(repository, m=self.model_config())
            async with running_engine(
                repository, registry=models.registry(), model_control_mode="explicit", load_models=["m"]
            ) as engine:
                await check(engine)

        with tempfile.TemporaryDirectory() as folder:
            anyio.run(run, Path(folder))

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        registry, offer = offered(self.scheduler, lambda registry: registry.schedulers)
        assert isinstance(offer, SchedulerPlugin)
        return registry, offer
