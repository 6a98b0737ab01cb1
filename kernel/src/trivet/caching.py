"""The response cache of a server, and what the kernel does around it.

A model whose configuration says ``response_cache { enable: true }`` has a
:class:`~trivet.model_cache.ModelCache` before its scheduler. It looks each request up; what is found is answered
without scheduler or instance, and what is not goes on, and leaves its response in the cache on the way back. Two equal
requests that both come before the first response are both executed, as in Triton.

Never remembered: errors, responses of which a part went out before, and requests that belong to a sequence. Neither
looked up nor remembered is what lies on a device. A cache that fails costs a line in the log and counts as a miss.

Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread

from trivet.cache_key import model_identity
from trivet.errors import InvalidArgumentError, TrivetError, UnavailableError, message_of
from trivet.extensions import ResponseCache
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.model_cache import ModelCache
from trivet.tensor import Buffer, Tensor

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.config.spec import ModelSpec
    from trivet.lifecycle import LoadedModel
    from trivet.plugins import PluginRegistry
    from trivet.scheduling import Scheduler

logger = logging.getLogger(__name__)

LOOKUPS_WAITING = 1024
"""Requests that may wait for a cache at once; those beyond are executed without asking it."""

INSERTIONS_WAITING = 256
"""Insertions that may be under way at once; responses beyond are not remembered."""

LOOKUP_TIMEOUT_S = 1.0
INSERTION_TIMEOUT_S = 10.0

REST_S = 1.0
"""How long a cache that cannot be reached is not asked, so that not every request waits for it in vain."""

LOG_INTERVAL_S = 30.0
"""Failures of a cache are logged no more often than this."""

_CLOSING_S = 1.0

KNOWN_CACHES = {"local": "pip install trivet-cache-local", "redis": "pip install trivet-cache-redis"}
"""How to get the caches of Triton's names."""


class CacheCounters:
    """What the server's cache was asked since the start, over all models. Durations are in nanoseconds."""

    __slots__ = ("failures", "hits", "insertion_ns", "insertions", "lookup_ns", "misses", "skipped")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.lookup_ns = 0
        """Of hits and misses."""
        self.insertions = 0
        """Responses given to the cache, which may have let go of them since."""
        self.insertion_ns = 0
        self.failures = 0
        """Lookups and insertions that failed."""
        self.skipped = 0
        """Requests of models that use the cache which were executed without a lookup."""


