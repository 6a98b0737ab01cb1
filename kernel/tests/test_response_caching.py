"""The response cache before a model's scheduler: what is looked up, what is remembered, and what a bad cache costs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio import to_thread
from arithmetic_backend import ArithmeticPlugin
from trivet import caching, hookimpl, model_cache
from trivet.engine import Engine
from trivet.errors import Code, InvalidArgumentError, TrivetError, UnavailableError
from trivet.extensions import ResponseCache
from trivet.hookspecs import CachePlugin
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

CACHED = "response_cache { enable: true } "
BATCHED = (
    CACHED + "max_batch_size: 4 "
    'input { name: "x" data_type: TYPE_FP32 dims: 2 } output { name: "y" data_type: TYPE_FP32 dims: 2 }'
)


class DictCache(ResponseCache):
    """Answers at once and forgets nothing."""

    def __init__(self) -> None:
        self.entries: dict[bytes, InferenceResponse] = {}
        self.opened = self.closed = False
        self.limit: int | None = None

    @property
    def largest_response(self) -> int | None:
        return self.limit

    async def open(self) -> None:
        self.opened = True

    def lookup(self, key: bytes) -> InferenceResponse | Awaitable[InferenceResponse | None] | None:
        return self.entries.get(key)

    def insert(self, key: bytes, response: InferenceResponse) -> Awaitable[None] | None:
        self.entries[key] = response
        return None

    async def close(self) -> None:
        self.closed = True


class RemoteCache(DictCache):
    """Answers later: when the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def lookup(self, key: bytes) -> InferenceResponse | None:  # type: ignore[override]
        self.asked += 1
        await self.gate.wait()
        return self.entries.get(key)

    async def insert(self, key: bytes, response: InferenceResponse) -> None:  # type: ignore[override]
        await self.gate.wait()
        self.entries[key] = response


class BrokenCache(DictCache):
    """Raises what the test says, at every lookup and insertion."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    def lookup(self, key: bytes) -> InferenceResponse | None:
        self.asked += 1
        raise self.error

    def insert(self, key: bytes, response: InferenceResponse) -> None:
        raise self.error


class CachesPlugin:
    """Offers a cache called ``test``, made by the test."""

    def __init__(self, make: Callable[[], ResponseCache]) -> None:
        self.make = make
        self.options: Mapping[str, str] = {}

    @hookimpl
    def trivet_response_caches(self) -> Sequence[CachePlugin]:
        return [CachePlugin(name="test", factory=self._make)]

    def _make(self, options: Mapping[str, str]) -> ResponseCache:
        self.options = options
        return self.make()


class House:
    """Models in the making, and the backend that serves them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arithmetic = ArithmeticPlugin()
        self.executions = self.arithmetic.journal.batches

    def add(self, name: str = "double", config: str = CACHED, factor: float = 2.0) -> None:
        folder = self.path / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "config.pbtxt").write_text(config)
        (folder / "model.arith").write_text(str(factor))

    @asynccontextmanager
    async def serve(self, cache: ResponseCache | Callable[[], ResponseCache], **options: Any) -> AsyncIterator[Engine]:
        plugin = CachesPlugin(cache if callable(cache) else lambda: cache)
        registry = PluginRegistry.of(arithmetic=self.arithmetic, caches=plugin)
        options = {"cache_config": {"test": {}}, "model_control_mode": "explicit", "load_models": ["*"], **options}
        async with running_engine(self.path, registry=registry, **options) as engine:
            yield engine


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.add()
    return house


def request(*values: float, model: str = "double", shape: tuple[int, ...] = (-1,), **fields: Any) -> InferenceRequest:
    array = np.array(values or (1.0,), np.float32).reshape(shape)
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", array)}, **fields)


async def ask(engine: Engine, *values: float, **fields: Any) -> list[Any]:
    response = await engine.infer(request(*values, **fields))
    if response.error:
        raise response.error
    return response.outputs[0].numpy().tolist()


async def test_an_equal_request_is_answered_without_an_execution(house: House) -> None:
    async with house.serve(DictCache()) as engine:
        assert await ask(engine, 1.0, 2.0) == await ask(engine, 1.0, 2.0, id="other", priority=3) == [2.0, 4.0]
        assert await ask(engine, 1.0, 3.0) == [2.0, 6.0]
        assert house.executions == [2, 2]
        cache = engine.response_cache
        assert cache is not None
        assert (cache.counters.hits, cache.counters.misses, cache.counters.insertions) == (1, 2, 2)


