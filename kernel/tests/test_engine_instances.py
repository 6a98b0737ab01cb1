"""Instances of an engine: rate limited over all models, passive, and bound to cores."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import ArithmeticPlugin, Arrays, Journal, Model
from test_scheduling import Pairs, PairsPlugin
from trivet.backend import InstanceContext
from trivet.checking import check_repository
from trivet.datatypes import DataType
from trivet.engine import Engine, EngineOptions
from trivet.errors import Code, InvalidArgumentError, TrivetError
from trivet.host_policy import HostPolicy
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.memory import RegionSlice
from trivet.plugins import PluginRegistry
from trivet.resources import ResourceSize
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

ONE_LICENCE = 'rate_limiter { resources { name: "licence" global: true count: 1 } }'


class Repository:
    """Models that differ in their instances."""

    def __init__(self, path: Path, plugin: ArithmeticPlugin) -> None:
        self.path = path
        self._plugin = plugin

    def add(self, name: str, group: str, config: str = "") -> None:
        (self.path / name / "1").mkdir(parents=True, exist_ok=True)
        (self.path / name / "1" / "model.arith").write_text("2")
        (self.path / name / "config.pbtxt").write_text(f"{config} instance_group {{ kind: KIND_CPU {group} }}")

    def serve(self, rate_limit: str = "execution_count", **options: Any) -> AbstractAsyncContextManager[Engine]:
        registry = PluginRegistry.of(arithmetic=self._plugin, pairs=PairsPlugin())
        options.setdefault("model_control_mode", "explicit")
        return running_engine(self.path, registry=registry, rate_limit=rate_limit, load_models=["*"], **options)


@pytest.fixture
def repository(tmp_path: Path, plugin: ArithmeticPlugin) -> Repository:
    return Repository(tmp_path, plugin)


def request(model: str, value: float = 1.0) -> InferenceRequest:
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", np.array([value], np.float32))})


async def ask(engine: Engine, model: str, value: float = 1.0) -> list[float]:
    response = await engine.infer(request(model, value))
    if response.error is not None:
        raise response.error
    answer: list[float] = response.outputs[0].numpy().tolist()
    return answer


def asked(engine: Engine, *models: str) -> list[asyncio.Task[list[float]]]:
    return [asyncio.ensure_future(ask(engine, model)) for model in models]


class Concurrency:
    """How many executions there are at the same time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Concurrency]:
    concurrency = Concurrency()
    execute = Arrays.execute

    def counting(self: Arrays, *args: Any) -> Any:
        concurrency.now += 1
        concurrency.most = max(concurrency.most, concurrency.now)
        try:
            return execute(self, *args)
        finally:
            concurrency.now -= 1

    monkeypatch.setattr(Arrays, "execute", counting)
    yield concurrency


