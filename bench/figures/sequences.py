"""Ten thousand live sequences on one model: what a request costs beside ten of them, and what they take of memory.

Within an engine, without a protocol: a model that does nothing, with control inputs and a state of 1 KB for each
sequence. The sequences take turns, so that all of them stay alive.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle

import anyio
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
)
from trivet.engine import Engine
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.server import SWITCH_INTERVAL_S
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_scheduler_sequence import plugin

from bench import machine
from bench.figures.engine import WIRE, Submit, closed_loop
from bench.report import Report, at_most
from bench.repositories import repository
from bench.settings import Settings, rounds

SEQUENCES = (10, 10_000)
IN_FLIGHT = 8
CONFIG = """
backend: "remembering"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
sequence_batching {
  oldest { max_candidate_sequences: 10000 }
  max_sequence_idle_microseconds: 3600000000
  control_input [
    { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  ]
  state [ { input_name: "state" output_name: "next_state" data_type: TYPE_FP32 dims: [ 256 ] } ]
}
"""


class Remembering(ArrayInstance):
    """Gives back what it is given, the state included."""

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        return {"OUTPUT0": inputs["INPUT0"].numpy(), "next_state": inputs["state"].numpy()}


class Model(BackendModel):
    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return Remembering()


class RememberingBackend(Backend):
    def load(self, context: ModelContext) -> BackendModel:
        return Model()


class RememberingPlugin:
    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="remembering", factory=lambda *_: RememberingBackend())]


def run(settings: Settings, report: Report) -> None:
    registry = PluginRegistry.of(remembering=RememberingPlugin(), sequence=plugin)
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with repository() as models:
            for count in SEQUENCES:
                version = models.path / f"of_{count}" / "1"
                version.mkdir(parents=True)
                (version.parent / "config.pbtxt").write_text(CONFIG)
            with (
                start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
                portal.wrap_async_context_manager(running_engine(models.path, registry=registry)) as engine,
            ):
                submits = {count: through(engine, f"of_{count}", count) for count in SEQUENCES}
                before = machine.resident_bytes(os.getpid())
                for count in SEQUENCES:
                    portal.call(started, submits[count], count)
                grown = (machine.resident_bytes(os.getpid()) - before) / 2**20
                report.add("memory of all sequences", grown, "MB", at_most(200))
                for order in rounds(settings, report, SEQUENCES):
                    for count in order:
                        measure = partial(portal.call, closed_loop, submits[count], IN_FLIGHT, settings.seconds)
                        rate, spent_us = report.quietly(measure)
                        report.add(f"{count:,} sequences", rate, "requests/s")
                        report.add(f"{count:,} sequences, processor time", spent_us, "µs/request")
    finally:
        sys.setswitchinterval(switch_interval)
    few, many = (f"{count:,} sequences, processor time" for count in SEQUENCES)
    report.ratio("processor time, many over few", many, few, at_most(1.5))


def through(engine: Engine, model: str, sequences: int) -> Submit:
    """Steps of the model's sequences in turn; the first of each starts it."""
    ids = cycle(range(1, sequences + 1))
    begun = 0

    def submit(done: Callable[[], None]) -> None:
        nonlocal begun

        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            if response.error is not None:
                raise response.error
            done()

        tensor = Tensor.from_wire("INPUT0", datatypes.FP32, (1, 16), WIRE)
        start = begun < sequences
        begun += start
        engine.submit(
            InferenceRequest(
                model, {"INPUT0": tensor}, on_response=on_response, correlation_id=next(ids), sequence_start=start
            )
        )

    return submit


async def started(submit: Submit, sequences: int) -> None:
    """One step of each sequence."""
    left = sequences
    all_done = anyio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if left >= IN_FLIGHT:
            submit(done)
        elif not left:
            all_done.set()

    for _ in range(IN_FLIGHT):
        submit(done)
    await all_done.wait()
