"""The response cache, with no protocol and a model that does nothing: what a hit costs, and what a miss adds.

A miss is looked up in vain, executed, and inserted, and pushes an older response out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from anyio.from_thread import start_blocking_portal
from trivet import datatypes, hookimpl
from trivet.backend import Backend, BackendModel, ModelContext
from trivet.engine import Engine
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_cache_local import plugin as cache_local

from bench.figures.engine import Arrays, Model, Submit, closed_loop
from bench.report import Report
from bench.repositories import repository
from bench.settings import Settings, rounds

CONFIG = """
backend: "nothing"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
FLOATS = {"64 bytes": 16, "64 KB": 16 * 1024}
CACHE_BYTES = 64 * 1024 * 1024


class Nothing(Backend):
    def load(self, context: ModelContext) -> BackendModel:
        return Model(Arrays)


class NothingPlugin:
    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="nothing", factory=lambda *_: Nothing(), model_filenames=("model.nothing",))]


def run(settings: Settings, report: Report) -> None:
    with repository() as models:
        for name, cached in (("plain", "false"), ("cached", "true")):
            version = models.path / name / "1"
            version.mkdir(parents=True)
            (version / "model.nothing").touch()
            (version.parent / "config.pbtxt").write_text(CONFIG + f"response_cache {{ enable: {cached} }}")
        _measure(models.path, settings, report)
    for size in FLOATS:
        executed = f"{size}, execution, processor time"
        for what in ("hit", "miss"):
            report.ratio(f"{size}, {what} / execution, processor time", f"{size}, {what}, processor time", executed)
            report.difference(f"{size}, {what} less execution", f"{size}, {what}, processor time", executed)


def _measure(models: Path, settings: Settings, report: Report) -> None:
    registry = PluginRegistry.of(nothing=NothingPlugin(), cache=cache_local)
    serving = running_engine(models, registry=registry, cache_config={"local": {"size": str(CACHE_BYTES)}})
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(serving) as engine,
    ):
        contenders: dict[str, Submit] = {}
        for size, floats in FLOATS.items():
            same = np.ones(floats, np.float32).tobytes()
            contenders[f"{size}, execution"] = _through(engine, "plain", floats, itertools.repeat(same))
            contenders[f"{size}, hit"] = _through(engine, "cached", floats, itertools.repeat(same))
            contenders[f"{size}, miss"] = _through(engine, "cached", floats, _numbered(same))

        def run(name: str) -> tuple[float, float]:
            return report.quietly(lambda: portal.call(closed_loop, contenders[name], 32, settings.seconds))

        for order in rounds(settings, report, tuple(contenders)):
            for name in order:
                rate, spent_us = run(name)
                report.add(name, rate, "requests/s")
                report.add(f"{name}, processor time", spent_us, "µs/request")


def _numbered(data: bytes) -> Iterator[bytes]:
    """Contents that no request before had."""
    for number in itertools.count():
        yield number.to_bytes(8, "little") + data[8:]


def _through(engine: Engine, model: str, floats: int, contents: Iterator[bytes]) -> Submit:
    def submit(done: Callable[[], None]) -> None:
        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            if response.error is not None:
                raise response.error
            done()

        tensor = Tensor.from_wire("INPUT0", datatypes.FP32, (1, floats), next(contents))
        engine.submit(InferenceRequest(model, {"INPUT0": tensor}, on_response=on_response))

    return submit