async def test_models_that_share_a_resource_of_one_never_run_at_once(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add("a", f"count: 2 {ONE_LICENCE}")
    repository.add("b", f"count: 2 {ONE_LICENCE}")
    async with repository.serve() as engine:
        with counted(monkeypatch) as concurrency:
            answers = await asyncio.gather(*asked(engine, *["a", "b"] * 50))
    assert answers == [[2.0]] * 100
    assert concurrency.most == 1


async def test_without_the_limiter_every_instance_executes_when_it_is_free(
    repository: Repository, journal: Journal
) -> None:
    repository.add("a", ONE_LICENCE)
    repository.add("b", ONE_LICENCE)
    async with repository.serve("off") as engine:
        with journal.gate:
            answers = asked(engine, "a", "b")
            for _ in answers:
                await to_thread.run_sync(journal.gate.wait_until_entered)
        assert await asyncio.gather(*answers) == [[2.0], [2.0]]


async def test_resources_that_nobody_is_limited_by_are_mentioned(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    repository.add("a", "")
    async with repository.serve("off", rate_limit_resources=[ResourceSize("R", 1)]) as engine:
        assert await ask(engine, "a") == [2.0]
    assert "--rate-limit-resource has no effect without --rate-limit=execution_count" in caplog.messages


async def test_what_waits_for_resources_is_queued(repository: Repository, journal: Journal) -> None:
    repository.add("a", f"count: 2 {ONE_LICENCE}")
    async with repository.serve() as engine:
        with journal.gate:
            answers = asked(engine, "a", "a", "a")
            await to_thread.run_sync(journal.gate.wait_until_entered)
            assert engine.model("a").scheduler.queued == 2
        assert await asyncio.gather(*answers) == [[2.0]] * 3
        assert engine.model("a").scheduler.queued == 0


async def test_an_execution_that_fails_gives_its_resources_back(repository: Repository) -> None:
    repository.add("a", ONE_LICENCE)
    async with repository.serve() as engine:
        with pytest.raises(TrivetError, match="negative input"):
            await ask(engine, "a", -1.0)
        assert await ask(engine, "a") == [2.0]


async def test_a_cancelled_request_gives_its_resources_back(repository: Repository, journal: Journal) -> None:
    repository.add("a", ONE_LICENCE)
    repository.add("b", ONE_LICENCE)
    async with repository.serve() as engine:
        codes: list[Code] = []

        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            assert response.error is not None
            codes.append(response.error.code)

        executing, waiting = request("a"), request("a")
        with journal.gate:
            for one in (executing, waiting):
                one.on_response = on_response
                engine.submit(one)
            await to_thread.run_sync(journal.gate.wait_until_entered)
            for one in (executing, waiting):
                engine.cancel(one)
            assert codes == [Code.CANCELLED] * 2
        assert await ask(engine, "b") == [2.0]
        assert engine.statistics("a")[0].execution_count == 1


async def test_a_model_that_is_unloaded_gives_its_resources_back(repository: Repository, journal: Journal) -> None:
    repository.add("a", 'rate_limiter { resources { name: "memory" count: 3 } }')
    repository.add("b", 'count: 3 rate_limiter { resources { name: "memory" count: 1 } }')
    async with repository.serve() as engine:
        await ask(engine, "a")
        with journal.gate:
            first = asked(engine, "a", "b")
            await to_thread.run_sync(journal.gate.wait_until_entered)
            await engine.unload("a")
            assert engine.model("b").scheduler.queued == 1  # held until the execution has ended
        assert await asyncio.gather(*first) == [[2.0], [2.0]]
        assert await asyncio.gather(*asked(engine, "b", "b", "b")) == [[2.0]] * 3


async def test_a_backend_gives_memory_back_when_all_that_the_model_held_is_freed(
    repository: Repository, journal: Journal
) -> None:
    """What a framework keeps of freed memory on a GPU can be given back only then."""
    repository.add("a", "count: 2", 'parameters { key: "cycle" value { string_value: "as many frameworks have" } }')
    async with repository.serve() as engine:
        assert await ask(engine, "a") == [2.0]
        await engine.unload("a")
    assert journal.alive_at_trim == [0]


async def test_a_model_that_could_never_execute_does_not_load_and_leaves_nothing(
    repository: Repository, plugin: ArithmeticPlugin
) -> None:
    repository.add("a", 'rate_limiter { resources { name: "R" count: 1 } }')
    async with repository.serve(rate_limit_resources=[ResourceSize("R", 1)]) as engine:
        repository.add("b", 'rate_limiter { resources { name: "R" count: 2 } }')
        repository.add("c", 'rate_limiter { resources { name: "R" count: 1 global: true } }')
        with pytest.raises(InvalidArgumentError, match='Resource count for "R" is limited to 1 which will prevent'):
            await engine.load("b")
        with pytest.raises(InvalidArgumentError, match='Resource "R" is present as both global and device-specific'):
            await engine.load("c")
        assert await ask(engine, "a") == [2.0]
    assert plugin.journal.closed == ["a/1"]


def test_a_check_finds_a_model_that_could_never_execute(repository: Repository, plugin: ArithmeticPlugin) -> None:
    repository.add("a", 'count: 3 rate_limiter { resources { name: "R" count: 1 } }')
    repository.add("b", 'rate_limiter { resources { name: "R" count: 2 } }')
    options = EngineOptions(
        model_repositories=[str(repository.path)],
        rate_limit="execution_count",
        rate_limit_resources=[ResourceSize("R", 1)],
    )
    a, b = check_repository(PluginRegistry.of(arithmetic=plugin), options)
    assert (a.ok, a.instances) == (True, "3 CPU")
    assert (b.ok, b.instances) == (False, "")
    assert "the minimum required count is 2" in b.messages[0]


async def test_a_reloaded_model_keeps_within_its_resources(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add("a", f"count: 2 {ONE_LICENCE}")
    async with repository.serve() as engine:
        with counted(monkeypatch) as concurrency:
            before = asked(engine, *["a"] * 20)
            await asyncio.sleep(0)
            repository.add("a", f"count: 3 {ONE_LICENCE}")
            await engine.load("a")
            after = asked(engine, *["a"] * 20)
            assert await asyncio.gather(*before, *after) == [[2.0]] * 40
        assert concurrency.most == 1


async def test_a_scheduler_that_chooses_the_instance_goes_through_the_limiter_too(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add("a", f"count: 2 {ONE_LICENCE}", "dynamic_batching {} max_batch_size: 0")
    chosen: list[str] = []
    done = Pairs.batch_done
    monkeypatch.setattr(Pairs, "batch_done", lambda self, i, b: (chosen.append(i.name), done(self, i, b)))
    monkeypatch.setattr(Pairs, "submit", lambda self, batch: submit_apart(self, batch.requests))
    async with repository.serve() as engine:
        with counted(monkeypatch) as concurrency:
            assert await asyncio.gather(*asked(engine, *["a"] * 8)) == [[2.0]] * 8
    assert concurrency.most == 1
    assert sorted(chosen) == ["a_0_0"] * 4 + ["a_0_1"] * 4


def submit_apart(pairs: Pairs, requests: Any) -> None:
    """One of two requests to each instance."""
    from trivet.scheduling import Batch

    for instance, one in zip(pairs.context.instances, requests, strict=True):
        one.on_cancel = None
        instance.submit(Batch([one]))


@pytest.mark.parametrize("rate_limit", ["off", "execution_count"])
async def test_a_passive_instance_is_made_and_never_asked(
    repository: Repository, journal: Journal, monkeypatch: pytest.MonkeyPatch, rate_limit: str
) -> None:
    made: list[InstanceContext] = []
    create = Model.create_instance

    def noting(self: Model, context: InstanceContext) -> Any:
        made.append(context)
        return create(self, context)

    monkeypatch.setattr(Model, "create_instance", noting)
    repository.add("a", 'passive: true name: "idle" } instance_group { kind: KIND_CPU name: "busy"')
    async with repository.serve(rate_limit) as engine:
        assert await asyncio.gather(*asked(engine, *["a"] * 20)) == [[2.0]] * 20
        assert [instance.name for instance in engine.model("a").scheduler.context.instances] == ["busy_0"]
    assert sorted((context.name, context.passive) for context in made) == [("busy_0", False), ("idle_0", True)]
    assert len(journal.threads["execute"]) == 1
    assert len(journal.threads["close"]) == 2


async def test_a_model_that_has_only_passive_instances_says_so(repository: Repository) -> None:
    repository.add("a", "passive: true")
    async with repository.serve() as engine:
        with pytest.raises(TrivetError, match="model 'a' has no instance that takes requests") as raised:
            await ask(engine, "a")
    assert raised.value.code is Code.UNAVAILABLE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="binds threads as Linux does")
async def test_an_instance_is_created_and_executes_on_the_cores_of_its_policy(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[set[int]] = []
    create, execute = Model.create_instance, Arrays.execute

    def creating(self: Model, context: InstanceContext) -> Any:
        found.append(os.sched_getaffinity(0))
        return create(self, context)

    def executing(self: Arrays, *args: Any) -> Any:
        found.append(os.sched_getaffinity(0))
        return execute(self, *args)

    monkeypatch.setattr(Model, "create_instance", creating)
    monkeypatch.setattr(Arrays, "execute", executing)
    everywhere = os.sched_getaffinity(0)
    core = max(everywhere)
    repository.add("a", 'host_policy: "last"')
    policies = {"last": HostPolicy("last", frozenset({core})), "absent": HostPolicy("absent", frozenset({60000}))}
    async with repository.serve(host_policies=policies) as engine:
        await ask(engine, "a")
        assert found == [{core}, {core}]
        assert os.sched_getaffinity(0) == everywhere
        repository.add("b", 'host_policy: "absent"')
        with pytest.raises(InvalidArgumentError, match="host policy 'absent', cpu-cores=60000: Unable to set NUMA"):
            await engine.load("b")
        repository.add("c", 'host_policy: "never defined"')
        await engine.load("c")
        assert found[2:] == [everywhere]


class Place(RegionSlice):
    """Keeps what is written."""

    def __init__(self, *, on_device: bool) -> None:
        self.on_device = on_device
        self.written: list[float] = []

    def tensor(self, name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        raise NotImplementedError

    def write(self, tensor: Tensor) -> int:
        self.written = tensor.numpy().tolist()
        return 4


@pytest.mark.parametrize("on_device", [True, False])
async def test_an_instance_knows_which_results_go_into_memory_on_a_gpu(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, on_device: bool
) -> None:
    seen: list[set[str]] = []
    execute = Arrays.execute

    def noting(self: Arrays, *args: Any) -> Any:
        seen.append(set(self.placed))
        return execute(self, *args)

    monkeypatch.setattr(Arrays, "execute", noting)
    repository.add("m", "count: 1")
    async with repository.serve() as engine:
        plain = await engine.infer(request("m"))
        name, value = plain.outputs[0].name, plain.outputs[0].numpy().tolist()
        placed, place = request("m"), Place(on_device=on_device)
        placed.regions = {name: place}
        await engine.infer(placed)
        await engine.infer(request("m"))
    assert seen == [set(), {name} if on_device else set(), set()]
    assert place.written == value
