"""The kit for backends."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from trivet.backend import BackendInstance, BackendModel
from trivet.engine import Engine, EngineOptions
from trivet.errors import TrivetError
from trivet.hookspecs import BackendPlugin, Offer
from trivet.plugins import PluginRegistry
from trivet.testing.conformance import leaks
from trivet.testing.conformance.gathering import GatheringScheduler, with_gathering
from trivet.testing.conformance.requests import (
    TIMEOUT_S,
    Answers,
    Arrays,
    compare,
    infer,
    is_for_callers,
    outputs_of,
    request,
)
from trivet.testing.conformance.rules import PluginRules, offered, require
from trivet.testing.conformance.watching import GRACE_S, complaints, in_time, run_apart, still_running

_LOAD = "trivet.backend.Backend.load"
_EXECUTE = "trivet.backend.ArrayInstance.execute"
_CLOSE = "trivet.backend.BackendModel.close"
_Check = Callable[[Engine], Awaitable[None]]

_CYCLES = 40
_SETTLED = 10
"""Load cycles after which caches and pools have their size."""
_PATIENCE = 20


class BackendConformance(PluginRules, ABC):
    """Loads a model of the author's with the backend, and tries everything that the contract speaks of.

    Say what the backend is called, write one model, and tell what it answers. The rest is optional. Each test runs an
    engine over a repository of its own, with the model in it as ``m``.
    """

    backend: ClassVar[str]
    """The name under which the plugin offers the backend."""
    config: ClassVar[str] = ""
    """The model's ``config.pbtxt``; empty to have the backend complete it. Needs neither ``name`` nor ``backend``."""
    batching: ClassVar[bool] = True
    """Whether the model has a batch dimension."""
    instances: ClassVar[int] = 2
    """How many instances run beside each other; 1 for a model of which there can be only one."""
    tolerance: ClassVar[float] = 1e-5
    """How far floats may be from the expected ones, relative and absolute."""
    growth_bytes: ClassVar[int] = 8 << 20
    """How much resident memory may grow over 30 loads and unloads, in bytes."""

    @abstractmethod
    def write_model(self, folder: Path) -> None:
        """Write the model's files into the version's folder ``folder``, which exists."""

    @abstractmethod
    def inputs(self, rows: int, seed: int) -> Arrays:
        """Inputs by name for a request of ``rows`` rows (first dimension; 1 without batching); other ones per seed."""

    @abstractmethod
    def expected(self, inputs: Arrays) -> Arrays:
        """All outputs of the model for these inputs, by name, computed without the backend."""

    def failing_inputs(self) -> Arrays | None:
        """Inputs that the engine lets pass and that make the model raise; ``None`` where there are none."""
        return None

    def corrupt_model(self, folder: Path) -> None:
        """Write what must not load: here the good model's files, with other content."""
        self.write_model(folder)
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            file.write_bytes(b"this is no model\n\x00\xff")

    # --- loading

    def test_a_model_loads_and_answers(self) -> None:
        """Names, datatypes and shapes are those of the configuration; the values are right."""

        async def check(engine: Engine) -> None:
            spec = engine.model("m").spec
            inputs = self.inputs(1, 0)
            expected = self.expected(inputs)
            require(
                spec.outputs.keys() == expected.keys(),
                "a complete configuration names every output",
                "trivet.backend.Backend.auto_complete",
                f"outputs {sorted(spec.outputs)}, expected {sorted(expected)}",
            )
            require(
                (spec.max_batch_size > 0) == self.batching,
                "max_batch_size tells whether the model has a batch dimension",
                "trivet.backend.Backend.auto_complete",
                f"max_batch_size {spec.max_batch_size}",
            )
            found = await infer(engine, request("m", inputs))
            compare(found, expected, self.tolerance, _EXECUTE, "a request of one row gets")

        self._run(check)

    def test_an_output_comes_alone_where_it_is_asked_for_alone(self) -> None:
        """``outputs`` names what anybody wants; what nobody asked for is not sent."""

        async def check(engine: Engine) -> None:
            inputs = self.inputs(1, 1)
            expected = self.expected(inputs)
            for name, array in expected.items():
                found = await infer(engine, request("m", inputs, [name]))
                compare(found, {name: array}, self.tolerance, _EXECUTE, f"a request for output '{name}' gets")

        self._run(check)

    @pytest.mark.parametrize("files", ["missing", "corrupt"])
    def test_a_model_that_cannot_load_says_why_and_hurts_nobody(self, files: str) -> None:
        """Its reason is for the operator; the others serve on, and it loads once it is mended."""

        async def check(engine: Engine) -> None:
            broken = self._repository / "broken" / "1"
            broken.mkdir(parents=True)
            if not any((self._repository / "m" / "1").iterdir()):
                pytest.skip("the model has no files")
            (broken.parent / "config.pbtxt").write_text(self._config_text(), encoding="utf-8")
            if files == "corrupt":
                self.corrupt_model(broken)
            try:
                await engine.load("broken")
            except TrivetError as error:
                reason = error.message
            else:
                reason = ""
                require(False, f"a model whose files are {files} does not load", _LOAD)
            require(
                "broken" in reason and "Traceback" not in reason,
                "the reason names the model or its file, and is for a reader",
                _LOAD,
                reason,
            )
            await self._answers(engine, "a model beside one that failed to load")
            for path in [path for path in broken.rglob("*") if path.is_file()]:
                path.unlink()
            self.write_model(broken)
            await engine.load("broken")
            found = await infer(engine, request("broken", self.inputs(1, 2)))
            compare(found, self.expected(self.inputs(1, 2)), self.tolerance, _LOAD, "a model that was mended gets")

        self._run(check)

    # --- executing

    def test_inputs_stay_as_they_are(self) -> None:
        """They may be somebody else's memory: of a client that shares it, of another model's request."""

        async def check(engine: Engine) -> None:
            one = request("m", self.inputs(1, 6))
            await infer(engine, one)
            for name, array in self.inputs(1, 6).items():
                found = one.inputs[name].numpy()
                require(
                    np.array_equal(found, array, equal_nan=np.issubdtype(array.dtype, np.inexact)),
                    "a model leaves its inputs as they are, and takes Tensor.writable() of one to write into it",
                    _EXECUTE,
                    f"{name} is {found!r}, was {array!r}",
                )

        self._run(check)

    def test_rows_do_not_depend_on_their_batch(self) -> None:
        """One request of several rows, and several requests in one batch, answer as each row alone."""
        if not self.batching:
            pytest.skip("the model does not batch")

        async def check(engine: Engine) -> None:
            most = min(engine.model("m").spec.max_batch_size, 4)
            inputs = self.inputs(most, 3)
            found = await infer(engine, request("m", inputs))
            compare(found, self.expected(inputs), self.tolerance, _EXECUTE, f"a request of {most} rows gets")

        self._run(check)

        async def check_batch(engine: Engine) -> None:
            most = min(engine.model("m").spec.max_batch_size, GatheringScheduler.size)
            GatheringScheduler.size = most
            answers = Answers(engine)
            requests = [request("m", self.inputs(1, seed)) for seed in range(most)]
            answers.submit(*requests)
            await answers.all()
            for seed, one in enumerate(requests):
                expected = self.expected(self.inputs(1, seed))
                what = f"request {seed + 1} of {most} in a batch gets"
                compare(outputs_of(answers.responses[one]), expected, self.tolerance, _EXECUTE, what)

        GatheringScheduler.size = 4
        self._run(check_batch, "dynamic_batching { }", registry=with_gathering())

    def test_an_execution_that_fails_fails_alone(self) -> None:
        """Its requests get an error for callers, and the model serves on."""
        bad = self.failing_inputs()
        if bad is None:
            pytest.skip("failing_inputs() gives none")

        async def check(engine: Engine) -> None:
            for _ in range(3):
                answers = Answers(engine)
                failing, good = request("m", bad), request("m", self.inputs(1, 4))
                answers.submit(failing, good)
                await answers.all()
                error = answers.responses[failing][-1].error
                require(is_for_callers(error), "an execution that fails gives an error", _EXECUTE, repr(error))
                expected = self.expected(self.inputs(1, 4))
                what = "a request beside one that fails gets"
                compare(outputs_of(answers.responses[good]), expected, self.tolerance, _EXECUTE, what)

        self._run(check)

    def test_many_requests_at_once_get_their_own_answers(self) -> None:
        """Several instances, and more requests than instances."""

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [request("m", self.inputs(1, seed)) for seed in range(64)]
            answers.submit(*requests)
            await answers.all()
            for seed, one in enumerate(requests):
                found = outputs_of(answers.responses[one])
                expected = self.expected(self.inputs(1, seed))
                compare(found, expected, self.tolerance, _EXECUTE, f"request {seed + 1} of 64 at once gets")

        self._run(check)

    def test_a_cancelled_request_is_answered_once_and_costs_no_other(self) -> None:
        """Wherever it is when its caller gives up."""

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [request("m", self.inputs(1, seed)) for seed in range(32)]
            answers.submit(*requests)
            for one in requests[::2]:
                engine.cancel(one)
                await asyncio.sleep(0)
            await answers.all()
            for seed, one in enumerate(requests):
                if seed % 2:
                    found = outputs_of(answers.responses[one])
                    expected = self.expected(self.inputs(1, seed))
                    compare(found, expected, self.tolerance, _EXECUTE, "a request beside cancelled ones gets")

        self._run(check)

    # --- unloading

    def test_unloading_answers_what_is_in_flight(self) -> None:
        """Every request that was accepted is answered; then the model is gone, and comes back."""

        async def check(engine: Engine) -> None:
            answers = Answers(engine)
            requests = [request("m", self.inputs(1, seed)) for seed in range(16)]
            answers.submit(*requests)
            await engine.unload("m")
            await answers.all()
            for seed, one in enumerate(requests):
                expected = self.expected(self.inputs(1, seed))
                what = "a request that was in flight when its model was unloaded gets"
                compare(outputs_of(answers.responses[one]), expected, self.tolerance, _CLOSE, what)
            require(not engine.model_ready("m"), "an unloaded model is not ready", _CLOSE)
            await engine.load("m")
            await self._answers(engine, "a model that was loaded again")

        self._run(check)

    def test_nothing_is_left_of_a_model_that_was_unloaded(self) -> None:
        """Objects, threads, open files and memory, over many loads."""

        async def check(engine: Engine) -> None:
            await engine.unload("m")
            await self._closed()
            await self._cycles(engine, _SETTLED)
            before = leaks.held()
            await self._cycles(engine, _CYCLES - _SETTLED)
            cycles = _CYCLES - _SETTLED
            after = leaks.held()
            objects = leaks.alive(BackendModel, BackendInstance)
            require(not objects, "a closed model and its instances are garbage", _CLOSE, f"alive: {objects[:3]}")
            threads = after.threads - before.threads
            require(
                not threads, "a model's threads end with it", _CLOSE, f"after {cycles} loads: {sorted(threads)[:5]}"
            )
            files = after.files - before.files
            require(
                files < cycles // 4, "a model's files are closed with it", _CLOSE, f"{files} more in {cycles} loads"
            )
            grown = after.resident - before.resident
            found = f"{grown >> 10} KiB more after {cycles} loads and unloads"
            require(grown <= self.growth_bytes, "a model's memory is freed with it", _CLOSE, found)

        with leaks.apart():
            self._run(check)
        require(
            leaks.eventually(lambda: not any(thread.name.startswith("m_0_") for thread in threading.enumerate())),
            "instances end with the engine",
            _CLOSE,
        )

    # --- how it is done

    async def _cycles(self, engine: Engine, count: int) -> None:
        for _ in range(count):
            await engine.load("m")
            await self._answers(engine, "a model that was loaded again")
            await engine.unload("m")
        await self._closed()

    async def _closed(self) -> None:
        """Requests in flight are answered by now, and closing goes on behind."""
        for _ in range(_PATIENCE):
            if not leaks.alive(BackendModel, BackendInstance):
                break
            await asyncio.sleep(0.1)
        async with in_time(TIMEOUT_S, "a model that was unloaded closes", _CLOSE):
            while still_running():  # noqa: ASYNC110 - no event announces the end of a backend's code
                await asyncio.sleep(0.1)
        self._complaints.require_none()  # an error holds on to what raised it, which then seems to leak

    async def _answers(self, engine: Engine, what: str) -> None:
        inputs = self.inputs(1, 5)
        found = await infer(engine, request("m", inputs))
        compare(found, self.expected(inputs), self.tolerance, _EXECUTE, f"{what} gets")

    def _run(self, check: _Check, more: str = "", *, registry: PluginRegistry | None = None) -> None:
        async def run() -> None:
            async with self._engine(more, registry) as engine:
                await check(engine)

        self._offered()
        with tempfile.TemporaryDirectory() as folder:
            self._repository = Path(folder)
            run_apart(run)

    @asynccontextmanager
    async def _engine(self, more: str, registry: PluginRegistry | None) -> AsyncIterator[Engine]:
        version = self._repository / "m" / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(self._config_text(more), encoding="utf-8")
        self.write_model(version)
        options = EngineOptions([str(self._repository)], model_control_mode="explicit", load_models=["m"])
        engine = Engine(registry or PluginRegistry.discover(), options)
        with complaints() as self._complaints:
            try:
                async with in_time(TIMEOUT_S, "a model loads", _LOAD):
                    failures = await engine.start()
                require(not failures, "a good model loads", _LOAD, "; ".join(failure.reason for failure in failures))
                yield engine
            except BaseException:
                with suppress(TimeoutError):  # it may hang for the very reason that the test failed for
                    await asyncio.wait_for(engine.stop(), GRACE_S)
                raise
            async with in_time(TIMEOUT_S, "a model ends what it executes, and closes", _CLOSE):
                await engine.stop()
            self._complaints.require_none()

    def _config_text(self, more: str = "") -> str:
        text = self.config
        if "backend:" not in text and "platform:" not in text:
            text += f'\nbackend: "{self.backend}"'
        if "instance_group" not in text:
            text += f"\ninstance_group {{ kind: KIND_CPU count: {self.instances} }}"
        return f"{text}\n{more}\n"

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        registry, offer = offered(self.backend, lambda registry: registry.backends)
        assert isinstance(offer, BackendPlugin)
        return registry, offer
