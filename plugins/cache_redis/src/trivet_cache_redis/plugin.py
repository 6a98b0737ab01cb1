"""What this package offers to Trivet. Imports no client."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.hookspecs import CachePlugin, hookimpl


@hookimpl
def trivet_response_caches() -> Sequence[CachePlugin]:
    """The one cache of this package."""
    return (
        CachePlugin(
            name="redis",
            factory="trivet_cache_redis.cache:create",
            description="in Redis or Valkey, shared by servers and kept over restarts",
        ),
    )
