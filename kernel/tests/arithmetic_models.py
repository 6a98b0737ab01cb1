"""Models of the arithmetic backend, an engine that serves them, and a way to ask them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
from arithmetic_backend import ArithmeticPlugin
from trivet.engine import Engine
from trivet.inference import InferenceRequest
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine


class Repository:
    """A model repository in the making."""

    def __init__(self, path: Path, plugin: ArithmeticPlugin) -> None:
        self.path = path
        self._plugin = plugin

    def add(self, name: str, config: str = "", **factors: float) -> None:
        """A model with versions ``v1=2.0, v3=...``; ``config`` is text of a ``config.pbtxt``."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        if config:
            (folder / "config.pbtxt").write_text(config)
        for version, factor in (factors or {"v1": 2.0}).items():
            (folder / version[1:]).mkdir(exist_ok=True)
            (folder / version[1:] / "model.arith").write_text(str(factor))

    def serve(self, **options: Any) -> AbstractAsyncContextManager[Engine]:
        return running_engine(self.path, registry=PluginRegistry.of(arithmetic=self._plugin), **options)


def request(model: str = "double", *values: float, version: str = "", **fields: Any) -> InferenceRequest:
    array = np.array(values or (1.0,), np.float32)
    return InferenceRequest(model, {"x": Tensor.from_numpy("x", array)}, model_version=version, **fields)


async def ask(engine: Engine, model: str = "double", *values: float, version: str = "") -> list[float]:
    response = await engine.infer(request(model, *values, version=version))
    if response.error:
        raise response.error
    return response.outputs[0].numpy().tolist()
