"""The dynamic batcher on a simulated clock, and requests for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from trivet.config import normalize, parse_text_config
from trivet.inference import InferenceRequest
from trivet.scheduling import Batch
from trivet.tensor import Tensor
from trivet.testing import Simulation
from trivet_scheduler_dynamic.batcher import DynamicBatcher

MS = 1_000_000
"""Nanoseconds."""

INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }'


def simulate(
    batching: str = "",
    *,
    max_batch_size: int = 4,
    inputs: str = INPUT,
    more: str = "",
    instances: int = 1,
    compute_ns: Callable[[Batch], int] | None = None,
    **options: Any,
) -> Simulation:
    """A batcher with the given fields of ``dynamic_batching``."""
    config = parse_text_config(
        f'name: "m" max_batch_size: {max_batch_size} {inputs} dynamic_batching {{ {batching} }} {more}', "test"
    )
    normalize(config)
    return Simulation(DynamicBatcher, config, instances=instances, compute_ns=compute_ns, **options)


def request(name: str = "", *, rows: int = 1, size: int = 1, **fields: Any) -> InferenceRequest:
    """A request whose input ``x`` has shape [rows, size], FP32."""
    made = InferenceRequest("m", {"x": Tensor.from_numpy("x", np.zeros((rows, size), np.float32))}, id=name, **fields)
    made.batch_size = rows
    return made


def batches(simulation: Simulation) -> list[list[str]]:
    """The ids of the requests in each executed batch."""
    return [[one.id for one in requests] for _, requests in simulation.executions]


def submit(simulation: Simulation, names: str, **fields: Any) -> list[InferenceRequest]:
    """Submit a request for each letter."""
    made = [request(name, **fields) for name in names]
    for one in made:
        error = simulation.submit(one)
        if error is not None:
            raise error
    return made


def finish(simulation: Simulation, index: int = 0) -> None:
    """The execution on that instance ends."""
    simulation.finish(simulation.instances[index])
