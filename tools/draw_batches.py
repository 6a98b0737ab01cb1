#!/usr/bin/env python3
"""Draw how requests became batches: run a real model, record the timestamps of its requests, write an SVG.

    tools/draw_batches.py docs/explanation/dynamic-batching.svg

:func:`record` runs requests through an engine and gives a :class:`Trace` of each; :func:`draw` makes a picture of any
traces, one panel for each list of them. The traces are real, so that a new picture differs a little from the old one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from trivet.engine import Engine
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.scheduling import Batch, SchedulableInstance
from trivet.tensor import Tensor
from trivet.testing import running_engine

MODEL = Path(__file__).parent.parent / "examples" / "model_repository" / "sentence_embedding" / "1" / "model.onnx"
# With inputs and outputs named, or else the backend would add dynamic batching by itself.
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }
input { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
input { name: "token_type_ids" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "sentence_embedding" data_type: TYPE_FP32 dims: [ 384 ] }
instance_group [ { name: "instance" kind: KIND_CPU count: 1 } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""
SCENES = {
    "Without dynamic batching": "",
    "dynamic_batching { }": "dynamic_batching { }",
    "dynamic_batching { max_queue_delay_microseconds: 10000 }": (
        "dynamic_batching { max_queue_delay_microseconds: 10000 }"
    ),
}
REQUESTS = 36
TOKENS = 16


class Trace(NamedTuple):
    """One request, its times in nanoseconds of one clock, and the execution that served it."""

    request: str
    received_ns: int
    queued_ns: int
    compute_start_ns: int
    compute_end_ns: int
    batch: int
    """The same number for the requests of one execution."""
    instance: str


# --- recording


async def record(
    engine: Engine, model: str, arrivals_s: Sequence[float], make: Callable[[int], InferenceRequest]
) -> list[Trace]:
    """Submit ``make(index)`` at each of the times, and wait for all answers.

    Raises the error of a request that failed.
    """
    scheduler = engine.model(model).scheduler
    batches: dict[InferenceRequest, tuple[int, str]] = {}
    batch_done = scheduler.batch_done

    def noting(instance: SchedulableInstance, batch: Batch) -> None:
        number = len(set(batches.values()))
        batches.update(dict.fromkeys(batch.requests, (number, instance.name)))
        batch_done(instance, batch)

    scheduler.batch_done = noting  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    answered: list[asyncio.Future[InferenceResponse]] = []
    requests: list[InferenceRequest] = []
    began = loop.time()
    for index, at in enumerate(arrivals_s):
        await asyncio.sleep(began + at - loop.time())
        request = make(index)
        requests.append(request)
        answer: asyncio.Future[InferenceResponse] = loop.create_future()
        answered.append(answer)
        request.on_response = lambda _, response, answer=answer: answer.set_result(response)
        engine.submit(request)
    for response in await asyncio.gather(*answered):
        if response.error is not None:
            raise response.error
    await asyncio.sleep(0)  # the last batch is heard of after its answers
    scheduler.batch_done = batch_done  # type: ignore[method-assign]
    return [
        Trace(
            request.id,
            request.received_ns,
            request.queued_ns,
            request.compute_start_ns,
            request.compute_end_ns,
            *batches[request],
        )
        for request in requests
    ]


async def scenes() -> dict[str, list[Trace]]:
    """MiniLM under the same arrivals in each of the configurations."""
    random = Random(7)  # noqa: S311 - the same arrivals each time
    arrivals: list[float] = []
    at = 0.0
    for _ in range(REQUESTS):
        at += random.expovariate(1 / 0.004)
        arrivals.append(at)
    ids = np.arange(1000, 1000 + TOKENS, dtype=np.int64).reshape(1, TOKENS)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    def make(index: int) -> InferenceRequest:
        tensors = {name: Tensor.from_numpy(name, array) for name, array in inputs.items()}
        return InferenceRequest("model", tensors, id=str(index + 1))

    found: dict[str, list[Trace]] = {}
    for title, scheduling in SCENES.items():
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder) / "model" / "1"
            version.mkdir(parents=True)
            (version / "model.onnx").symlink_to(MODEL.resolve(strict=True))
            (version.parent / "config.pbtxt").write_text(CONFIG + scheduling)
            async with running_engine(folder) as engine:
                await record(engine, "model", [0.0] * 12, make)  # the first runs are slower
                found[title] = await record(engine, "model", arrivals, make)
    return found


# --- drawing

WIDTH, LEFT, RIGHT = 960, 90, 20
ROW, INSTANCE_ROW, GAP, TITLE = 7, 20, 34, 26
GREY, WAITING = "#808080", "#b8b8b8"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def draw(
    panels: Mapping[str, Sequence[Trace]], *, line_of: Callable[[Trace], str] | None = None, lines: str = "requests"
) -> str:
    """An SVG with a panel for each list of traces, all on the same scale of time.

    Above, a line for each request, or for those of which ``line_of`` gives the same: grey while it waits, coloured
    while it is computed, one colour for an execution. Below, a line for each instance, with the number of requests in
    each execution. ``lines`` is what the lines are called.
    """
    spans = [(min(trace.queued_ns for trace in traces), traces) for traces in panels.values()]
    longest_ns = max(trace.compute_end_ns - start for start, traces in spans for trace in traces)
    scale = (WIDTH - LEFT - RIGHT) / longest_ns
    parts: list[str] = []
    top = 0
    for title, (start, traces) in zip(panels, spans, strict=True):
        ordered = sorted(traces, key=lambda trace: trace.queued_ns)
        top = _panel(parts, title, ordered, start, scale, top, line_of or (lambda trace: trace.request), lines)
    _axis(parts, longest_ns, scale, top)
    height = top + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    style = 'font-family="sans-serif" font-size="12"'
    return "\n".join([f"{head} {style}>", *parts, "</svg>"]) + "\n"


def _panel(
    parts: list[str],
    title: str,
    traces: Sequence[Trace],
    start: int,
    scale: float,
    top: int,
    line_of: Callable[[Trace], str],
    lines: str,
) -> int:
    def x(ns: int) -> float:
        return LEFT + (ns - start) * scale

    def bar(begin: int, end: int, y: float, height: float, colour: str) -> None:
        width = max(1.0, x(end) - x(begin))
        parts.append(f'<rect x="{x(begin):.1f}" y="{y:g}" width="{width:.1f}" height="{height:g}" fill="{colour}"/>')

    numbers = {batch: index for index, batch in enumerate(dict.fromkeys(trace.batch for trace in traces))}
    parts.append(_text(LEFT, top + 16, title, weight="bold"))
    top += TITLE
    rows = {line: row for row, line in enumerate(dict.fromkeys(line_of(trace) for trace in traces))}
    parts.append(_text(LEFT - 8, top + ROW * len(rows) / 2 + 4, lines, anchor="end"))
    for trace in traces:
        y = top + rows[line_of(trace)] * ROW
        bar(trace.queued_ns, trace.compute_start_ns, y + 2, ROW - 4, WAITING)
        bar(trace.compute_start_ns, trace.compute_end_ns, y + 1, ROW - 2, COLOURS[numbers[trace.batch] % len(COLOURS)])
    top += ROW * len(rows) + 6
    for instance in sorted({trace.instance for trace in traces}):
        parts.append(_text(LEFT - 8, top + 14, instance, anchor="end"))
        for batch, number in numbers.items():
            served = [trace for trace in traces if trace.batch == batch and trace.instance == instance]
            if not served:
                continue
            begin, end = served[0].compute_start_ns, max(trace.compute_end_ns for trace in served)
            bar(begin, end, top, INSTANCE_ROW - 3, COLOURS[number % len(COLOURS)])
            parts.append(_text((x(begin) + x(end)) / 2, top + 13, str(len(served)), anchor="middle", colour="#ffffff"))
        top += INSTANCE_ROW
    return top + GAP // 2


def _axis(parts: list[str], longest_ns: int, scale: float, top: int) -> None:
    step_ms = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if longest_ns / 1e6 / step <= 12)
    for tick in range(0, int(longest_ns / 1e6) + 1, step_ms):
        at = LEFT + tick * 1e6 * scale
        parts.append(
            f'<line x1="{at:.1f}" y1="{TITLE}" x2="{at:.1f}" y2="{top}" stroke="{GREY}" stroke-opacity="0.2"/>'
        )
        parts.append(_text(at, top + 14, f"{tick} ms", anchor="middle"))


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = GREY) -> str:
    # A grey that can be read on white and on black.
    place = f'x="{x:.1f}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    Path(sys.argv[1]).write_text(draw(asyncio.run(scenes())))


if __name__ == "__main__":
    main()
