"""A small real backend for the kernel's tests: element-wise arithmetic, with switches that tests turn.

A model's version folder holds ``model.arith`` with the factor to multiply by. Instances of the contract's two kinds are
chosen by the configuration's parameter ``contract`` (``arrays`` or ``requests``).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from trivet import hookimpl
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
from trivet.errors import InvalidArgumentError
from trivet.hookspecs import BackendPlugin
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor


class Gate:
    """Lets a test hold a model inside ``execute`` until it says go."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)

    def __enter__(self) -> Gate:
        self.open.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()

    def wait_until_entered(self) -> None:
        """Block until an instance is inside ``execute``. From any thread but an instance's."""
        assert self.entered.acquire(timeout=30)

    def passed(self) -> None:
        self.entered.release()
        assert self.open.wait(timeout=30)


class Journal:
    """What the backend did, for tests to read."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.batches: list[int] = []
        self.threads: dict[str, set[int]] = {}
        self.closed: list[str] = []
        self.loaded: list[weakref.ref[Model]] = []
        self.alive_at_trim: list[int] = []

    def note(self, what: str) -> None:
        self.threads.setdefault(what, set()).add(threading.get_ident())


class Model(BackendModel):
    def __init__(self, context: ModelContext, journal: Journal) -> None:
        self.context = context
        self.journal = journal
        source = context.version_path / "model.arith"
        if not source.is_file():
            raise InvalidArgumentError(f"model '{context.name}' has no file '{source}'; write the factor into it")
        self.factor = float(source.read_text())
        self.cycle = self if "cycle" in context.parameters else None
        journal.loaded.append(weakref.ref(self))

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        self.journal.note("create")
        if self.context.parameters.get("fail") == "create":
            raise RuntimeError("no room for this instance")
        if self.context.parameters.get("fail") == "refuse":
            raise InvalidArgumentError("there is to be no instance")
        contract = self.context.parameters.get("contract", "arrays")
        return (Requests if contract == "requests" else Arrays)(self)

    def close(self) -> None:
        self.journal.closed.append(f"{self.context.name}/{self.context.version}")


class Arrays(ArrayInstance):
    def __init__(self, model: Model) -> None:
        self.model = model

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        self.model.journal.note("execute")
        self.model.journal.gate.passed()
        x = inputs["x"].numpy()
        self.model.journal.batches.append(len(x))
        if np.isposinf(x).any():
            raise InvalidArgumentError("an input is infinite")
        if (x < 0).any():
            raise ValueError("negative input")
        return {"y": x * x.dtype.type(self.model.factor)}

    def close(self) -> None:
        self.model.journal.note("close")


class Requests(RequestInstance):
    """Answers once per unit of the first element where the model is decoupled, else once."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse] | None:
        self.model.journal.note("execute")
        self.model.journal.gate.passed()
        for request in requests:
            x = request.inputs["x"].numpy()
            if (x < 0).any():
                raise ValueError("negative input")
            y = Tensor.from_numpy("y", x * x.dtype.type(self.model.factor))
            for _ in range(int(self.model.context.parameters.get("responses", "1")) - 1):
                request.respond(InferenceResponse([y], final=False))
            request.respond(InferenceResponse([y]))


class ArithmeticBackend(Backend):
    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def auto_complete(self, context: ModelContext) -> None:
        config = context.config
        if context.parameters.get("fail") == "complete":
            raise RuntimeError("its file says nothing")
        if not config.input:
            config.input.add(name="x", data_type="TYPE_FP32", dims=[-1])
        if not config.output:
            config.output.add(name="y", data_type="TYPE_FP32", dims=[-1])

    def load(self, context: ModelContext) -> BackendModel:
        return Model(context, self.journal)

    def trim(self) -> None:
        self.journal.alive_at_trim.append(sum(model() is not None for model in self.journal.loaded))


class ArithmeticPlugin:
    """The plugin object: one per test, so that one test's journal is its own."""

    def __init__(self) -> None:
        self.journal = Journal()

    @hookimpl
    def trivet_backends(self) -> Sequence[BackendPlugin]:
        return [
            BackendPlugin(
                name="arithmetic",
                factory=self._make,
                model_filenames=("model.arith",),
                config_fields=("model_transaction_policy.decoupled",),
            )
        ]

    def _make(self, *_: Any) -> Backend:
        return ArithmeticBackend(self.journal)
