"""The Redis cache against a real Redis: kept, shared, expired, refused, and away."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trustme
from redis.asyncio import Redis
from redis_servers import RunningRedis, StartRedis
from trivet.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor
from trivet_cache_redis.cache import KEY_PREFIX, RedisCache, create

pytestmark = pytest.mark.anyio

KEY = bytes(range(32))


def response(*values: float) -> InferenceResponse:
    return InferenceResponse([Tensor.from_numpy("y", np.array(values, np.float32))], parameters={"p": True})


@asynccontextmanager
async def connected(redis: RunningRedis, **options: str) -> AsyncIterator[RedisCache]:
    cache = create({"host": "127.0.0.1", "port": str(redis.port), **options})
    try:
        await cache.open()
        yield cache
    finally:
        await cache.close()


@asynccontextmanager
async def client(redis: RunningRedis) -> AsyncIterator[Redis]:
    async with Redis(port=redis.port) as raw:
        yield raw


async def test_what_one_server_kept_another_finds(redis: RunningRedis) -> None:
    async with connected(redis) as one, connected(redis) as other:
        assert await other.lookup(KEY) is None
        await one.insert(KEY, response(1.0, 2.0))
        found = await other.lookup(KEY)
        assert found is not None
        assert found.outputs[0].numpy().tolist() == [1.0, 2.0]
        assert found.parameters == {"p": True}
        assert await other.lookup(KEY[::-1]) is None


async def test_an_entry_lasts_as_long_as_ttl_says(redis: RunningRedis) -> None:
    async with client(redis) as raw:
        async with connected(redis) as cache:
            await cache.insert(KEY, response(1.0))
            assert await raw.ttl(KEY_PREFIX + KEY.hex()) == -1
        async with connected(redis, ttl="3600") as cache:
            await cache.insert(KEY, response(1.0))
            assert 3500 < await raw.ttl(KEY_PREFIX + KEY.hex()) <= 3600


async def test_a_value_that_is_none_is_a_miss_and_can_be_written_over(
    redis: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(redis) as raw, connected(redis) as cache:
        await raw.set(KEY_PREFIX + KEY.hex(), b"TRV\x01 and nothing else")
        with caplog.at_level(logging.WARNING):
            assert await cache.lookup(KEY) is None
        assert "is not used: it has" in caplog.text
        await cache.insert(KEY, response(3.0))
        assert await cache.lookup(KEY) is not None


async def test_databases_are_apart(redis: RunningRedis) -> None:
    async with connected(redis, db="1") as one, connected(redis, db="2") as two:
        await one.insert(KEY, response(1.0))
        assert await two.lookup(KEY) is None


async def test_a_redis_that_goes_away_is_unavailable_and_found_again(redis: RunningRedis) -> None:
    async with connected(redis) as cache:
        await cache.insert(KEY, response(1.0))
        redis.stop()
        with pytest.raises(UnavailableError, match=f"Redis at 127.0.0.1:{redis.port}"):
            await cache.lookup(KEY)
        with pytest.raises(UnavailableError):
            await cache.insert(KEY, response(1.0))
        redis.start()
        assert await cache.lookup(KEY) is None
        await cache.insert(KEY, response(1.0))
        assert await cache.lookup(KEY) is not None


async def test_a_server_starts_without_its_redis(redis: RunningRedis, caplog: pytest.LogCaptureFixture) -> None:
    redis.stop()
    with caplog.at_level(logging.WARNING):
        async with connected(redis):
            pass
    assert "cannot be reached, and until then every request is executed" in caplog.text


async def test_a_password_that_is_wrong_stops_the_server(
    start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = start_redis("--requirepass", "secret")
    for password in ({}, {"password": "guess"}):
        with pytest.raises(InvalidArgumentError, match=r"Failed to initialize RedisCache: \S+ says: "):
            async with connected(redis, **password):
                pass
    async with connected(redis, password="secret") as cache:
        await cache.insert(KEY, response(1.0))
    monkeypatch.setenv("TRITONCACHE_REDIS_PASSWORD", "secret")
    async with connected(redis) as cache:
        assert await cache.lookup(KEY) is not None


async def test_a_user_of_its_own(redis: RunningRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client(redis) as raw:
        await raw.execute_command("ACL", "SETUSER", "triton", "on", ">pw", "~trivet:*", "+get", "+set", "+ping")
        async with connected(redis, user="triton", password="pw") as cache:
            await cache.insert(KEY, response(1.0))
            assert await cache.lookup(KEY) is not None
        monkeypatch.setenv("TRITONCACHE_REDIS_USERNAME", "triton")
        monkeypatch.setenv("TRITONCACHE_REDIS_PASSWORD", "wrong")
        async with connected(redis, password="pw") as cache:  # the option comes before the variable
            assert await cache.lookup(KEY) is not None


async def test_a_database_that_is_not_there_stops_the_server(redis: RunningRedis) -> None:
    with pytest.raises(InvalidArgumentError, match="DB index is out of range"):
        async with connected(redis, db="999"):
            pass


async def test_a_full_redis_refuses_one_entry_and_is_not_away(start_redis: StartRedis) -> None:
    redis = start_redis("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    async with connected(redis) as cache:
        with pytest.raises(Exception, match="maxmemory") as raised:
            await cache.insert(KEY, response(1.0))
        assert not isinstance(raised.value, (UnavailableError, OSError))
        assert await cache.lookup(KEY) is None


async def test_connections_are_bounded(redis: RunningRedis) -> None:
    async with connected(redis, pool_size="1", wait_timeout="1") as cache, client(redis) as raw:
        pool = cache._redis.connection_pool
        held = await pool.get_connection()
        with pytest.raises(ResourceExhaustedError, match="raise pool_size or wait_timeout"):
            await cache.lookup(KEY)
        await pool.release(held)
        assert await cache.lookup(KEY) is None
        assert len(await raw.client_list()) == 2  # one of ours, and the test's


async def test_tls(start_redis: StartRedis, tmp_path: Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("redis.example.org")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"key": str(tmp_path / "key.pem"), "cert": str(tmp_path / "cert.pem"), "cacert": str(tmp_path / "ca.pem")}
    arguments = {"--tls-cert-file": "cert", "--tls-key-file": "key", "--tls-ca-cert-file": "cacert"}
    redis = start_redis(*(part for option, name in arguments.items() for part in (option, files[name])), tls=True)
    # The server asks for a client's certificate too, and is known by another name than its address.
    async with connected(redis, **files, sni="redis.example.org") as cache:
        await cache.insert(KEY, response(1.0))
        assert await cache.lookup(KEY) is not None
    async with connected(redis, **files) as cache:
        with pytest.raises(UnavailableError, match="certificate"):
            await cache.lookup(KEY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "didn't specify address"),
        ({"host": "h"}, "didn't specify address"),
        ({"port": "6379"}, "didn't specify address"),
        ({"host": "h", "port": "x"}, "port=x: expected a whole number"),
        ({"host": "h", "port": "0"}, "port=0: expected 1 to 65535"),
        ({"host": "h", "port": "65536"}, "port=65536: expected 1 to 65535"),
        ({"host": "h", "port": "1", "pool_size": "0"}, "pool_size=0: expected at least 1"),
        ({"host": "h", "port": "1", "ttl": "-1"}, "ttl=-1: expected a whole number"),
        ({"host": "h", "port": "1", "tls_enabled": "maybe"}, "tls_enabled=maybe: expected true or false"),
        ({"host": "h", "port": "1", "hots": "h"}, "redis,hots: there is no such option; expected one of host, port"),
    ],
)
async def test_options_are_checked(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        create(options)
