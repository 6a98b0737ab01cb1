"""Models to build ensembles of, each a few lines of arithmetic, and repositories that hold them.

``trivet_test_arithmetic`` is a backend whose models do what their parameter ``operation`` says. What a model was asked
is kept in :attr:`Operations.seen`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trivet_scheduler_ensemble.plugin
from numpy.typing import NDArray
from trivet import hookimpl
from trivet.backend import Backend, BackendModel, InstanceContext, ModelContext, RequestInstance
from trivet.config import ModelConfig
from trivet.errors import InternalError, TrivetError
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor

Array = NDArray[np.float32]


@dataclass
class Operations:
    """The backend's models of one test: what they do, and what they were asked."""

    seen: defaultdict[str, list[InferenceRequest]] = field(default_factory=lambda: defaultdict(list))
    """Requests by model, in the order in which they were executed."""
    gates: defaultdict[str, threading.Event] = field(default_factory=lambda: defaultdict(threading.Event))
    """A model of operation ``wait`` answers when its gate is open."""
    started: defaultdict[str, threading.Event] = field(default_factory=lambda: defaultdict(threading.Event))
    """Set when such a model begins."""
    passed_on: dict[str, Any] = field(default_factory=dict)
    """What operation ``device`` gave, by model."""

    def cancelled(self, model: str, timeout_s: float = 30) -> bool:
        """Wait until the request that ``model`` began with is cancelled; from any thread but the event loop's."""
        (request,) = self.seen[model]
        end = time.monotonic() + timeout_s
        while not request.cancelled and time.monotonic() < end:
            time.sleep(0.001)  # a flag that a model looks at: nothing tells when it is set
        return request.cancelled

    def registry(self) -> PluginRegistry:
        return PluginRegistry.of(arithmetic=_ArithmeticPlugin(self), ensembles=trivet_scheduler_ensemble.plugin)


class _ArithmeticPlugin:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return (BackendPlugin(name="arithmetic", factory=lambda: _Arithmetic(self._operations)),)


class _Arithmetic(Backend):
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def load(self, context: ModelContext) -> BackendModel:
        if context.parameters["operation"] == "broken":
            raise InternalError("this model cannot be loaded")
        return _Model(context, self._operations)


class _Model(BackendModel):
    def __init__(self, context: ModelContext, operations: Operations) -> None:
        self._context = context
        self._operations = operations

    def create_instance(self, context: InstanceContext) -> _Instance:
        return _Instance(self._context, self._operations)


class HostArray:
    """A framework's tensor: it speaks DLPack and is not a numpy array. ``on_device`` lies about where it is."""

    def __init__(self, array: Array, *, on_device: bool = False) -> None:
        self.array = array
        self.on_device = on_device

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0) if self.on_device else (1, 0)


class _Instance(RequestInstance):
    def __init__(self, context: ModelContext, operations: Operations) -> None:
        self._name = context.name
        self._operations = operations
        self._operation: Callable[[InferenceRequest], InferenceResponse | None] = getattr(
            self, f"_{context.parameters['operation']}"
        )
        self._outputs = [output.name for output in context.config.output]

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | None]:
        self._operations.seen[self._name] += requests
        return [self._run(request) for request in requests]

    def _run(self, request: InferenceRequest) -> InferenceResponse | None:
        try:
            return self._operation(request)
        except TrivetError as error:
            return InferenceResponse(error=error)

    def _values(self, request: InferenceRequest) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in request.inputs.items()}

    def _answer(self, request: InferenceRequest, arrays: Mapping[str, Array]) -> InferenceResponse:
        names = self._outputs if request.outputs is None else [output.name for output in request.outputs]
        return InferenceResponse([Tensor.from_numpy(name, arrays[name]) for name in names if name in arrays])

    def _increment(self, request: InferenceRequest) -> InferenceResponse:
        """y = x + 1, and z = 10 x."""
        x = self._values(request)["x"]
        if (x < 0).any():
            raise InternalError("negative input")
        return self._answer(request, {"y": x + 1, "z": x * 10})

    def _overwrite(self, request: InferenceRequest) -> InferenceResponse:
        """y = 10 x, in the memory of x."""
        x = request.inputs["x"].writable()
        x *= 10
        return self._answer(request, {"y": x})

    def _add(self, request: InferenceRequest) -> InferenceResponse:
        """s = a + b, where b may be left out."""
        values = self._values(request)
        return self._answer(request, {"s": sum(values.values(), np.zeros_like(values["a"]))})

    def _evens(self, request: InferenceRequest) -> InferenceResponse:
        """y = x where that begins with an even number, nothing where not."""
        x = self._values(request)["x"]
        return self._answer(request, {"y": x} if x.flat[0] % 2 == 0 else {})

    def _stack(self, request: InferenceRequest) -> InferenceResponse:
        """y = x, of a shape that it should not have where x begins with 0."""
        x = self._values(request)["x"]
        return self._answer(request, {"y": x if x.flat[0] else np.stack([x, x], axis=1)})

    def _repeat(self, request: InferenceRequest) -> None:
        """Decoupled: y = x + 0, x + 1, ..., as often as x begins with; the last is not marked, an empty one follows."""
        x = self._values(request)["x"]
        for number in range(int(x.flat[0])):
            response = self._answer(request, {"y": x + number})
            response.final = False
            request.respond(response)
        request.respond(InferenceResponse())

    def _repeat_last(self, request: InferenceRequest) -> None:
        """Like repeat, and the last response is marked as the last."""
        x = self._values(request)["x"]
        count = int(x.flat[0])
        for number in range(count):
            response = self._answer(request, {"y": x + number})
            response.final = number + 1 == count
            request.respond(response)
        if not count:
            request.respond(InferenceResponse())

    def _wait(self, request: InferenceRequest) -> InferenceResponse:
        self._operations.started[self._name].set()
        self._operations.gates[self._name].wait(30)
        return self._increment(request)

    def _device(self, request: InferenceRequest) -> InferenceResponse:
        """y = x, as a tensor of a framework on a device."""
        given = HostArray(self._values(request)["x"], on_device=True)
        self._operations.passed_on[self._name] = given
        tensor = next(iter(request.inputs.values()))
        return InferenceResponse([Tensor.from_dlpack("y", given, tensor.datatype, tensor.shape)])

    def _received(self, request: InferenceRequest) -> InferenceResponse:
        """Look at what came in, without asking for its numbers; y is one where it is on a device."""
        tensor = request.inputs["x"]
        self._operations.passed_on[self._name] = tensor.dlpack()
        return InferenceResponse([Tensor.from_numpy("y", np.full(tensor.shape, tensor.on_device, np.float32))])

    def _sequence(self, request: InferenceRequest) -> InferenceResponse:
        """y = x, and the response says which sequence it belongs to."""
        response = self._answer(request, {"y": self._values(request)["x"]})
        response.parameters = {"sequence_id": 99, "sequence_start": False, "sequence_end": True}
        return response


