"""The kit for response caches."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar

import anyio

from trivet.datatypes import FP32, UINT8
from trivet.errors import InvalidArgumentError
from trivet.extensions import ResponseCache
from trivet.hookspecs import CachePlugin, Offer
from trivet.inference import InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor, object_array
from trivet.testing.conformance import leaks
from trivet.testing.conformance.rules import PluginRules, offered, require

_LOOKUP = "trivet.extensions.ResponseCache.lookup"
_INSERT = "trivet.extensions.ResponseCache.insert"
_CLOSE = "trivet.extensions.ResponseCache.close"


class CacheConformance(PluginRules, ABC):
    """Keeps responses and asks for them again."""

    cache: ClassVar[str]
    """The name under which the plugin offers the cache."""

    def options(self) -> Mapping[str, str]:
        """Options for a cache that holds at least a hundred small responses."""
        return {}

    def test_what_went_in_comes_out(self) -> None:
        """Names, datatypes, shapes, bytes and parameters; a key that was never given has nothing."""

        async def check(cache: ResponseCache) -> None:
            key = _key(1)
            require(await _lookup(cache, key) is None, "an unknown key has no response", _LOOKUP)
            outputs = [
                Tensor.from_wire("numbers", FP32, (1, 2), bytes(range(8))),
                Tensor.from_wire("text", Tensor.from_numpy("t", object_array([b"ab"], (1,))).datatype, (1,),
                                 bytes(Tensor.from_numpy("t", object_array([b"ab"], (1,))).wire())),
            ]  # fmt: skip
            kept = InferenceResponse(outputs, parameters={"flag": True, "count": 3, "text": "t"})
            await _insert(cache, key, kept)
            found = await _lookup(cache, key)
            require(found is not None, "a response that was just kept is found", _LOOKUP)
            assert found is not None
            for given, got in zip(outputs, found.outputs, strict=True):
                same = (got.name, got.datatype, got.shape, bytes(got.wire())) == (
                    given.name, given.datatype, given.shape, bytes(given.wire()),
                )  # fmt: skip
                require(same, f"output '{given.name}' comes back as it was", _LOOKUP, f"{got.name} {got.shape}")
            require(
                dict(found.parameters) == dict(kept.parameters), "parameters come back", _LOOKUP, f"{found.parameters}"
            )
            require(await _lookup(cache, _key(2)) is None, "another key has no response", _LOOKUP)

        self._run(check)

    def test_a_key_that_is_kept_again_and_many_keys(self) -> None:
        """Each key has its own response."""

        async def check(cache: ResponseCache) -> None:
            for _ in range(2):
                for number in range(50):
                    await _insert(cache, _key(number), _response(number))
            for number in range(50):
                found = await _lookup(cache, _key(number))
                require(
                    found is not None and bytes(found.outputs[0].wire()) == bytes([number]),
                    "each of fifty keys has the response that was kept for it",
                    _INSERT,
                    f"key {number}: {found and bytes(found.outputs[0].wire())!r}",
                )
            usage = cache.usage
            within = usage is None or 0 < usage.bytes <= usage.capacity_bytes
            require(within, "a cache keeps to its capacity", "trivet.extensions.CacheUsage", repr(usage))

        self._run(check)

    def test_many_requests_at_once_get_their_own_responses(self) -> None:
        """Lookups and insertions that overlap, of the same keys and of others."""

        async def check(cache: ResponseCache) -> None:
            wrong: list[int] = []

            async def use(number: int) -> None:
                key = number % 20
                await _insert(cache, _key(key), _response(key))
                found = await _lookup(cache, _key(key))
                if found is None or bytes(found.outputs[0].wire()) != bytes([key]):
                    wrong.append(number)

            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(use, number)
            require(
                not wrong, "a key has its own response, whoever else asks", _LOOKUP, f"not so: uses {sorted(wrong)}"
            )

        self._run(check)

    def test_nothing_is_left_of_a_cache_that_was_closed(self) -> None:
        """Threads, connections and files."""

        async def check(cache: ResponseCache) -> None:
            await _insert(cache, _key(1), _response(1))
            await _lookup(cache, _key(1))

        for _ in range(3):
            self._run(check)
        before = leaks.held()
        for _ in range(8):
            self._run(check)
        leaks.eventually(lambda: leaks.held().threads <= before.threads)
        after = leaks.held()
        threads = sorted(after.threads - before.threads)
        require(not threads, "close() ends the cache's threads", _CLOSE, ", ".join(threads))
        files = after.files - before.files
        require(files < 4, "close() closes the cache's connections", _CLOSE, f"{files} more after 8 caches")

    def test_an_unknown_option_is_named(self) -> None:
        """When the cache is made, before the server listens."""
        registry, offer = self._offered()
        try:
            registry.create(offer, ResponseCache, {**self.options(), "no_such_option": "1"})
        except InvalidArgumentError as error:
            require("no_such_option" in error.message, "an unknown option is named", _FACTORY, error.message)
        else:
            require(False, "an unknown option is refused", _FACTORY)

    def _run(self, check: Callable[[ResponseCache], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self._cache() as cache:
                await check(cache)

        anyio.run(run)

    @asynccontextmanager
    async def _cache(self) -> AsyncIterator[ResponseCache]:
        registry, offer = self._offered()
        cache = registry.create(offer, ResponseCache, self.options())
        await cache.open()
        try:
            yield cache
        finally:
            await cache.close()

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        registry, offer = offered(self.cache, lambda registry: registry.caches)
        assert isinstance(offer, CachePlugin)
        return registry, offer


_FACTORY = "trivet.hookspecs.CachePlugin"


def _key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def _response(number: int) -> InferenceResponse:
    return InferenceResponse([Tensor.from_wire("y", UINT8, (1,), bytes([number]))])


async def _lookup(cache: ResponseCache, key: bytes) -> InferenceResponse | None:
    found = cache.lookup(key)
    return await found if inspect.isawaitable(found) else found


async def _insert(cache: ResponseCache, key: bytes, response: InferenceResponse) -> None:
    done = cache.insert(key, response)
    if done is not None:
        await done
