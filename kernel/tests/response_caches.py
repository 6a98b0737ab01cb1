"""Caches for tests: one that answers at once, one that answers later and one that fails; and a server of models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from arithmetic_backend import ArithmeticPlugin
from trivet import hookimpl
from trivet.engine import Engine
from trivet.extensions import ResponseCache
from trivet.hookspecs import CachePlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine

CACHED = "response_cache { enable: true } "
BATCHED = (
    CACHED + "max_batch_size: 4 "
    'input { name: "x" data_type: TYPE_FP32 dims: 2 } output { name: "y" data_type: TYPE_FP32 dims: 2 }'
)


class DictCache(ResponseCache):
    """Answers at once and forgets nothing."""

    def __init__(self) -> None:
        self.entries: dict[bytes, InferenceResponse] = {}
        self.opened = self.closed = False
        self.limit: int | None = None

    @property
    def largest_response(self) -> int | None:
        return self.limit

    async def open(self) -> None:
        self.opened = True

    def lookup(self, key: bytes) -> InferenceResponse | Awaitable[InferenceResponse | None] | None:
        return self.entries.get(key)

    def insert(self, key: bytes, response: InferenceResponse) -> Awaitable[None] | None:
        self.entries[key] = response
        return None

    async def close(self) -> None:
        self.closed = True


class RemoteCache(DictCache):
    """Answers later: when the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def lookup(self, key: bytes) -> InferenceResponse | None:  # type: ignore[override]
        self.asked += 1
        await self.gate.wait()
        return self.entries.get(key)

    async def insert(self, key: bytes, response: InferenceResponse) -> None:  # type: ignore[override]
        await self.gate.wait()
        self.entries[key] = response


class BrokenCache(DictCache):
    """Raises what the test says, at every lookup and insertion."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    def lookup(self, key: bytes) -> InferenceResponse | None:
        self.asked += 1
        raise self.error

    def insert(self, key: bytes, response: InferenceResponse) -> None:
        raise self.error


class CachesPlugin:
    """Offers a cache called ``test``, made by the test."""

    def __init__(self, make: Callable[[], ResponseCache]) -> None:
        self.make = make
        self.options: Mapping[str, str] = {}

    @hookimpl
    def trivet_response_caches(self) -> Sequence[CachePlugin]:
        return [CachePlugin(name="test", factory=self._make)]

    def _make(self, options: Mapping[str, str]) -> ResponseCache:
        self.options = options
        return self.make()


class House:
    """Models in the making, and the backend that serves them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arithmetic = ArithmeticPlugin()
        self.executions = self.arithmetic.journal.batches

    def add(self, name: str = "double", config: str = CACHED, factor: float = 2.0) -> None:
        folder = self.path / name / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "config.pbtxt").write_text(config)
        (folder / "model.arith").write_text(str(factor))

    @asynccontextmanager
    async def serve(self, cache: ResponseCache | Callable[[], ResponseCache], **options: Any) -> AsyncIterator[Engine]:
        plugin = CachesPlugin(cache if callable(cache) else lambda: cache)
        registry = PluginRegistry.of(arithmetic=self.arithmetic, caches=plugin)
        options = {"cache_config": {"test": {}}, "model_control_mode": "explicit", "load_models": ["*"], **options}
        async with running_engine(self.path, registry=registry, **options) as engine:
            yield engine


def request(*values: float, model: str = "double", shape: tuple[int, ...] = (-1,), **fields: Any) -> InferenceRequest:
    array = np.array(values or (1.0,), np.float32).reshape(shape)
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", array)}, **fields)


async def ask(engine: Engine, *values: float, **fields: Any) -> list[Any]:
    response = await engine.infer(request(*values, **fields))
    if response.error:
        raise response.error
    return response.outputs[0].numpy().tolist()
