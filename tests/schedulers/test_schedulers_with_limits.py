"""Models with schedulers of their own under one rate limiter: whoever hands out batches, no resource is overdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from trivet.engine import Engine
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        began = time.perf_counter()
        time.sleep(0.001)
        ended = time.perf_counter()
        span = pb_utils.Tensor("span", np.array([[began, ended]]))
        return [pb_utils.InferenceResponse([span]) for _ in requests]
"""
TENSORS = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "span" data_type: TYPE_FP64 dims: [ 2 ] }
"""
SCHEDULERS = {
    "default": "",
    "dynamic": "dynamic_batching { }",
    "ordered": "dynamic_batching { preserve_ordering: true max_queue_delay_microseconds: 100 }",
    "direct": "sequence_batching { direct { } }",
    "oldest": "sequence_batching { oldest { max_candidate_sequences: 8 } }",
}
STEPS = 5


def add(repository: Path, name: str, scheduler: str, resources: str, instances: int = 2) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    group = f"instance_group {{ kind: KIND_CPU count: {instances} rate_limiter {{ {resources} }} }}"
    (version.parent / "config.pbtxt").write_text(f"{TENSORS} {scheduler} {group}")


async def sequence(engine: Engine, model: str, number: int) -> list[tuple[float, float]]:
    """One step after the other; models without sequences do not mind."""
    spans = []
    for step in range(STEPS):
        x = Tensor.from_numpy("x", np.ones((1, 1), np.float32))
        response = await engine.infer(
            InferenceRequest(
                model,
                {"x": x},
                correlation_id=number + 1,
                sequence_start=step == 0,
                sequence_end=step == STEPS - 1,
            )
        )
        if response.error is not None:
            raise response.error
        [(began, ended)] = response.outputs[0].numpy().tolist()
        spans.append((began, ended))
    return spans


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    executions = set(spans)  # the requests of a batch have the same
    return max(sum(began <= moment < ended for began, ended in executions) for moment, _ in executions)


async def test_models_of_every_scheduler_keep_to_what_there_is(tmp_path: Path) -> None:
    for name, scheduler in SCHEDULERS.items():
        add(tmp_path, name, scheduler, 'resources { name: "R" global: true count: 1 }')
    # One that wants both and has the fewest turns gets them all the same.
    add(tmp_path, "large", "", 'resources { name: "R" global: true count: 2 } priority: 5', instances=1)
    async with running_engine(tmp_path, rate_limit="execution_count") as engine:
        models = [*SCHEDULERS, "large"]
        results = await asyncio.gather(*(sequence(engine, model, number) for model in models for number in range(6)))
        assert all(engine.model(model).scheduler.queued == 0 for model in models)
    spans = [span for spans in results for span in spans]
    assert len(spans) == len(models) * 6 * STEPS
    assert most_at_once(spans) <= 2
    alone = [span for spans in results[-6:] for span in spans]
    assert all(not (began < other < ended) for began, ended in alone for other, _ in spans)
