"""The response cache before a model's scheduler: what is looked up, and what is remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from anyio import to_thread
from response_caches import BATCHED, CACHED, BrokenCache, DictCache, House, RemoteCache, ask, request
from trivet import model_cache
from trivet.errors import TrivetError
from trivet.inference import InferenceRequest, RequestedOutput
from trivet.tensor import Tensor

pytestmark = pytest.mark.anyio


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


async def test_equal_requests_that_come_together_are_both_executed(house: House) -> None:
    """Triton's behaviour too."""
    async with house.serve(DictCache()) as engine:
        with house.arithmetic.journal.gate as gate:
            both = [asyncio.ensure_future(ask(engine)) for _ in range(2)]
            await to_thread.run_sync(gate.wait_until_entered)
        assert await asyncio.gather(*both) == [[2.0]] * 2
        assert len(house.executions) == 2
