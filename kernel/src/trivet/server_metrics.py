"""Metrics of the server as a whole, for exporters: its response cache, memory pools and event loop. On the event loop.

What Triton has of its cache are gauges, also where they only grow.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from trivet.memory import MemoryProvider
from trivet.metrics import Labels, MetricKind, Reading, Sample

if TYPE_CHECKING:
    from trivet.engine import Engine

_LAG_INTERVAL_S = 0.1
_LAG_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


def read_cache(engine: Engine) -> Iterator[Reading]:
    """Triton's families of its local cache, and Trivet's own of any; none where the server has no cache."""
    caching = engine.response_cache
    if caching is None:
        return
    own: Labels = (("cache", caching.name),)
    counters = caching.counters
    gauge, counter = MetricKind.GAUGE, MetricKind.COUNTER
    usage = caching.cache.usage
    if usage is not None:
        util = usage.bytes / usage.capacity_bytes
        looked_up = counters.hits + counters.misses
        yield _of("nv_cache_util", "Cache utilization [0.0 - 1.0]", gauge, util)
        yield _of("nv_cache_num_entries", "Number of responses stored in response cache", gauge, usage.entries)
        yield _of("nv_cache_num_hits", "Number of cache hits in response cache", gauge, counters.hits)
        yield _of("nv_cache_num_misses", "Number of cache misses in response cache", gauge, counters.misses)
        yield _of("nv_cache_num_lookups", "Number of cache lookups in response cache", gauge, looked_up)
        yield _of("nv_cache_num_evictions", "Number of cache evictions in response cache", gauge, usage.evictions)
        for name, text, ns in (
            ("lookup", "Total cache lookup duration (hit and miss), in microseconds", counters.lookup_ns),
            ("insertion", "Total cache insertion duration, in microseconds", counters.insertion_ns),
        ):
            yield _of(f"nv_cache_{name}_duration", text, gauge, ns // 1000)
        yield _of("trivet_cache_bytes", "What the responses in the cache occupy, in bytes", gauge, usage.bytes, own)
        capacity = usage.capacity_bytes
        yield _of("trivet_cache_capacity_bytes", "What they may occupy, in bytes", gauge, capacity, own)
    for name, text, count in (
        ("insertions", "Responses that were given to the cache", counters.insertions),
        ("failures", "Lookups and insertions that failed", counters.failures),
        ("skipped", "Requests that were executed without a lookup", counters.skipped),
    ):
        yield _of(f"trivet_cache_{name}_total", text, counter, count, own)


def read_pools(providers: Iterable[MemoryProvider]) -> Iterator[Reading]:
    """The pools that memory providers keep; Triton has the families of pinned memory alone."""
    pools = [pool for provider in providers for pool in provider.pools()]
    for kind, name, what in (
        ("pinned", "nv_pinned_memory_pool", "Pinned memory pool"),
        ("cuda", "trivet_cuda_memory_pool", "CUDA memory pool"),
    ):
        chosen = [(pool, (("gpu", str(pool.device)),) if kind == "cuda" else ()) for pool in pools if pool.kind == kind]
        if chosen:
            total = [Sample(labels, pool.total_bytes) for pool, labels in chosen]
            used = [Sample(labels, pool.used_bytes) for pool, labels in chosen]
            yield Reading(f"{name}_total_bytes", f"{what} total memory size, in bytes", MetricKind.GAUGE, total)
            yield Reading(f"{name}_used_bytes", f"{what} used memory size, in bytes", MetricKind.GAUGE, used)


def _of(name: str, description: str, kind: MetricKind, value: float, labels: Labels = ()) -> Reading:
    return Reading(name, description, kind, [Sample(labels, value)])


class LoopLag:
    """How late the event loop is: the first thing to look at where a server is slow and its models are not.

    Asks the loop to call back ten times a second, and notes how much later it does.
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(_LAG_SECONDS) + 1)
        self._total_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._due_s = loop.time() + _LAG_INTERVAL_S
        self._timer = loop.call_at(self._due_s, self._called)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> Reading:
        """The histogram so far."""
        buckets = tuple(zip((*_LAG_SECONDS, inf), accumulate(self._counts), strict=True))
        return Reading(
            "trivet_event_loop_lag_seconds",
            "How much later than due the event loop ran a timer",
            MetricKind.HISTOGRAM,
            [Sample((), self._total_s, buckets)],
        )

    def _called(self) -> None:
        # Some loops call a timer up to a clock tick early.
        lag_s = max(0.0, asyncio.get_running_loop().time() - self._due_s)
        self._counts[bisect_left(_LAG_SECONDS, lag_s)] += 1
        self._total_s += lag_s
        self.start()