async def test_hits_are_no_inferences_in_the_statistics(house: House) -> None:
    """As the real Triton counts: a hit is a success that was queued; nothing was computed for it."""
    async with house.serve(DictCache()) as engine:
        for _ in range(3):
            await ask(engine)
        (statistics,) = engine.statistics("double")
        assert (statistics.inference_count, statistics.execution_count) == (1, 1)
        assert (statistics.success.count, statistics.fail.count, statistics.queue.count) == (3, 0, 3)
        assert statistics.compute_input.count == statistics.compute_infer.count == statistics.compute_output.count == 1
        assert (statistics.cache_hit.count, statistics.cache_miss.count) == (2, 1)
        assert statistics.cache_hit.ns > 0
        assert statistics.cache_miss.ns > 0


async def test_what_a_response_depends_on_is_part_of_the_key(house: House) -> None:
    house.add("other")
    house.add("batched", BATCHED)
    async with house.serve(DictCache()) as engine:
        for _ in range(2):
            await ask(engine, 1.0)
            await ask(engine, 1.0, model="other")
            await ask(engine, 1.0, parameters={"p": 1})
            await ask(engine, 1.0, parameters={"p": 1.0})
            await ask(engine, 1.0, parameters={"p": True})
            await ask(engine, 0.0)
            await ask(engine, -0.0)
            await ask(engine, float("nan"))
            await ask(engine, 1, 2, 3, 4, model="batched", shape=(2, 2))
            await ask(engine, 1, 2, 3, 4, 5, 6, 7, 8, model="batched", shape=(4, 2))
        assert len(house.executions) == 10


async def test_asking_for_every_output_by_name_is_asking_for_all(house: House) -> None:
    async with house.serve(DictCache()) as engine:
        assert await ask(engine) == await ask(engine, outputs=[RequestedOutput("y")])
        assert len(house.executions) == 1


async def test_errors_are_not_remembered(house: House) -> None:
    async with house.serve(DictCache()) as engine:
        for _ in range(2):
            with pytest.raises(TrivetError, match="negative input"):
                await ask(engine, -1.0)
        (statistics,) = engine.statistics("double")
        assert (statistics.fail.count, statistics.cache_hit.count, len(house.executions)) == (2, 0, 2)


async def test_requests_of_a_sequence_are_left_alone(house: House) -> None:
    cache = DictCache()
    async with house.serve(cache) as engine:
        for _ in range(2):
            await ask(engine, correlation_id=7)
            await ask(engine, correlation_id="seven")
        assert (len(house.executions), cache.entries) == (4, {})
        assert engine.response_cache is not None
        assert engine.response_cache.counters.skipped == 4


async def test_a_model_that_answers_in_parts_is_not_remembered(house: House) -> None:
    parameters = 'parameters { key: "%s" value { string_value: "%s" } }'
    house.add("parts", CACHED + parameters % ("contract", "requests") + parameters % ("responses", "2"))
    cache = DictCache()
    async with house.serve(cache) as engine:
        assert await ask(engine, model="parts") == await ask(engine, model="parts") == [2.0]
        assert cache.entries == {}


async def test_a_model_without_the_field_is_never_looked_up(house: House) -> None:
    house.add("plain", " ")
    cache = BrokenCache(AssertionError("asked"))
    async with house.serve(cache) as engine:
        assert await ask(engine, model="plain") == [2.0]
        assert engine.model("plain").cache is None
        assert cache.asked == 0


async def test_a_changed_model_does_not_answer_with_what_the_old_one_computed(house: House) -> None:
    async with house.serve(DictCache()) as engine:
        assert await ask(engine) == [2.0]
        house.add(factor=30.0)
        await engine.load("double")
        assert await ask(engine) == [30.0]
        house.add(factor=2.0)
        await engine.load("double")
        assert await ask(engine) == [2.0]
        assert len(house.executions) == 2  # the first model again, and what it computed


async def test_a_server_that_starts_anew_finds_what_a_shared_cache_kept(house: House, tmp_path: Path) -> None:
    cache = DictCache()
    async with house.serve(cache) as engine:
        await ask(engine)
    house.add()  # written again: times of modification differ, contents do not
    async with house.serve(cache, backend_config={}) as engine:
        assert await ask(engine) == [2.0]
    assert len(house.executions) == 1


