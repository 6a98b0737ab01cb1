#!/usr/bin/env python3
"""Draw requests on their way through an ensemble: run a real one, record its steps, write an SVG.

    tools/draw_ensembles.py docs/explanation/ensembles.svg

The ensemble is ``text_embedding_ensemble`` of the example repository. The traces are real, so that a new picture
differs a little from the old one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from draw_batches import Trace, draw
from trivet.engine import Engine
from trivet.inference import InferenceRequest
from trivet.scheduling import Batch, SchedulableInstance
from trivet.tensor import Tensor
from trivet.testing import running_engine

EXAMPLES = Path(__file__).parent.parent / "examples"
ENSEMBLE = "text_embedding_ensemble"
STEPS = ("sentence_tokenizer", "sentence_embedding")
REQUESTS = 12


def watch(engine: Engine, model: str, traces: list[Trace]) -> Callable[[], None]:
    """Add a trace for each request that the model executes; returns what ends that."""
    scheduler = engine.model(model).scheduler
    batch_done = scheduler.batch_done

    def noting(instance: SchedulableInstance, batch: Batch) -> None:
        number = len({trace.batch for trace in traces})
        traces.extend(
            Trace(
                request.id,
                request.received_ns,
                request.queued_ns,
                request.compute_start_ns,
                request.compute_end_ns,
                number,
                instance.name.removeprefix("sentence_"),
            )
            for request in batch.requests
        )
        batch_done(instance, batch)

    def end() -> None:
        scheduler.batch_done = batch_done  # type: ignore[method-assign]

    scheduler.batch_done = noting  # type: ignore[method-assign]
    return end


async def record() -> list[Trace]:
    """The steps of requests that come at once, with the name of the request's and the step's instance."""
    with tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            (Path(folder) / name).symlink_to((EXAMPLES / "model_repository" / name).resolve(strict=True))
        (Path(folder) / ENSEMBLE / "1").mkdir(parents=True)
        config = (EXAMPLES / "models" / ENSEMBLE / "config.pbtxt").read_text()
        (Path(folder) / ENSEMBLE / "config.pbtxt").write_text(config)
        async with running_engine(folder) as engine:
            await ask_all(engine)  # the first runs are slower
            traces: list[Trace] = []
            ends = [watch(engine, name, traces) for name in STEPS]
            await ask_all(engine)
            for _ in range(10):
                await asyncio.sleep(0)  # the last batch is heard of after its answers
            for end in ends:
                end()
            return traces


async def ask_all(engine: Engine) -> None:
    responses = await asyncio.gather(*(engine.infer(sentence(index)) for index in range(REQUESTS)))
    for response in responses:
        if response.error is not None:
            raise response.error


def sentence(index: int) -> InferenceRequest:
    text = np.array([[b"Trivet serves models. " * 4]], dtype=object)
    return InferenceRequest(ENSEMBLE, {"text": Tensor.from_numpy("text", text)}, id=str(index + 1))


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    title = f"{REQUESTS} requests to {ENSEMBLE} at once"
    Path(sys.argv[1]).write_text(draw({title: asyncio.run(record())}))


if __name__ == "__main__":
    main()
