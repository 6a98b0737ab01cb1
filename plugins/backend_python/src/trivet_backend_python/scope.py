"""What a model's code runs for: which model it is, in which phase, and for which requests.

Whatever ``pb_utils`` offers as a plain function finds it here. A context variable carries it through the model's own
coroutines and tasks; a thread that a model started has none, and there the call stack tells at least the model.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from enum import Enum

from trivet.inference import Execution, InferenceRequest

from trivet_backend_python import modules
from trivet_backend_python.modules import ModelPackage
from trivet_backend_python.waits import Waits


class Phase(Enum):
    """Where in a model's life its code runs."""

    IMPORT = "import"
    """Its file is executed, or ``auto_complete_config`` is."""
    INITIALIZE = "initialize"
    EXECUTE = "execute"
    FINALIZE = "finalize"
    THREAD = "thread"
    """On a thread that the model started, at any time."""


class Scope:
    """One run of a model's code."""

    __slots__ = ("_execution", "_holds_instance", "_requests", "package", "phase", "waits")

    def __init__(
        self,
        package: ModelPackage,
        phase: Phase,
        requests: Sequence[InferenceRequest] = (),
        *,
        holds_instance: bool = True,
    ) -> None:
        self.package = package
        self.phase = phase
        self.waits: Waits | None = None
        """Set by the first call that gives several responses."""
        self._requests = requests
        self._holds_instance = holds_instance
        self._execution: Execution | None = None

    @property
    def execution(self) -> Execution | None:
        """What other models are called for; ``None`` where that is not known."""
        if self._execution is None and self._requests:
            self._execution = Execution(self._requests, holds_instance=self._holds_instance)
        return self._execution


current: ContextVar[Scope | None] = ContextVar("trivet_model_scope", default=None)
_threads = threading.local()


@contextlib.contextmanager
def running(package: ModelPackage, phase: Phase) -> Iterator[None]:
    """Run a model's code in a phase in which it executes no requests."""
    token = current.set(Scope(package, phase))
    try:
        yield
    finally:
        current.reset(token)


def find() -> Scope | None:
    """The scope of the code that calls; ``None`` outside of any model's."""
    scope = current.get()
    if scope is None:
        package = modules.calling_model()
        if package is None:
            return None
        scope = getattr(_threads, "scope", None)
        if scope is None or scope.package is not package:
            scope = _threads.scope = Scope(package, Phase.THREAD)
    return scope


def calling_model() -> ModelPackage | None:
    """The model whose code calls; ``None`` outside of any."""
    scope = current.get()
    return modules.calling_model() if scope is None else scope.package
