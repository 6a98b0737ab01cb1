"""Tensors of many requests into a batch and back: beside numpy's concatenate and slices, from bytes to bytes.

No loop, no thread, no model: what an instance's thread does around ``execute``, for requests of one row and a model
that gives back what it was given. The ragged figure beside is the same with an input that is laid out flat, described
to the model, and scattered again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from trivet import datatypes
from trivet.batching import gather, split
from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor

from bench.report import Report, at_most
from bench.settings import Settings, rounds

REQUESTS = (1, 8, 32)
ELEMENTS = (16, 1024, 65536)

_PLAIN: dict[str, Any] = {
    "name": "m",
    "max_batch_size": 32,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
}
PLAIN = ModelSpec.from_config(ModelConfig(**_PLAIN))
RAGGED = ModelSpec.from_config(
    ModelConfig(
        **_PLAIN
        | {
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1], "allow_ragged_batch": True}],
            "batch_input": [
                {"kind": "BATCH_ELEMENT_COUNT", "target_name": ["n"], "data_type": "TYPE_INT32", "source_input": ["x"]}
            ],
            "batch_output": [{"target_name": ["y"], "source_input": ["x"]}],
        }
    )
)


def kernel(spec: ModelSpec, count: int, elements: int) -> Callable[[], None]:
    """One batch through the kernel; the requests are made anew each time, and not measured apart."""
    data = memoryview(bytes(elements * 4))

    def batch() -> None:
        requests = [
            InferenceRequest("m", {"x": Tensor.from_wire("x", datatypes.FP32, (1, elements), data)})
            for _ in range(count)
        ]
        inputs = gather(spec, requests, None)
        for response in split(spec, requests, {"y": inputs["x"].numpy()}):
            response.outputs[0].wire()

    return batch


def bare(count: int, elements: int) -> Callable[[], None]:
    """The least that a program in Python does with numpy."""
    data = memoryview(bytes(elements * 4))

    def batch() -> None:
        requests = [InferenceRequest("m", {"x": data}) for _ in range(count)]  # type: ignore[dict-item]
        whole = np.concatenate(
            [np.frombuffer(request.inputs["x"], np.float32).reshape(1, elements) for request in requests]  # type: ignore[call-overload]
        )
        for index in range(count):
            whole[index : index + 1].data.cast("B")

    return batch


def run(settings: Settings, report: Report) -> None:
    contenders: list[tuple[str, Callable[[int, int], Callable[[], None]]]] = [
        ("numpy alone", bare),
        ("kernel", partial(kernel, PLAIN)),
        ("kernel, ragged", partial(kernel, RAGGED)),
    ]
    cases = [(count, elements) for elements in ELEMENTS for count in REQUESTS]
    for order in rounds(settings, report, contenders):
        for name, make in order:
            for count, elements in cases:
                batch = make(count, elements)
                spent_us = report.quietly(partial(_measured, batch, settings.seconds / 10))
                report.add(f"{name}, {_case(count, elements)}", spent_us / count, "µs/request")
    for count, elements in cases:
        case = _case(count, elements)
        # Beyond numpy's part there are the requests' tensors and the responses, which weigh most where there are few.
        target = at_most(2.0)
        report.ratio(f"kernel / numpy, {case}", f"kernel, {case}", f"numpy alone, {case}", target)


def _case(count: int, elements: int) -> str:
    return f"{count} x {elements} floats"


def _measured(batch: Callable[[], None], seconds: float) -> float:
    """Microseconds for one batch."""
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(100):
            batch()
        count += 100
    return spent / count * 1e6
