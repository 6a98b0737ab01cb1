"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import MemoryPlugin, hookimpl


@hookimpl
def trivet_memory_providers() -> Sequence[MemoryPlugin]:
    """The one provider of this package."""
    return (
        MemoryPlugin(
            name="system",
            factory="trivet_memory_system.provider:SystemMemory",
            description="POSIX shared memory (/dev/shm), by the system shared memory extension",
        ),
    )
