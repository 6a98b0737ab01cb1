"""What a step of an ensemble costs: three identity models against one, one request at a time, with no protocol."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import trivet_scheduler_ensemble.plugin
from anyio.from_thread import start_blocking_portal
from trivet.backend import Backend, BackendModel, InstanceContext, ModelContext, RequestInstance
from trivet.engine import Engine
from trivet.hookspecs import BackendPlugin, hookimpl
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.server import SWITCH_INTERVAL_S
from trivet.tensor import Tensor
from trivet.testing import running_engine

from bench.report import Report
from bench.repositories import repository
from bench.settings import Settings, rounds

TENSORS = """
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
"""
STEP = """{{
  model_name: "identity" model_version: -1
  input_map {{ key: "INPUT0" value: "{}" }}
  output_map {{ key: "OUTPUT0" value: "{}" }}
}}"""


class Identity(RequestInstance):
    """Gives its input back."""

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse]:
        return [InferenceResponse([request.inputs["INPUT0"].renamed("OUTPUT0")]) for request in requests]


class Model(BackendModel):
    def create_instance(self, context: InstanceContext) -> Identity:
        return Identity()


class Identities(Backend):
    def load(self, context: ModelContext) -> BackendModel:
        return Model()


class Plugin:
    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [BackendPlugin(name="identities", factory=Identities)]


def run(settings: Settings, report: Report) -> None:
    contenders = {"the model itself": "identity", "ensemble of 1": "ensemble1", "ensemble of 3": "ensemble3"}
    with repository() as models:
        write(models.path, "identity", 'backend: "identities"')
        for steps in (1, 3):
            names = ["INPUT0", *(f"t{number}" for number in range(1, steps)), "OUTPUT0"]
            maps = ", ".join(STEP.format(*pair) for pair in pairwise(names))
            write(models.path, f"ensemble{steps}", f'platform: "ensemble" ensemble_scheduling {{ step [ {maps} ] }}')
        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            registry = PluginRegistry.of(identities=Plugin(), ensembles=trivet_scheduler_ensemble.plugin)
            with (
                start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
                portal.wrap_async_context_manager(running_engine(models.path, registry=registry)) as engine,
            ):
                for order in rounds(settings, report, tuple(contenders)):
                    for name in order:
                        model = contenders[name]
                        median = report.quietly(partial(portal.call, one_at_a_time, engine, model, settings.seconds))
                        report.add(f"{name}, one at a time, p50", median, "µs/request")
        finally:
            sys.setswitchinterval(switch_interval)
    report.difference("two more steps", "ensemble of 3, one at a time, p50", "ensemble of 1, one at a time, p50")
    report.difference("the first step", "ensemble of 1, one at a time, p50", "the model itself, one at a time, p50")


def write(models: Path, name: str, config: str) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "config.pbtxt").write_text(config + TENSORS)


async def one_at_a_time(engine: Engine, model: str, seconds: float) -> float:
    """The median of what a request takes, in µs."""
    numbers = np.ones((1, 16), np.float32)
    times: list[int] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        request = InferenceRequest(model, {"INPUT0": Tensor.from_numpy("INPUT0", numbers)})
        began = time.perf_counter_ns()
        response = await engine.infer(request)
        times.append(time.perf_counter_ns() - began)
        if response.error is not None:
            raise response.error
    return float(np.median(times)) / 1e3
