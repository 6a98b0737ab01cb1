"""Metrics of the server's response cache: those that Triton has of its local cache, and Trivet's own.

Triton's are gauges, also where they only grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trivet_exporter_prometheus.families import Family, Kind, label_text

if TYPE_CHECKING:
    from trivet.engine import Engine


def collect(engine: Engine) -> Iterator[Family]:
    """The families; none where the server has no cache. On the event loop."""
    caching = engine.response_cache
    if caching is None:
        return
    labels = label_text({"cache": caching.name})
    counters = caching.counters
    rows: list[tuple[str, str, Kind, float]] = []
    usage = caching.cache.usage
    if usage is not None:
        looked_up = counters.hits + counters.misses
        util = usage.bytes / usage.capacity_bytes
        for name, description, value in (
            ("nv_cache_util", "Cache utilization [0.0 - 1.0]", util),
            ("nv_cache_num_entries", "Number of responses stored in response cache", usage.entries),
            ("nv_cache_num_hits", "Number of cache hits in response cache", counters.hits),
            ("nv_cache_num_misses", "Number of cache misses in response cache", counters.misses),
            ("nv_cache_num_lookups", "Number of cache lookups in response cache", looked_up),
            ("nv_cache_num_evictions", "Number of cache evictions in response cache", usage.evictions),
            (
                "nv_cache_lookup_duration",
                "Total cache lookup duration (hit and miss), in microseconds",
                counters.lookup_ns // 1000,
            ),
            (
                "nv_cache_insertion_duration",
                "Total cache insertion duration, in microseconds",
                counters.insertion_ns // 1000,
            ),
        ):
            family = Family(name, description, "gauge")
            family.add("", value)
            yield family
        rows += [
            ("trivet_cache_bytes", "What the responses in the cache occupy, in bytes", "gauge", usage.bytes),
            ("trivet_cache_capacity_bytes", "What they may occupy, in bytes", "gauge", usage.capacity_bytes),
        ]
    rows += [
        ("trivet_cache_insertions_total", "Responses that were given to the cache", "counter", counters.insertions),
        ("trivet_cache_failures_total", "Lookups and insertions that failed", "counter", counters.failures),
        ("trivet_cache_skipped_total", "Requests that were executed without a lookup", "counter", counters.skipped),
    ]
    for name, description, kind, value in rows:
        family = Family(name, description, kind)
        family.add(labels, value)
        yield family
