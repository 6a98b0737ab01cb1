"""How a model uses the other models of the server: on its own threads, and through its scheduler on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from trivet.backend import ModelCaller
from trivet.errors import DeadlineExceededError, InternalError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse

if TYPE_CHECKING:
    from trivet.engine import Engine
    from trivet.lifecycle import LoadedModel
    from trivet.model_table import ModelTable
    from trivet.scheduling import ServedModel


class EngineCaller(ModelCaller):
    """Hands requests from any thread to the engine's loop, and responses back."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._loop_thread = threading.get_ident()

    def infer(self, request: InferenceRequest, timeout_s: float | None = None) -> InferenceResponse:
        if threading.get_ident() == self._loop_thread:
            raise InternalError(
                "a model cannot wait for another model on the event loop; call from a thread of its own"
            )
        done = threading.Event()
        answer: list[InferenceResponse] = []

        def on_response(response: InferenceResponse) -> None:
            if response.final:
                answer.append(response)
                done.set()

        self.submit(request, on_response)
        if not done.wait(timeout_s):
            self._loop.call_soon_threadsafe(self._engine.cancel, request)
            raise DeadlineExceededError(f"model '{request.model_name}' gave no response within {timeout_s} s")
        return answer[0]

    def submit(self, request: InferenceRequest, on_response: Callable[[InferenceResponse], None]) -> None:
        request.on_response = lambda _, response: on_response(response)

        def enter() -> None:
            try:
                self._engine.submit(request)
            except TrivetError as error:
                on_response(InferenceResponse(error=error))

        self._loop.call_soon_threadsafe(enter)

    def is_ready(self, name: str, version: str = "") -> bool:
        # Reads two dictionaries; safe from any thread without asking the loop.
        return self._engine.model_ready(name, version)


class MemberAccess:
    """The engine's models for the scheduler of one of them: :class:`~trivet.scheduling.ModelAccess`."""

    def __init__(
        self,
        table: ModelTable,
        enter: Callable[[LoadedModel, InferenceRequest], None],
        cancel: Callable[[InferenceRequest], None],
    ) -> None:
        """``enter`` validates a request and queues it with a model that is found already."""
        self._table = table
        self._enter = enter
        self.cancel = cancel

    def find(self, name: str, version: int = -1) -> LoadedModel:
        return self._table.model(name, "" if version == -1 else str(version))

    def submit(self, model: ServedModel, request: InferenceRequest) -> None:
        self._enter(cast("LoadedModel", model), request)
