"""Models for the tests: small, real backends that the kernel loads and runs like any other."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from trivet import datatypes
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
    RequestInstance,
)
from trivet.errors import InternalError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor

CONFIGURATIONS = {
    "double": """
        max_batch_size: 8
        input { name: "INPUT0" data_type: TYPE_FP32 dims: [16] }
        output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [16] label_filename: "labels.txt" }
    """,
    "echo": "max_batch_size: 0\n"
    + "\n".join(
        f'input {{ name: "I_{kind.name}" data_type: {kind.config_name} dims: [-1] optional: true }}\n'
        f'output {{ name: "O_{kind.name}" data_type: {kind.config_name} dims: [-1] }}'
        for kind in datatypes.ALL
    ),
    "parameters": """
        max_batch_size: 0
        input { name: "IN" data_type: TYPE_INT32 dims: [1] }
        output { name: "OUT" data_type: TYPE_STRING dims: [1] }
    """,
    "gate": """
        max_batch_size: 0
        instance_group { count: 2 kind: KIND_CPU }
        input { name: "IN" data_type: TYPE_INT32 dims: [1] }
        output { name: "OUT" data_type: TYPE_INT32 dims: [1] }
    """,
    "flood": """
        max_batch_size: 0
        model_transaction_policy { decoupled: true }
        input { name: "IN" data_type: TYPE_INT32 dims: [1] }
        output { name: "OUT" data_type: TYPE_UINT8 dims: [-1] }
    """,
    "moan": """
        max_batch_size: 0
        input { name: "IN" data_type: TYPE_INT32 dims: [1] }
        output { name: "OUT" data_type: TYPE_INT32 dims: [1] }
    """,
    "repeat": """
        max_batch_size: 0
        model_transaction_policy { decoupled: true }
        input { name: "IN" data_type: TYPE_INT32 dims: [-1] }
        output { name: "OUT" data_type: TYPE_INT32 dims: [1] }
    """,
}


def write_models(repository: Path) -> Path:
    """A model repository with one version of each model."""
    for name, text in CONFIGURATIONS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(f'backend: "models"\n{text}')
    (repository / "double" / "labels.txt").write_text("ant\nbee\ncat\n")
    return repository


class Gate:
    """Lets a test hold requests by an input value from 1000 up, and see what became of them."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open: set[int] = set()
        self._waiting: dict[int, InferenceRequest] = {}
        self._round = 0

    def reset(self) -> None:
        """Let go whoever waits, and hold again from now on."""
        with self._lock:
            self._open = set()
            self._waiting = {}
            self._round += 1

    def open(self, *values: int) -> None:
        with self._lock:
            self._open.update(values)
            self._lock.notify_all()

    def request(self, value: int) -> InferenceRequest:
        """The request with that value, once it is executing."""
        with self._lock:
            assert self._lock.wait_for(lambda: value in self._waiting, 20)
            return self._waiting[value]

    def cancelled(self, value: int) -> bool:
        """Wait until the request with that value was cancelled."""
        request = self.request(value)
        with self._lock:
            return self._lock.wait_for(lambda: request.cancelled, 20)

    def pass_through(self, request: InferenceRequest, value: int) -> None:
        with self._lock:
            self._waiting[value] = request
            self._lock.notify_all()
            entered = self._round
            while value not in self._open and not request.cancelled and self._round == entered:
                # Nobody notifies of a cancellation: it is a flag that is set on the event loop.
                self._lock.wait(0.01)
            self._lock.notify_all()


GATE = Gate()


class Double(ArrayInstance):
    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        return {"OUTPUT0": inputs["INPUT0"].numpy() * np.float32(2)}


class Echo(RequestInstance):
    """Gives each input back."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            wanted = None if request.outputs is None else {output.name for output in request.outputs}
            outputs = [tensor.renamed(f"O_{name[2:]}") for name, tensor in request.inputs.items()]
            request.respond(InferenceResponse([o for o in outputs if wanted is None or o.name in wanted]))


class Parameters(RequestInstance):
    """Says what the request said beside its tensors."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            said = {
                "parameters": dict(request.parameters),
                "id": request.id,
                "correlation_id": request.correlation_id,
                "sequence_start": request.sequence_start,
                "sequence_end": request.sequence_end,
                "priority": request.priority,
                "timeout_us": request.timeout_us,
            }
            text = np.array([json.dumps(said).encode()], dtype=np.object_)
            answers = {"flag": True, "count": -7, "ratio": 0.5, "text": "hello"}
            request.respond(InferenceResponse([Tensor.from_numpy("OUT", text)], parameters=answers))


class Gated(RequestInstance):
    """Waits at the gate, then answers; a negative value is an error."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            value = int(request.inputs["IN"].numpy()[0])
            if value < 0:
                request.respond(InferenceResponse(error=InternalError(f"negative value {value}")))
                continue
            if value >= 1000:
                GATE.pass_through(request, value)
            request.respond(InferenceResponse([request.inputs["IN"].renamed("OUT")]))


class Repeat(RequestInstance):
    """One response per element, a negative one as an error, then the end."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            for value in request.inputs["IN"].numpy():
                if value >= 1000:
                    GATE.pass_through(request, int(value))
                if value < 0:
                    error = InternalError(f"negative element {value}")
                    request.respond(InferenceResponse(error=error, final=False))
                else:
                    out = Tensor.from_numpy("OUT", np.array([value], np.int32))
                    request.respond(InferenceResponse([out], final=False))
            request.respond(InferenceResponse(final=True))


class FloodLevel:
    """How many responses the model ``flood`` has given to its last request."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._given = 0
        self._running = False

    def begin(self) -> None:
        with self._lock:
            self._given, self._running = 0, True

    def rise(self) -> None:
        with self._lock:
            self._given += 1
            self._lock.notify_all()

    def end(self) -> None:
        with self._lock:
            self._running = False
            self._lock.notify_all()

    def settled(self) -> int:
        """The number, once it has not changed for a while."""
        with self._lock:
            while self._lock.wait(0.5):
                pass
            return self._given

    def ended(self) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: not self._running, 20)


FLOOD = FloodLevel()


class Flood(RequestInstance):
    """As many responses of a megabyte as asked for, as fast as they are taken."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        for request in requests:
            FLOOD.begin()
            for _ in range(int(request.inputs["IN"].numpy()[0])):
                request.respond(InferenceResponse([Tensor.from_numpy("OUT", np.zeros(2**20, np.uint8))], final=False))
                FLOOD.rise()
            request.respond(InferenceResponse(final=True))
            FLOOD.end()


class Moan(RequestInstance):
    """Fails, with half a surrogate pair and as many e with an accent as the input says."""

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        raise InternalError("\ud800 " + "é" * int(requests[0].inputs["IN"].numpy()[0]))


INSTANCES: dict[str, type[BackendInstance]] = {
    "double": Double,
    "echo": Echo,
    "parameters": Parameters,
    "gate": Gated,
    "repeat": Repeat,
    "flood": Flood,
    "moan": Moan,
}


class Model(BackendModel):
    def __init__(self, kind: type[BackendInstance]) -> None:
        self._kind = kind

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return self._kind()


class ModelsBackend(Backend):
    def load(self, context: ModelContext) -> BackendModel:
        return Model(INSTANCES[context.name])