async def test_what_is_remembered_belongs_to_nobody_else(house: House) -> None:
    """Rows of a batch are views of the whole; the cache must hold neither the batch nor memory that somebody writes."""
    cache = DictCache()
    async with house.serve(cache) as engine:
        first = await engine.infer(request(1.0, 2.0))
        first.outputs[0].numpy()[:] = 99.0
        hits = [await engine.infer(request(1.0, 2.0)) for _ in range(2)]
        assert [hit.outputs[0].numpy().tolist() for hit in hits] == [[2.0, 4.0]] * 2
        assert not hits[0].outputs[0].numpy().flags.writeable
        assert hits[0].outputs[0] is not hits[1].outputs[0]
        (kept,) = cache.entries.values()
        assert kept.outputs[0].wire() == np.array([2.0, 4.0], np.float32).tobytes()
        assert type(kept.outputs[0].wire()) is bytes


async def test_shapes_come_back_as_callers_see_them(house: House) -> None:
    tensor = '{ name: "%s" data_type: TYPE_FP32 dims: [ 2, 1 ] reshape { shape: [ 2 ] } } '
    house.add("reshaped", CACHED + "max_batch_size: 4 input " + tensor % "x" + "output " + tensor % "y")
    async with house.serve(DictCache()) as engine:
        for _ in range(2):
            assert await ask(engine, 1, 2, model="reshaped", shape=(1, 2, 1)) == [[[2.0], [4.0]]]
            assert await ask(engine, 1, 2, 3, 4, model="reshaped", shape=(2, 2, 1)) == [[[2.0], [4.0]], [[6.0], [8.0]]]
        assert house.executions == [1, 2]


async def test_an_empty_tensor_is_remembered_too(house: House) -> None:
    async with house.serve(DictCache()) as engine:
        empty = [InferenceRequest("double", {"x": Tensor.from_numpy("x", np.empty(0, np.float32))}) for _ in range(2)]
        for one in empty:
            response = await engine.infer(one)
            assert response.error is None
            assert response.outputs[0].shape == (0,)
            assert response.outputs[0].numpy().size == 0
        assert house.executions == [0]


async def test_a_response_that_is_too_large_is_not_offered(house: House) -> None:
    cache = DictCache()
    cache.limit = 8
    async with house.serve(cache) as engine:
        await ask(engine, 1.0, 2.0)
        await ask(engine, 1.0, 2.0, 3.0)
        assert len(cache.entries) == 1


async def test_large_inputs_are_hashed_on_a_thread(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "HASHED_ON_LOOP", 100)
    values = np.arange(1000, dtype=np.float32)
    for cache in (DictCache(), RemoteCache()):
        house.executions.clear()
        async with house.serve(cache) as engine:
            for _ in range(2):
                assert await ask(engine, *values) == (values * 2).tolist()
            assert house.executions == [1000]


async def test_observers_see_hits_and_no_response_comes_before_submit_returns(house: House) -> None:
    async with house.serve(DictCache()) as engine:
        await ask(engine)
        finished: list[InferenceRequest] = []
        engine.on_finished.append(lambda request, _: finished.append(request))
        answered = asyncio.Event()
        hit = request(on_response=lambda *_: answered.set())
        engine.submit(hit)
        assert not answered.is_set()
        await answered.wait()
        assert finished == [hit]
        assert hit.compute_start_ns == hit.compute_end_ns == 0


async def test_a_remote_cache_is_waited_for(house: House) -> None:
    cache = RemoteCache()
    async with house.serve(cache) as engine:
        assert await ask(engine) == await ask(engine) == [2.0]
        assert len(house.executions) == 1
        await engine.stop()
        assert cache.closed


