#!/usr/bin/env python3
"""Draw how requests of sequences become batches: run a real model, record the timestamps of its requests, write an SVG.

    tools/draw_sequences.py docs/explanation/sequences.svg

The model is speech detection with its state in the server (``examples/models/voice_activity_stream``). The traces are
real, so that a new picture differs a little from the old one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np
from draw_batches import Trace, draw, record
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor
from trivet.testing import running_engine

MODEL = Path(__file__).parent.parent / "examples" / "model_repository" / "voice_activity_stream"
SHOWN = "oldest { max_candidate_sequences: 1024 }"
SCENES = {
    "oldest { max_candidate_sequences: 8 }": "oldest { max_candidate_sequences: 8 }",
    "oldest { max_candidate_sequences: 4 }: the last four wait in the backlog": "oldest { max_candidate_sequences: 4 }",
    "direct { }": "direct { }",
    "direct { max_queue_delay_microseconds: 1500 minimum_slot_utilization: 0.5 }": (
        "direct { max_queue_delay_microseconds: 1500 minimum_slot_utilization: 0.5 }"
    ),
}
SPEAKERS, WINDOWS = 8, 8


async def scenes() -> dict[str, list[Trace]]:
    """The same windows of the same speakers with each of the strategies."""
    random = Random(3)  # noqa: S311 - the same arrivals each time
    arrivals: list[tuple[float, int, int]] = []
    for speaker in range(SPEAKERS):
        at = random.uniform(0, 0.002)
        for window in range(WINDOWS):
            arrivals.append((at, speaker, window))
            at += random.uniform(0.0005, 0.0035)
    arrivals.sort()
    sound = Tensor.from_numpy("samples", np.zeros((1, 512), np.float32))

    def make(index: int) -> InferenceRequest:
        _, speaker, window = arrivals[index]
        return InferenceRequest(
            MODEL.name,
            {"samples": sound},
            id=f"{speaker}.{window}",
            correlation_id=speaker + 1,
            sequence_start=window == 0,
            sequence_end=window == WINDOWS - 1,
        )

    text = (MODEL / "config.pbtxt").read_text()
    for old, new in (("max_batch_size: 64", "max_batch_size: 8"), ("{ kind:", '{ name: "instance" kind:')):
        assert old in text
        text = text.replace(old, new)
    found: dict[str, list[Trace]] = {}
    for title, strategy in SCENES.items():
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / MODEL.name
            model.mkdir()
            (model / "1").symlink_to((MODEL / "1").resolve(strict=True))
            (model / "config.pbtxt").write_text(text.replace(SHOWN, strategy))
            async with running_engine(folder) as engine:
                times = [at for at, _, _ in arrivals]
                await record(engine, MODEL.name, times, make)  # the first runs are slower
                found[title] = await record(engine, MODEL.name, times, make)
    return found


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    picture = draw(asyncio.run(scenes()), line_of=lambda trace: trace.request.partition(".")[0], lines="speakers")
    Path(sys.argv[1]).write_text(picture)


if __name__ == "__main__":
    main()
