from __future__ import annotations

from trivet.testing.conformance import CacheConformance


class TestLocalCache(CacheConformance):
    cache = "local"

    def options(self) -> dict[str, str]:
        return {"size": "1048576"}