async def test_a_request_can_be_cancelled_while_it_is_looked_up(house: House) -> None:
    cache = RemoteCache()
    async with house.serve(cache) as engine:
        cache.gate.clear()
        waiting = asyncio.ensure_future(engine.infer(looked_up := request()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert cache.asked == 1
        engine.cancel(looked_up)
        error = (await waiting).error
        assert error is not None
        assert error.code is Code.CANCELLED
        await engine.unload("double")
        cache.gate.set()
        assert house.executions == []


async def test_an_unload_waits_for_lookups(house: House) -> None:
    cache = RemoteCache()
    async with house.serve(cache) as engine:
        cache.gate.clear()
        waiting = asyncio.ensure_future(ask(engine, 5.0))
        await asyncio.sleep(0)
        await engine.unload("double")
        cache.gate.set()
        assert await waiting == [10.0]


async def test_a_lookup_that_the_cache_cancels_is_a_miss(house: House) -> None:
    class Closing(RemoteCache):
        async def lookup(self, key: bytes) -> InferenceResponse | None:  # type: ignore[override]
            raise asyncio.CancelledError

    async with house.serve(Closing()) as engine:
        assert await ask(engine) == [2.0]
        assert engine.response_cache is not None
        assert (engine.response_cache.counters.misses, engine.response_cache.counters.failures) == (1, 1)


async def test_stopping_answers_what_waits_for_the_cache(house: House) -> None:
    cache = RemoteCache()
    async with house.serve(cache) as engine:
        cache.gate.clear()
        waiting = asyncio.ensure_future(engine.infer(request()))
        await asyncio.sleep(0)
        await engine.stop()
        error = (await waiting).error
        assert error is not None
        assert error.code is Code.UNAVAILABLE


async def test_a_queue_that_refuses_after_the_lookup_answers_the_request(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house.serve(RemoteCache()) as engine:

        def full(_: InferenceRequest) -> None:
            raise UnavailableError("Exceeds maximum queue size")

        front = engine.model("double").cache
        assert front is not None
        monkeypatch.setattr(front, "_schedule", full)
        with pytest.raises(UnavailableError, match="Exceeds maximum queue size"):
            await ask(engine)
        assert engine.statistics("double")[0].fail.count == 1


async def test_only_so_many_requests_wait_for_the_cache(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "LOOKUPS_WAITING", 2)
    cache = RemoteCache()
    async with house.serve(cache) as engine:
        cache.gate.clear()
        waiting = [asyncio.ensure_future(ask(engine, float(i))) for i in range(2)]
        await asyncio.sleep(0)
        assert await ask(engine, 3.0) == [6.0]  # executed at once, without asking
        cache.gate.set()
        assert await asyncio.gather(*waiting) == [[0.0], [2.0]]


@pytest.mark.parametrize("remote", [False, True])
async def test_a_cache_that_is_down_is_a_miss_and_one_line(
    house: House, remote: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class DownCache(BrokenCache):
        def lookup(self, key: bytes) -> Any:
            if not remote:
                return super().lookup(key)

            async def later() -> None:
                super(DownCache, self).lookup(key)

            return later()

    cache = DownCache(UnavailableError("no route to host"))
    async with house.serve(cache) as engine:
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                assert await ask(engine) == [2.0]
        assert [record.message for record in caplog.records] == [
            "response cache 'test': lookup failed, requests are executed instead: no route to host"
        ]
        assert cache.asked == 1  # it rests
        assert engine.statistics("double")[0].cache_miss.count == 5


async def test_a_failure_about_one_key_does_not_make_the_cache_rest(house: House) -> None:
    cache = BrokenCache(ValueError("what a key"))
    async with house.serve(cache) as engine:
        await ask(engine)
        await ask(engine)
        assert cache.asked == 2


async def test_a_cache_that_does_not_answer_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "LOOKUP_TIMEOUT_S", 0.0)
    cache = RemoteCache()
    async with house.serve(cache) as engine:
        cache.gate.clear()
        assert await ask(engine) == [2.0]
        cache.gate.set()


async def test_a_cached_model_on_a_server_without_a_cache_is_warned_about(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with house.serve(DictCache(), cache_config={}) as engine:
            assert await ask(engine) == await ask(engine) == [2.0]
            assert len(house.executions) == 2
            assert engine.response_cache is None
    assert "start it with --cache-config=local,size=BYTES" in caplog.text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"nosuch": {"size": "1"}}, "unable to find response cache 'nosuch'; installed caches are: test"),
        ({"redis": {"host": "x"}}, "unable to find response cache 'redis'; install it with: pip install"),
        ({"test": {}, "redis": {}}, "found multiple cache configurations, but only a single cache is currently"),
    ],
)
async def test_a_cache_that_cannot_be_made_stops_the_server(
    house: House, config: dict[str, dict[str, str]], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        async with house.serve(DictCache(), cache_config=config):
            pass


async def test_a_cache_that_refuses_to_open_stops_the_server(house: House) -> None:
    class ShutCache(DictCache):
        async def open(self) -> None:
            raise InvalidArgumentError("WRONGPASS")

    with pytest.raises(InvalidArgumentError, match="WRONGPASS"):
        async with house.serve(ShutCache()):
            pass


async def test_equal_requests_that_come_together_are_both_executed(house: House) -> None:
    """Triton's behaviour too."""
    async with house.serve(DictCache()) as engine:
        with house.arithmetic.journal.gate as gate:
            both = [asyncio.ensure_future(ask(engine)) for _ in range(2)]
            await to_thread.run_sync(gate.wait_until_entered)
        assert await asyncio.gather(*both) == [[2.0]] * 2
        assert len(house.executions) == 2
