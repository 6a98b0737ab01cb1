from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_servers import RunningRedis, StartRedis, redis_servers


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    with redis_servers(tmp_path) as start:
        yield start


@pytest.fixture
def redis(start_redis: StartRedis) -> RunningRedis:
    return start_redis()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}
