"""The engine with no protocol and a model that does nothing: what the kernel costs a request.

Beside the bare way there and back between an event loop and a thread, which no server with threads can do without.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue

import anyio
import numpy as np
from anyio.from_thread import start_blocking_portal
from trivet import datatypes, hookimpl
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
    RequestInstance,
)
from trivet.engine import Engine
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.loop import LoopInbox
from trivet.plugins import PluginRegistry
from trivet.server import SWITCH_INTERVAL_S
from trivet.tensor import Tensor
from trivet.testing import running_engine

from bench.report import Report
from bench.repositories import repository
from bench.settings import Settings, rounds

CONFIG = """
backend: "nothing"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
"""
NUMBERS = np.ones((1, 16), np.float32)
WIRE = NUMBERS.tobytes()

Submit = Callable[[Callable[[], None]], None]
"""Start one piece of work; the function given is called on the loop when it is done."""


class Arrays(ArrayInstance):
    """Batches in, batches out, at the shallower depth of the contract."""

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        return {"OUTPUT0": inputs["INPUT0"].numpy()}


class Requests(RequestInstance):
    """Requests in, responses out."""

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse]:
        return [InferenceResponse([request.inputs["INPUT0"].renamed("OUTPUT0")]) for request in requests]


class Model(BackendModel):
    def __init__(self, instance: type[BackendInstance]) -> None:
        self._instance = instance

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return self._instance()


class Nothing(Backend):
    """Its models are called for the kind of instance they have, or say it in the parameter ``kind``."""

    def load(self, context: ModelContext) -> BackendModel:
        return Model({"arrays": Arrays, "requests": Requests}[context.parameters.get("kind", context.name)])


class NothingPlugin:
    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="nothing", factory=lambda *_: Nothing(), model_filenames=("model.nothing",))]


def run(settings: Settings, report: Report) -> None:
    with repository() as models:
        for name in ("arrays", "requests"):
            version = models.path / name / "1"
            version.mkdir(parents=True)
            (version / "model.nothing").touch()
            (version.parent / "config.pbtxt").write_text(CONFIG)
        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            _measure(models.path, settings, report)
        finally:
            sys.setswitchinterval(switch_interval)
    for name in ("arrays", "requests"):
        bare = "bare hand-over, 32 in flight, processor time"
        report.difference(f"{name}, the kernel's share", f"{name}, 32 in flight, processor time", bare)


def _measure(models: Path, settings: Settings, report: Report) -> None:
    registry = PluginRegistry.of(nothing=NothingPlugin())
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(running_engine(models, registry=registry)) as engine,
        portal.wrap_async_context_manager(_bare()) as bare,
    ):
        contenders: dict[str, Submit] = {
            "bare hand-over": bare,
            "arrays": through(engine, "arrays"),
            "requests": through(engine, "requests"),
        }

        def run(name: str, in_flight: int) -> tuple[float, float]:
            return report.quietly(lambda: portal.call(closed_loop, contenders[name], in_flight, settings.seconds))

        for order in rounds(settings, report, tuple(contenders)):
            for name in order:
                rate, spent_us = run(name, 32)
                report.add(f"{name}, 32 in flight", rate, "requests/s")
                report.add(f"{name}, 32 in flight, processor time", spent_us, "µs/request")
                rate, _ = run(name, 1)
                report.add(f"{name}, one at a time", 1e6 / rate, "µs/request")


def through(engine: Engine, model: str) -> Submit:
    def submit(done: Callable[[], None]) -> None:
        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            if response.error is not None:
                raise response.error
            done()

        tensor = Tensor.from_wire("INPUT0", datatypes.FP32, (1, 16), WIRE)
        engine.submit(InferenceRequest(model, {"INPUT0": tensor}, on_response=on_response))

    return submit


@asynccontextmanager
async def _bare() -> AsyncIterator[Submit]:
    """A thread that hands back whatever it is given, woken and waking the way the kernel does it."""
    queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    inbox: LoopInbox[Callable[[], None]] = LoopInbox(asyncio.get_running_loop(), lambda done: done())

    def work() -> None:
        while (done := queue.get()) is not None:
            inbox.post(done)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield queue.put
    finally:
        queue.put(None)
        thread.join()


async def closed_loop(submit: Submit, in_flight: int, seconds: float) -> tuple[float, float]:
    """Keep ``in_flight`` pieces of work under way. Gives pieces a second, and processor time for each in µs."""
    count, open_, end = 0, in_flight, time.perf_counter() + seconds
    finished = anyio.Event()

    def done() -> None:
        nonlocal count, open_
        count += 1
        if time.perf_counter() < end:
            submit(done)
        else:
            open_ -= 1
            if not open_:
                finished.set()

    began, spent = time.perf_counter(), time.process_time()
    for _ in range(in_flight):
        submit(done)
    await finished.wait()
    return count / (time.perf_counter() - began), (time.process_time() - spent) / count * 1e6
