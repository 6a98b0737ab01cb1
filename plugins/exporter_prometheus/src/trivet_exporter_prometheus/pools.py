"""Metrics of the memory pools that memory providers keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trivet.memory import MemoryProvider

from trivet_exporter_prometheus.families import Family, label_text


def collect(providers: Iterable[MemoryProvider]) -> Iterator[Family]:
    """The families; none where no provider has a pool. Triton has those of pinned memory alone."""
    pools = [pool for provider in providers for pool in provider.pools()]
    for kind, name, what in (
        ("pinned", "nv_pinned_memory_pool", "Pinned memory pool"),
        ("cuda", "trivet_cuda_memory_pool", "CUDA memory pool"),
    ):
        chosen = [(label_text({"gpu": str(pool.device)}) if kind == "cuda" else "", pool)
                  for pool in pools if pool.kind == kind]  # fmt: skip
        if chosen:
            total = Family(f"{name}_total_bytes", f"{what} total memory size, in bytes", "gauge")
            used = Family(f"{name}_used_bytes", f"{what} used memory size, in bytes", "gauge")
            for labels, pool in chosen:
                total.add(labels, pool.total_bytes)
                used.add(labels, pool.used_bytes)
            yield from (total, used)