class Repository:
    """A folder of models. Tensors hold four numbers; ``batch`` 0 makes a model without batches."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def model(
        self,
        name: str,
        operation: str = "increment",
        *,
        batch: int = 8,
        versions: Sequence[int] = (1,),
        dims: Sequence[int] = (4,),
        instances: int = 1,
        datatype: str = "TYPE_FP32",
        **more: Any,
    ) -> None:
        inputs, outputs = ("a", "b"), ("s",)
        if operation != "add":
            inputs, outputs = ("x",), ("y", "z") if operation in ("increment", "wait") else ("y",)
        config = ModelConfig(
            name=name,
            backend="arithmetic",
            max_batch_size=batch,
            input=[{"name": n, "data_type": datatype, "dims": dims, "optional": n == "b"} for n in inputs],
            output=[{"name": n, "data_type": datatype, "dims": dims} for n in outputs],
            parameters={"operation": {"string_value": operation}},
            instance_group=[{"count": instances}],
            version_policy={"all": {}},
            model_transaction_policy={"decoupled": operation.startswith("repeat")},
            **more,
        )
        self.write(name, config, versions)

    def ensemble(
        self,
        name: str,
        *steps: tuple[str, Mapping[str, str], Mapping[str, str]]
        | tuple[str, Mapping[str, str], Mapping[str, str], int],
        inputs: Sequence[str] = ("I",),
        outputs: Sequence[str] = ("O",),
        optional: Sequence[str] = (),
        batch: int = 8,
        dims: Sequence[int] = (4,),
        most: int = 0,
        **more: Any,
    ) -> None:
        config = ModelConfig(
            name=name,
            platform="ensemble",
            max_batch_size=batch,
            input=[{"name": n, "data_type": "TYPE_FP32", "dims": dims, "optional": n in optional} for n in inputs],
            output=[{"name": n, "data_type": "TYPE_FP32", "dims": dims} for n in outputs],
            ensemble_scheduling={
                "step": [
                    {
                        "model_name": step[0],
                        "model_version": step[3] if len(step) == 4 else -1,
                        "input_map": step[1],
                        "output_map": step[2],
                    }
                    for step in steps
                ],
                "max_inflight_requests": most,
            },
            **more,
        )
        self.write(name, config, (1,))

    def write(self, name: str, config: ModelConfig, versions: Sequence[int]) -> None:
        for version in versions:
            (self.root / name / str(version)).mkdir(parents=True, exist_ok=True)
        (self.root / name / "config.pbtxt").write_text(str(config))


def tensors(**values: Sequence[float] | Array) -> dict[str, Tensor]:
    """FP32 tensors by name; a plain sequence of numbers becomes a batch of one."""
    return {
        name: Tensor.from_numpy(name, np.asarray(value if isinstance(value, np.ndarray) else [value], np.float32))
        for name, value in values.items()
    }


def numbers(response: InferenceResponse) -> dict[str, list[Any]]:
    """The outputs of a response as lists; raises its error."""
    if response.error is not None:
        raise response.error
    return {tensor.name: tensor.numpy().tolist() for tensor in response.outputs}


class Answers:
    """``on_response`` of a request: all its responses, and an event for the last."""

    def __init__(self) -> None:
        self.all: list[InferenceResponse] = []
        self.final = asyncio.Event()

    def __call__(self, _: InferenceRequest, response: InferenceResponse) -> None:
        assert not self.final.is_set(), "a response after the final one"
        self.all.append(response)
        if response.final:
            self.final.set()


def ask(model: str, inputs: dict[str, Tensor], answers: Answers, **fields: Any) -> InferenceRequest:
    """A request whose responses go to ``answers``."""
    return InferenceRequest(model, inputs, on_response=answers, **fields)
