"""Models that tests write, which call one another and the server, and an engine that serves them in this process."""

from __future__ import annotations

import asyncio
import textwrap
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
from trivet.engine import Engine
from trivet.inference import InferenceRequest
from trivet.lifecycle import ModelEvent, ModelState
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_backend_python import plugin

CONFIG = """
    backend: "python"
    input [{ name: "X" data_type: TYPE_FP32 dims: [-1] }]
    output [{ name: "Y" data_type: TYPE_FP32 dims: [-1] }]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"

SHARED: dict[str, Any] = {}
"""What a test shares with the models that it writes: one process, one interpreter."""


class Repository:
    """Where a test writes its models."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, body: str, config: str = "", *, extra: str = "", is_async: bool = False) -> None:
        """Write a model whose ``execute`` has this body, which may use the functions above its class."""
        source = f"""
import asyncio, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils
from {__name__} import SHARED

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def request(model, x, **fields):
    inputs = [pb_utils.Tensor("X", np.asarray(x, np.float32))]
    return pb_utils.InferenceRequest(model_name=model, requested_output_names=["Y"], inputs=inputs, **fields)

def values(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response.output_tensors()[0].as_numpy()

def answer(x):
    return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.asarray(x, np.float32))])

def given(request):
    return request.inputs()[0].as_numpy()

class TritonPythonModel:
    {"async " if is_async else ""}def execute(self, requests):
{textwrap.indent(textwrap.dedent(body), " " * 8)}
{textwrap.indent(textwrap.dedent(extra), " " * 4)}
"""
        folder = self.path / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(source)
        (self.path / name / "config.pbtxt").write_text(CONFIG + config)

    def double(self) -> None:
        self.add("double", "return [answer(2 * given(r)) for r in requests]")

    def count(self, name: str = "count", config: str = "") -> None:
        """Answers with 0, 1, 2, ... as often as it is asked to, and notes how far it came."""
        self.add(
            name,
            """
            for r in requests:
                sender = r.get_response_sender()
                for i in range(int(given(r)[0])):
                    if sender.is_cancelled():
                        SHARED["cancelled"].set()
                        break
                    sender.send(answer([i]))
                    SHARED["sent"].append(i)
                    if i + 1 == SHARED.get("enough"):
                        SHARED["sent_enough"].set()
                sender.send(flags=FINAL)
            """,
            DECOUPLED + config,
        )


def serve(repository: Repository, **options: Any) -> AbstractAsyncContextManager[Engine]:
    """An engine in explicit mode with all models loaded, unless ``options`` say otherwise."""
    options = {"model_control_mode": "explicit", "load_models": ["*"], **options}
    return running_engine(repository.path, registry=PluginRegistry.of(python=plugin), **options)


def request(model: str, *values: float, **fields: Any) -> InferenceRequest:
    """A request whose ``X`` is ``values``."""
    return InferenceRequest(model, {"X": Tensor.from_numpy("X", np.array(values, np.float32))}, **fields)


def unloaded(engine: Engine, name: str) -> asyncio.Event:
    """Set when that model is no more in memory."""
    gone = asyncio.Event()

    def watch(event: ModelEvent) -> None:
        if event.name == name and event.state is ModelState.UNAVAILABLE:
            gone.set()

    engine.on_model_event.append(watch)
    return gone


async def infer(engine: Engine, model: str, *values: float) -> list[float]:
    """The ``Y`` of the answer; raises its error."""
    response = await asyncio.wait_for(engine.infer(request(model, *values)), 30)
    if response.error is not None:
        raise response.error
    y: list[float] = response.outputs[0].numpy().tolist()
    return y
