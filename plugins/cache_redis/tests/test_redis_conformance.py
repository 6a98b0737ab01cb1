from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_servers import redis_servers
from trivet.testing.conformance import CacheConformance


class TestRedisCache(CacheConformance):
    cache = "redis"

    @pytest.fixture(autouse=True)
    def server(self, tmp_path: Path) -> Iterator[None]:
        with redis_servers(tmp_path) as start:
            self.port = start().port
            yield

    def options(self) -> dict[str, str]:
        return {"host": "127.0.0.1", "port": str(self.port)}
