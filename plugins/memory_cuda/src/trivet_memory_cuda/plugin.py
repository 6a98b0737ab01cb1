"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import MemoryPlugin, hookimpl

from trivet_memory_cuda.options import OPTIONS


@hookimpl
def trivet_memory_providers() -> Sequence[MemoryPlugin]:
    """The one provider of this package."""
    return (
        MemoryPlugin(
            name="cuda",
            factory="trivet_memory_cuda.provider:CudaMemory",
            description="memory on a GPU, by the CUDA shared memory extension; pools of pinned and of GPU memory",
            options=OPTIONS,
        ),
    )