class ResponseCaching:
    """The one cache of a server, with what the kernel does around it. Constructed on the event loop.

    ``answer`` gives a request in flight its response, ``reject`` an error; ``find`` is the loaded model that serves a
    name and version.
    """

    def __init__(
        self,
        name: str,
        cache: ResponseCache,
        *,
        answer: Callable[[InferenceRequest, InferenceResponse], None],
        reject: Callable[[InferenceRequest, TrivetError], None],
        find: Callable[[str, str], LoadedModel],
    ) -> None:
        self.name = name
        self.cache = cache
        self.counters = CacheCounters()
        self.reject = reject
        self.hashing = CapacityLimiter(2)
        self._answer = answer
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._lookups: set[asyncio.Task[None]] = set()
        self._insertions: set[asyncio.Task[None]] = set()
        self._rests_until_ns = 0
        self._logged_ns = 0
        self._unlogged = 0

    def ensemble_identity(self, own: bytes, steps: Sequence[tuple[str, str]]) -> bytes | None:
        """The identity of a model that others are steps of, which changes when one of them is loaded anew."""
        parts = [own]
        for name, version in steps:
            try:
                member = self._find(name, version).identity()
            except TrivetError:
                return None
            if member is None:
                return None
            parts.append(member)
        return b"".join(parts)

    async def open(self) -> None:
        """Before the first model is loaded. Raises what :meth:`trivet.extensions.ResponseCache.open` does."""
        await self.cache.open()

    async def settled(self, timeout_s: float | None = None) -> None:
        """Wait until what is being inserted is, for at most so many seconds."""
        if self._insertions:
            await asyncio.wait(self._insertions, timeout=timeout_s)

    async def close(self) -> None:
        """When the last model is gone: finish what is being inserted, for a moment, and close the cache."""
        for task in self._lookups:
            task.cancel()
        await self.settled(_CLOSING_S)
        for task in self._insertions:
            task.cancel()
        try:
            await self.cache.close()
        except Exception:
            logger.exception("response cache '%s' failed to close", self.name)

    @property
    def saturated(self) -> bool:
        """Whether as many requests wait for the cache as may."""
        return len(self._lookups) >= LOOKUPS_WAITING

    def run(self, lookup: Coroutine[Any, Any, None]) -> None:
        """Look something up in a task of its own."""
        _keep(self._loop.create_task(lookup), self._lookups)

    def lookup(self, key: bytes) -> InferenceResponse | Awaitable[InferenceResponse | None] | None:
        """Ask the cache. Never raises: a failure is logged, and nothing was found."""
        if self._rests_until_ns and perf_counter_ns() < self._rests_until_ns:
            return None
        try:
            return self.cache.lookup(key)
        except Exception as error:  # noqa: BLE001 - whatever a cache raises must not cost the request
            self._failed("lookup", error)
            return None

    async def lookup_result(self, lookup: Awaitable[InferenceResponse | None]) -> InferenceResponse | None:
        """Wait for what :meth:`lookup` promised, for a bounded time. Never raises either."""
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                return await lookup
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # What the cache waited for was cancelled, as a client does whose connection is closed; the request was not.
            self._failed("lookup", error)
        except Exception as error:  # noqa: BLE001 - see lookup
            self._failed("lookup", error)
        return None

    def insert(self, key: bytes, response: InferenceResponse, model: LoadedModel) -> None:
        """Give the cache a copy of a response that belongs to nobody else, unless it is too large or on a device."""
        start_ns = perf_counter_ns()
        if self._rests_until_ns and start_ns < self._rests_until_ns:
            return
        try:
            copy = _copy(response, self.cache.largest_response)
            if copy is None:
                return
            if len(self._insertions) >= INSERTIONS_WAITING:
                raise UnavailableError(f"{INSERTIONS_WAITING} insertions are under way")
            insertion = self.cache.insert(key, copy)
        except Exception as error:  # noqa: BLE001 - see lookup
            self._failed("insertion", error)
            return
        self.counters.insertions += 1
        self.counters.insertion_ns += perf_counter_ns() - start_ns
        if insertion is not None:
            _keep(self._loop.create_task(self._insertion_result(insertion, model)), self._insertions)

    def answer(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Answer from the cache; not at once, as a caller may not be prepared for it before ``submit`` returns."""
        self._loop.call_soon(self._answer, request, response)

    async def _insertion_result(self, insertion: Awaitable[None], model: LoadedModel) -> None:
        start_ns = perf_counter_ns()
        try:
            async with asyncio.timeout(INSERTION_TIMEOUT_S):
                await insertion
        except Exception as error:  # noqa: BLE001 - see lookup
            self._failed("insertion", error)
        duration_ns = perf_counter_ns() - start_ns
        model.statistics.cache_miss.ns += duration_ns
        self.counters.insertion_ns += duration_ns

    def _failed(self, what: str, error: BaseException) -> None:
        self.counters.failures += 1
        now = perf_counter_ns()
        if isinstance(error, (UnavailableError, OSError)):  # TimeoutError is an OSError
            self._rests_until_ns = now + int(REST_S * 1e9)
        if self._logged_ns and now - self._logged_ns < LOG_INTERVAL_S * 1e9:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more failures since this was last logged)" if self._unlogged else ""
        self._logged_ns, self._unlogged = now, 0
        reason = message_of(error) or f"no answer in time ({type(error).__name__})"
        logger.warning(
            "response cache '%s': %s failed, requests are executed instead: %s%s", self.name, what, reason, more
        )


Identity = Callable[[], bytes | None]
"""What a loaded model is now, equal for models that answer the same; ``None`` where that is not known."""


async def identify(caching: ResponseCaching | None, config: ModelConfig, version: int, path: Path) -> Identity:
    """The identity of a model that is about to be loaded from ``path``; only a response cache wants to know.

    Raises :class:`OSError` for a file that cannot be read.
    """
    if caching is None:
        return lambda: None
    # Files of a model that is not cached matter where it is a step of an ensemble that is: then stamps have to do.
    read = config.response_cache.enable
    own = await to_thread.run_sync(lambda: model_identity(config, version, path, contents=read))
    steps = [
        (step.model_name, "" if step.model_version < 0 else str(step.model_version))
        for step in config.ensemble_scheduling.step
    ]
    return (lambda: caching.ensemble_identity(own, steps)) if steps else lambda: own


def cache_before(
    scheduler: Scheduler, caching: ResponseCaching | None, config: ModelConfig, spec: ModelSpec, identity: Identity
) -> ModelCache | None:
    """What stands before the scheduler of a model; ``None`` where its responses are not cached."""
    if not config.response_cache.enable:
        return None
    if caching is None:
        logger.warning(
            "model '%s': 'response_cache' is enabled and this server has no cache, so every request is executed;"
            " start it with --cache-config=local,size=BYTES",
            spec.name,
        )
        return None
    return ModelCache(caching, spec, scheduler.enqueue, identity)


def caching_for(
    registry: PluginRegistry,
    caches: Mapping[str, Mapping[str, str]],
    *,
    answer: Callable[[InferenceRequest, InferenceResponse], None],
    reject: Callable[[InferenceRequest, TrivetError], None],
    find: Callable[[str, str], LoadedModel],
) -> ResponseCaching | None:
    """The response cache of a server whose options name ``caches``, not opened yet; ``None`` where they name none.

    Raises :class:`~trivet.errors.InvalidArgumentError` for more than one, and what :func:`create_cache` does.
    """
    if not caches:
        return None
    if len(caches) > 1:
        raise InvalidArgumentError(
            f"found multiple cache configurations, but only a single cache is currently supported: {sorted(caches)}"
        )
    ((name, options),) = caches.items()
    cache = create_cache(registry, name, dict(options))
    return ResponseCaching(name, cache, answer=answer, reject=reject, find=find)


def create_cache(registry: PluginRegistry, name: str, options: Mapping[str, str]) -> ResponseCache:
    """The cache of that name, not opened yet.

    Raises :class:`~trivet.errors.TrivetError` where it is not installed or refuses its options.
    """
    offer = registry.caches.get(name)
    if offer is None:
        hint = KNOWN_CACHES.get(name)
        installed = ", ".join(sorted(registry.caches)) or "none"
        raise InvalidArgumentError(
            f"unable to find response cache '{name}'; "
            + (f"install it with: {hint}" if hint else f"installed caches are: {installed}")
        )
    return registry.create(offer, ResponseCache, options)


def _copy(response: InferenceResponse, largest: int | None) -> InferenceResponse | None:
    """The response over bytes of its own, so that neither a batch nor a caller's memory lives or changes with it."""
    if any(tensor.on_device for tensor in response.outputs):
        return None
    buffers = [tensor.wire() for tensor in response.outputs]
    if largest is not None and sum(map(_size, buffers)) > largest:
        return None
    outputs = [
        Tensor.from_wire(tensor.name, tensor.datatype, tensor.shape, bytes(buffer))
        for tensor, buffer in zip(response.outputs, buffers, strict=True)
    ]
    return InferenceResponse(outputs, parameters=dict(response.parameters))


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _keep(task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
    """Hold a task until it is done; the loop itself would not."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
