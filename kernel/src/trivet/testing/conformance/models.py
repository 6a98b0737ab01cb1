"""Models of the kits' own, for the families that do not execute any, in a backend called ``conformance``.

``double`` answers ``y = 2 x`` (FP32, any length, batches of up to 4), ``fails`` raises, and ``waits`` answers when the
test lets it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trivet import hookimpl
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
)
from trivet.errors import InternalError
from trivet.hookspecs import BackendPlugin, ProtocolPlugin
from trivet.plugins import PluginRegistry
from trivet.service import Protocol
from trivet.tensor import Tensor

FAILURE = "this model always fails"

CONFIG = """
backend: "conformance"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
"""


@dataclass
class KitModels:
    """The models of one test."""

    started: threading.Event = field(default_factory=threading.Event)
    """Set when ``waits`` begins to execute."""
    gate: threading.Event = field(default_factory=threading.Event)
    """``waits`` answers when this is set."""
    executed: list[int] = field(default_factory=list)
    """The rows of each batch that was executed, in the order in which they ended."""

    def write(self, repository: Path, **more: str) -> None:
        """Write the three models, and further ones as name and further text of a configuration."""
        for name, text in {"double": "", "fails": "", "waits": "", **more}.items():
            (repository / name / "1").mkdir(parents=True)
            own = text if "platform:" in text or "backend:" in text else CONFIG + text
            (repository / name / "config.pbtxt").write_text(own, encoding="utf-8")

    def registry(self) -> PluginRegistry:
        """What is installed, this backend, and a protocol that serves nothing: no server starts without one."""
        own = PluginRegistry.of(conformance=_KitPlugin(self)).plugins
        return PluginRegistry([*PluginRegistry.discover().plugins, *own])


class _KitPlugin:
    def __init__(self, models: KitModels) -> None:
        self._models = models

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="conformance", factory=lambda: _KitBackend(self._models))]

    @hookimpl
    def trivet_protocols(self) -> Sequence[ProtocolPlugin]:
        return [ProtocolPlugin(name="conformance", factory=lambda _context: _KitProtocol())]


class _KitProtocol(Protocol):
    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self, grace_s: float) -> None:
        """Nothing to close."""


class _KitBackend(Backend):
    def __init__(self, models: KitModels) -> None:
        self._models = models

    def load(self, context: ModelContext) -> BackendModel:
        return _KitModel(context.name, self._models)


class _KitModel(BackendModel):
    def __init__(self, name: str, models: KitModels) -> None:
        self._name = name
        self._models = models

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return _KitInstance(self._name, self._models)


class _KitInstance(ArrayInstance):
    def __init__(self, name: str, models: KitModels) -> None:
        self._name = name
        self._models = models

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        if self._name == "fails":
            raise InternalError(FAILURE)
        if self._name == "waits":
            self._models.started.set()
            self._models.gate.wait(60)
        x = inputs["x"].numpy()
        self._models.executed.append(len(x))
        return {"y": 2 * x.astype(np.float32)}
