"""MiniLM while the load changes: answers within 100 ms, with `max_queue_delay: auto` and with fixed settings.

Arrivals are open-loop (Poisson, the same times for all contenders): a share of what the model can do, more than that
for a while, and then a share again. An answer counts from the time at which its request was due.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random

import anyio
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal
from numpy.typing import NDArray
from trivet.engine import Engine
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.server import SWITCH_INTERVAL_S
from trivet.tensor import Tensor
from trivet.testing import running_engine

from bench.report import Report, at_least
from bench.repositories import SENTENCE_EMBEDDING, repository
from bench.settings import Settings, rounds

OBJECTIVE_MS = 100
LOAD = ((0.3, 0.2), (0.8, 0.2), (1.4, 0.2), (0.6, 0.4))
"""Phases: the share of the model's capacity that is offered, and the part of the time."""
TOKENS = 16
DELAYS_MS = (0, 1, 5, 20)
LIMITS = (4, 16, 64)
AUTO = "auto"
Inputs = dict[str, NDArray[np.int64]]
CONFIG = """
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
"""


def run(settings: Settings, report: Report) -> None:
    with engine() as (portal, running):
        ids = np.arange(1000, 1000 + TOKENS, dtype=np.int64).reshape(1, TOKENS)
        inputs: Inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        fixed = [f"delay {delay} ms, batches to {limit}" for limit in LIMITS for delay in DELAYS_MS]
        names = [AUTO, *fixed]
        for order in rounds(settings, report, names):
            capacity = portal.call(_capacity, running, inputs)
            report.add("capacity at batches to 16", capacity, "requests/s")
            arrivals = _arrivals(capacity, 4 * settings.seconds, len(report.quantities))
            for name in order:
                latencies = report.quietly(partial(portal.call, _offer, running, _model(name), inputs, arrivals))
                within = sum(latency <= OBJECTIVE_MS for latency in latencies)
                report.add(name, within / (4 * settings.seconds), "answers in time/s")
                p99 = statistics.quantiles(latencies, n=100)[98]
                report.add(f"{name}, p99", p99, "ms")
        best = max(fixed, key=lambda name: report.quantities[name].median)
        report.ratio(f"auto / best fixed ({best})", AUTO, best, at_least(1))


def _model(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


@contextmanager
def engine() -> Iterator[tuple[BlockingPortal, Engine]]:
    """One engine with the model in every setting; those that are not asked cost nothing but memory."""
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with repository() as models:
            auto = [("max_queue_delay", "auto"), ("latency_objective_ms", str(OBJECTIVE_MS))]
            parameters = " ".join(
                f'parameters {{ key: "dynamic_batching.{key}" value {{ string_value: "{value}" }} }}'
                for key, value in auto
            )
            models.onnx(
                AUTO, SENTENCE_EMBEDDING, f"{CONFIG} max_batch_size: {LIMITS[-1]} dynamic_batching {{ }} {parameters}"
            )
            for limit in LIMITS:
                for delay in DELAYS_MS:
                    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {1000 * delay} }}"
                    name = _model(f"delay {delay} ms, batches to {limit}")
                    models.onnx(name, SENTENCE_EMBEDDING, f"{CONFIG} max_batch_size: {limit} {batching}")
            with (
                start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
                portal.wrap_async_context_manager(running_engine(models.path)) as running,
            ):
                yield portal, running
    finally:
        sys.setswitchinterval(switch_interval)


def _arrivals(capacity: float, seconds: float, seed: int) -> list[float]:
    """When requests are due, in seconds from the start."""
    random = Random(seed)  # the same arrivals for all
    found: list[float] = []
    start = 0.0
    for share, part in LOAD:
        end = start + part * seconds
        at = start + random.expovariate(share * capacity)
        while at < end:
            found.append(at)
            at += random.expovariate(share * capacity)
        start = end
    return found


async def _offer(running: Engine, model: str, inputs: Inputs, arrivals: Sequence[float]) -> list[float]:
    """Submit a request at each of the times; gives the latencies in milliseconds, when all are answered."""
    latencies: list[float] = []
    finished = anyio.Event()
    began = time.perf_counter() + 0.1

    def on_response(request: InferenceRequest, response: InferenceResponse) -> None:
        if response.error is not None:
            raise response.error
        latencies.append((time.perf_counter() - began - request.context) * 1000)
        if len(latencies) == len(arrivals):
            finished.set()

    for at in arrivals:
        wait = began + at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tensors = {name: Tensor.from_numpy(name, array) for name, array in inputs.items()}
        running.submit(InferenceRequest(model, tensors, on_response=on_response, context=at))
    await finished.wait()
    return latencies


async def _capacity(running: Engine, inputs: Inputs) -> float:
    """Requests a second when 64 are always waiting."""
    model = _model("delay 0 ms, batches to 16")
    await _offer(running, model, inputs, [0.0] * 64)
    began = time.perf_counter()
    await _offer(running, model, inputs, [0.0] * 640)
    return 640 / (time.perf_counter() - began - 0.1)
