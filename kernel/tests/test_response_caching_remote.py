"""A response cache that is waited for, that fails, or that is not there: what requests have to do with it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from response_caches import BrokenCache, DictCache, House, RemoteCache, ask, request
from trivet import caching
from trivet.errors import Code, InvalidArgumentError, UnavailableError
from trivet.inference import InferenceRequest, InferenceResponse

pytestmark = pytest.mark.anyio


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
