"""Requests of a kit, and a record of what came back for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivet.engine import Engine
from trivet.errors import TrivetError
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput, ResponseHandler
from trivet.tensor import Tensor
from trivet.testing.conformance.rules import require
from trivet.testing.conformance.watching import still_running

Arrays = Mapping[str, NDArray[Any]]

TIMEOUT_S = 60.0
"""After which a request counts as lost."""


def request(
    model: str, inputs: Arrays, outputs: Iterable[str] | None = None, id: str = "", **fields: Any
) -> InferenceRequest:
    """A request with copies of these arrays, for the outputs of these names or for all."""
    tensors = {name: Tensor.from_numpy(name, array.copy()) for name, array in inputs.items()}
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    return InferenceRequest(model, tensors, id=id, outputs=wanted, **fields)


class Answers:
    """Submits requests and keeps all responses, in order. On the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[InferenceRequest, asyncio.Event] = {}
        self.responses: dict[InferenceRequest, list[InferenceResponse]] = {}
        self.on_response: ResponseHandler | None = None
        """Called after each response is kept."""

    def submit(self, *requests: InferenceRequest) -> None:
        """Raises what the engine refuses a request with."""
        for one in requests:
            one.on_response = self._on_response
            self._open[one] = asyncio.Event()
            self.responses[one] = []
            self._engine.submit(one)

    async def all(self) -> None:
        """Wait until every request has a final response, and see that none has two."""
        for number, done in enumerate(self._open.values(), 1):
            try:
                await asyncio.wait_for(done.wait(), TIMEOUT_S)
            except TimeoutError:
                finals = f"request {number} of {len(self._open)} had none after {TIMEOUT_S:.0f} s{still_running()}"
                require(False, _ONE_FINAL, "trivet.inference.InferenceRequest", finals)
        # Anything that comes too often comes before what is posted now is delivered.
        await asyncio.sleep(0)
        for number, responses in enumerate(self.responses.values(), 1):
            count = sum(response.final for response in responses)
            found = f"request {number} of {len(self._open)} had {count}"
            require(count == 1, _ONE_FINAL, "trivet.inference.InferenceRequest", found)

    def _on_response(self, one: InferenceRequest, response: InferenceResponse) -> None:
        self.responses[one].append(response)
        if response.final:
            self._open[one].set()
        if self.on_response is not None:
            self.on_response(one, response)


_ONE_FINAL = "every submitted request gets exactly one final response"


async def infer(engine: Engine, one: InferenceRequest) -> dict[str, NDArray[Any]]:
    """Run a request and give its outputs. Raises the response's error."""
    answers = Answers(engine)
    answers.submit(one)
    await answers.all()
    return outputs_of(answers.responses[one])


def outputs_of(responses: Iterable[InferenceResponse]) -> dict[str, NDArray[Any]]:
    """The outputs of a request's responses. Raises the error of one."""
    found: dict[str, NDArray[Any]] = {}
    for response in responses:
        if response.error is not None:
            raise response.error
        found |= {tensor.name: tensor.numpy() for tensor in response.outputs}
    return found


def compare(found: Arrays, expected: Arrays, tolerance: float, of: str, what: str) -> None:
    """Require the expected arrays, and no others."""
    __tracebackhide__ = True
    require(found.keys() == expected.keys(), f"{what}: the outputs that were asked for", of, f"outputs {sorted(found)}")
    for name, array in expected.items():
        same = found[name].shape == array.shape and (
            np.allclose(found[name], array, rtol=tolerance, atol=tolerance, equal_nan=True)
            if np.issubdtype(array.dtype, np.inexact)
            else np.array_equal(found[name], array)
        )
        require(same, f"{what}: the expected values", of, f"{name} is {found[name]!r}, expected {array!r}")


def is_for_callers(error: object) -> bool:
    """Whether an error is one of those that protocols can translate."""
    return isinstance(error, TrivetError) and bool(error.message)
