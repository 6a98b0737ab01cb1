"""Responses in Redis: one string per response, read with ``GET`` and written with ``SET``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from trivet.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError
from trivet.extensions import ResponseCache
from trivet.inference import InferenceResponse

from trivet_cache_redis.codec import CorruptEntryError, decode, encode
from trivet_cache_redis.options import RedisOptions, read_options

logger = logging.getLogger(__name__)

KEY_PREFIX = "trivet:response:"
"""Before the key in hexadecimal digits. Whoever shares the database tells these keys from others by it."""

_OPENING_S = 5.0
"""How long the start of a server waits for Redis, where ``connect_timeout`` and ``socket_timeout`` set no limit."""

# AuthenticationError is a ConnectionError, and would look like a server that is away.
_REFUSALS = (exceptions.AuthenticationError, exceptions.ResponseError)
_UNREACHABLE = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)


class RedisCache(ResponseCache):
    """Shared by every server that uses the same database and serves the same models. Constructed on the event loop.

    The size is Redis's own affair: give it ``maxmemory`` and an ``allkeys-lru`` policy, or use ``ttl``.
    """

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._address = f"{options.host}:{options.port}"
        self._expires = options.ttl or None
        self._redis = Redis(connection_pool=_pool(options))

    async def open(self) -> None:
        try:
            await self._redis.ping()
        except _REFUSALS as error:
            raise InvalidArgumentError(f"Failed to initialize RedisCache: {self._address} says: {error}") from error
        except _UNREACHABLE as error:
            # Models can be served without it, and it may come back.
            logger.warning(
                "Redis at %s cannot be reached, and until then every request is executed: %s", self._address, error
            )

    async def lookup(self, key: bytes) -> InferenceResponse | None:
        name = KEY_PREFIX + key.hex()
        try:
            value: Any = await self._redis.get(name)
        except Exception as error:
            raise _translated(error, self._address) from error
        if value is None:
            return None
        try:
            return decode(value)
        except CorruptEntryError as error:
            logger.warning("Redis at %s: entry '%s' is not used: it %s", self._address, name, error)
            return None

    async def insert(self, key: bytes, response: InferenceResponse) -> None:
        try:
            await self._redis.set(KEY_PREFIX + key.hex(), encode(response), ex=self._expires)
        except Exception as error:
            raise _translated(error, self._address) from error

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


def create(options: Mapping[str, str]) -> RedisCache:
    """The cache of ``--cache-config=redis,host=...,``. Raises :class:`~trivet.errors.InvalidArgumentError`."""
    return RedisCache(read_options(options))


def _translated(error: Exception, address: str) -> Exception:
    """What the kernel is to know: whether Redis is away, or does not want this one thing."""
    if isinstance(error, exceptions.ConnectionError) and isinstance(error.__cause__, TimeoutError):
        return ResourceExhaustedError(f"no connection to Redis at {address} was free; raise pool_size or wait_timeout")
    if isinstance(error, _UNREACHABLE):
        return UnavailableError(f"Redis at {address}: {error}")
    return error


class _NamedSSLConnection(SSLConnection):
    """TLS to a server whose certificate names another host than the address."""

    def __init__(self, *, sni: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._sni = sni

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self._sni}


def _pool(options: RedisOptions) -> BlockingConnectionPool:
    arguments: dict[str, Any] = {
        "host": options.host,
        "port": options.port,
        "username": options.user or None,
        "password": options.password or None,
        "db": options.db,
        "socket_connect_timeout": options.connect_timeout / 1000 or _OPENING_S,
        "socket_timeout": options.socket_timeout / 1000 or _OPENING_S,
        # Once: for a connection that Redis had closed because it was idle.
        "retry": Retry(NoBackoff(), 1),
    }
    if options.tls_enabled:
        arguments |= {
            "connection_class": SSLConnection,
            "ssl_certfile": options.cert or None,
            "ssl_keyfile": options.key or None,
            "ssl_ca_certs": options.cacert or None,
            "ssl_ca_path": options.cacert_dir or None,
        }
        if options.sni:
            arguments |= {"connection_class": _NamedSSLConnection, "sni": options.sni}
    return BlockingConnectionPool(
        max_connections=options.pool_size, timeout=options.wait_timeout / 1000 or None, **arguments
    )
