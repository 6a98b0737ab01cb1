"""What stands before the scheduler of a model whose responses are cached, and what it notes on each request.

A cache that answers at once costs no task; for one behind a network, and for the digest of large inputs, the request
waits in a task, of which :class:`~trivet.caching.ResponseCaching` allows a bounded number.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from anyio import to_thread

from trivet.cache_key import KeyMaterial, key_material
from trivet.errors import InternalError, TrivetError, message_of, named_message_of
from trivet.inference import InferenceRequest, InferenceResponse

if TYPE_CHECKING:
    from trivet.caching import ResponseCaching
    from trivet.config.spec import ModelSpec
    from trivet.lifecycle import LoadedModel

logger = logging.getLogger(__name__)

HASHED_ON_LOOP = 256 * 1024
"""Bytes of inputs whose digest is made on the event loop (in some 130 us); more goes to a thread."""


class Hit:
    """A request that is answered from the cache."""

    __slots__ = ("_lookup_ns", "_start_ns")

    def __init__(self, start_ns: int, lookup_ns: int) -> None:
        self._start_ns = start_ns
        self._lookup_ns = lookup_ns

    def forget(self) -> None:
        """See :meth:`Miss.forget`."""
        return

    def succeeded(self, model: LoadedModel, request: InferenceRequest, response: InferenceResponse, now: int) -> None:
        """Count it."""
        model.statistics.request_hit(request, self._start_ns, self._lookup_ns, now)


class Miss:
    """A request that was looked up in vain, and whose response the cache is to have."""

    __slots__ = ("_caching", "_forget", "_key", "_lookup_ns", "_still_true")

    def __init__(self, caching: ResponseCaching, key: bytes, lookup_ns: int, still_true: Callable[[], bool]) -> None:
        self._caching = caching
        self._key = key
        self._lookup_ns = lookup_ns
        self._still_true = still_true
        self._forget = False

    def forget(self) -> None:
        """The model answers in parts; there will be no one response to remember."""
        self._forget = True

    def succeeded(self, model: LoadedModel, request: InferenceRequest, response: InferenceResponse, now: int) -> None:
        """Remember the response, before anybody else sees it, and count the request."""
        if not self._forget and self._still_true():
            self._caching.insert(self._key, response, model)
        model.statistics.request_missed(request, now, self._lookup_ns + perf_counter_ns() - now)


class ModelCache:
    """Stands before the scheduler of one model version. Made by :func:`trivet.caching.cache_before`."""

    def __init__(
        self,
        caching: ResponseCaching,
        spec: ModelSpec,
        schedule: Callable[[InferenceRequest], None],
        identity: Callable[[], bytes | None],
    ) -> None:
        self._caching = caching
        self._spec = spec
        self._schedule = schedule
        self._identity = identity

    def enqueue(self, request: InferenceRequest) -> None:
        """Take a validated request, as :meth:`trivet.scheduling.Scheduler.enqueue` does."""
        caching = self._caching
        material = identity = None
        if not (request.correlation_id or request.sequence_start or request.sequence_end or caching.saturated):
            identity = self._identity()
            if identity is not None:
                material = self._material(identity, request)
        if material is None or identity is None:
            caching.counters.skipped += 1
            self._schedule(request)
            return
        start_ns = perf_counter_ns()
        if material.size > HASHED_ON_LOOP:
            caching.run(self._look_up_later(request, identity, material, start_ns))
            return
        key = material.digest()
        found = caching.lookup(key)
        if found is None or isinstance(found, InferenceResponse):
            self._looked_up(request, identity, key, found, start_ns)
        else:
            caching.run(self._wait(request, identity, key, found, start_ns))

    def _material(self, identity: bytes, request: InferenceRequest) -> KeyMaterial | None:
        try:
            return key_material(identity, self._spec, request)
        except Exception as error:  # noqa: BLE001 - a framework's tensor that cannot be read; the model is to say so
            logger.debug("a request of model '%s' has no key: %s", self._spec.name, message_of(error))
            return None

    async def _look_up_later(
        self, request: InferenceRequest, identity: bytes, material: KeyMaterial, start_ns: int
    ) -> None:
        key = await to_thread.run_sync(material.digest, limiter=self._caching.hashing)
        found = self._caching.lookup(key)
        if found is not None and not isinstance(found, InferenceResponse):
            found = await self._caching.lookup_result(found)
        self._proceed(request, identity, key, found, start_ns)

    async def _wait(
        self,
        request: InferenceRequest,
        identity: bytes,
        key: bytes,
        lookup: Awaitable[InferenceResponse | None],
        start_ns: int,
    ) -> None:
        self._proceed(request, identity, key, await self._caching.lookup_result(lookup), start_ns)

    def _proceed(
        self, request: InferenceRequest, identity: bytes, key: bytes, found: InferenceResponse | None, start_ns: int
    ) -> None:
        """What :meth:`enqueue` does at the end, when nobody who called it is there any more to hear of an error."""
        model = request.model
        if model is None or request not in model.in_flight:
            return  # it was cancelled while it waited, and has its answer
        try:
            self._looked_up(request, identity, key, found, start_ns)
        except TrivetError as error:
            self._caching.reject(request, error)
        except Exception as error:
            logger.exception("model '%s' failed to queue a request", self._spec.name)
            self._caching.reject(request, InternalError(named_message_of(error)))

    def _looked_up(
        self, request: InferenceRequest, identity: bytes, key: bytes, found: InferenceResponse | None, start_ns: int
    ) -> None:
        caching = self._caching
        lookup_ns = perf_counter_ns() - start_ns
        caching.counters.lookup_ns += lookup_ns
        if found is None:
            caching.counters.misses += 1
            request.cache_access = Miss(caching, key, lookup_ns, lambda: self._identity() == identity)
            self._schedule(request)
            return
        caching.counters.hits += 1
        request.cache_access = Hit(start_ns, lookup_ns)
        request.done = True
        # Views of its own for every caller: a tensor keeps what it was decoded into, which a caller may write to.
        outputs = [tensor.renamed(tensor.name) for tensor in found.outputs]
        caching.answer(request, InferenceResponse(outputs, parameters=found.parameters))
