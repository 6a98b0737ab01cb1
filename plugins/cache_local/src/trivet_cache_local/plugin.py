"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import CachePlugin, hookimpl


@hookimpl
def trivet_response_caches() -> Sequence[CachePlugin]:
    """The one cache of this package."""
    return (
        CachePlugin(
            name="local",
            factory="trivet_cache_local.cache:create",
            description="in the server's own memory, the least recently used responses leave first",
        ),
    )
