"""How a model uses the other models of the server: on its own threads, and through its scheduler on the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

from trivet.backend import ModelCaller
from trivet.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    RequestCancelledError,
    TrivetError,
    UnavailableError,
    named_message_of,
)
from trivet.inference import Execution, InferenceRequest, InferenceResponse
from trivet.loop import LoopInbox

if TYPE_CHECKING:
    from trivet.engine import Engine
    from trivet.lifecycle import LoadedModel
    from trivet.model_table import ModelTable
    from trivet.scheduling import ServedModel

logger = logging.getLogger(__name__)

_STOPPED = "Server is stopping, models can ask nothing of it any more"


class EngineCaller(ModelCaller):
    """Hands requests from any thread to the engine's loop, and responses back."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._inbox: LoopInbox[Callable[[], None]] = LoopInbox(loop, _run)
        self._loop_thread = threading.get_ident()
        # Held while something is handed over, so that close() has all of it before it or none: a callback that is
        # scheduled on a loop which then ends would never run, and its caller wait for ever.
        # Reentrant: an iterator over responses that the garbage collector closes cancels its request, on whichever
        # thread it is that allocates something just now.
        self._lock = threading.RLock()
        self._closed = False
        self._controls: dict[Future[None], asyncio.Task[None]] = {}
        self._waits_for: dict[str, list[str]] = {}

    def infer(self, request: InferenceRequest, timeout_s: float | None = None) -> InferenceResponse:
        self._refuse_loop("wait for another model")
        answered = threading.Lock()
        answered.acquire()
        answer: list[InferenceResponse] = []

        def on_response(response: InferenceResponse) -> None:
            if response.final:
                answer.append(response)
                answered.release()

        self.submit(request, on_response)
        if not answered.acquire(timeout=-1 if timeout_s is None else timeout_s):
            self.cancel(request)
            raise DeadlineExceededError(f"model '{request.model_name}' gave no response within {timeout_s} s")
        return answer[0]

    def submit(self, request: InferenceRequest, on_response: Callable[[InferenceResponse], None]) -> None:
        def enter() -> None:
            try:
                self._enter(request, on_response)
            except TrivetError as error:
                on_response(InferenceResponse(error=error))
            except Exception as error:
                # A model may have put anything into its request; it waits for an answer all the same.
                logger.exception("a request that a model made of model '%s' failed", request.model_name)
                failure = InternalError(f"the request cannot be run: {named_message_of(error)}")
                on_response(InferenceResponse(error=failure))

        if not self._post(enter):
            on_response(InferenceResponse(error=UnavailableError(_STOPPED)))

    def cancel(self, request: InferenceRequest) -> None:
        # Once the engine has stopped there is nothing to cancel.
        self._post(lambda: self._engine.cancel(request))

    def is_ready(self, name: str, version: str = "") -> bool:
        # Reads two dictionaries; safe from any thread without asking the loop.
        return self._engine.model_ready(name, version)

    def is_decoupled(self, name: str, version: str = "") -> bool:
        try:
            return self._engine.model(name, version).spec.decoupled  # as is_ready
        except TrivetError:
            return False

    def on_loop(self) -> bool:
        return threading.get_ident() == self._loop_thread

    def load(
        self,
        name: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        loading: str | None = None,
    ) -> None:
        self._control(name, loading, lambda: self._engine.load(name, config=config, files=files))

    def unload(self, name: str, *, unload_dependents: bool = False, loading: str | None = None) -> None:
        self._control(name, loading, lambda: self._engine.unload(name, unload_dependents=unload_dependents))

    def close(self) -> None:
        """On the event loop, when the engine has stopped: answer what still comes with an error, here and now."""
        with self._lock:
            self._closed = True
        self._inbox.flush()
        for future, task in list(self._controls.items()):
            task.cancel()
            _settle(future, UnavailableError(_STOPPED))

    def _post(self, call: Callable[[], None]) -> bool:
        """Have ``call`` run on the event loop; False where that is no more."""
        with self._lock:
            if not self._closed:
                self._inbox.post(call)
            return not self._closed

    def _enter(self, request: InferenceRequest, on_response: Callable[[InferenceResponse], None]) -> None:
        origin = request.origin
        if origin is None:
            request.on_response = lambda _, response: on_response(response)
            self._engine.submit_inner(request)
            return
        if origin.cancelled:
            raise RequestCancelledError(request.tagged("Cancelled"))
        self._refuse_deadlock(request, origin)

        def forward(request: InferenceRequest, response: InferenceResponse) -> None:
            if response.final:
                origin.made.discard(request)
            on_response(response)

        request.on_response = forward
        for executed in origin.requests:
            executed.execution = origin
        if request.parent is None and len(origin.requests) == 1:
            request.parent = origin.requests[0]
        origin.made.add(request)
        try:
            self._engine.submit_inner(request)
        except BaseException:
            origin.made.discard(request)
            raise

    def _refuse_deadlock(self, request: InferenceRequest, origin: Execution) -> None:
        """A request for which all instances of its model wait would never be executed."""
        waiting = [
            execution
            for execution in _ancestors(origin)
            if execution.holds_instance and execution.requests[0].model_name == request.model_name
        ]
        if not waiting:
            return
        model = self._engine.model(request.model_name, request.model_version)
        held = sum(execution.requests[0].model is model for execution in waiting)
        if held >= len(model.instances) > 0:
            raise InvalidArgumentError(
                f"model '{model.name}' calls itself: all of its {len(model.instances)} instances (instance_group.count)"
                " would wait for a response that none of them is free to give"
            )

    def _control(self, name: str, loading: str | None, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._refuse_loop("wait until a model is loaded or unloaded")
        future: Future[None] = Future()

        def begin() -> None:
            try:
                self._begin(future, name, loading, act)
            except TrivetError as error:
                _settle(future, error)

        if not self._post(begin):
            raise UnavailableError(_STOPPED)
        future.result()

    def _begin(
        self, future: Future[None], name: str, loading: str | None, act: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        if self._engine.draining:
            raise UnavailableError("Server is stopping, it loads and unloads no models")
        if loading is not None:
            # One load or unload of a model runs at a time.
            if loading == name or loading in self._all_waited_for(name):
                raise InvalidArgumentError(
                    f"model '{name}' cannot be loaded or unloaded by model '{loading}' now: they would wait for each"
                    f" other, as '{loading}' is being loaded itself"
                )
            self._waits_for.setdefault(loading, []).append(name)
        task = asyncio.ensure_future(act())
        self._controls[future] = task

        def done(task: asyncio.Task[None]) -> None:
            del self._controls[future]
            if loading is not None:
                self._waits_for[loading].remove(name)
                if not self._waits_for[loading]:
                    del self._waits_for[loading]
            if not task.cancelled():
                _settle(future, task.exception())

        task.add_done_callback(done)

    def _all_waited_for(self, name: str) -> set[str]:
        """The models that the load of ``name`` waits for, directly or through others."""
        found: set[str] = set()
        todo = [name]
        while todo:
            new = set(self._waits_for.get(todo.pop(), ())) - found
            found |= new
            todo += new
        return found

    def _refuse_loop(self, what: str) -> None:
        if self.on_loop():
            raise InternalError(f"a model cannot {what} on the event loop; call from a thread of its own")


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


def _run(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:
        logger.exception("what a model asked of the server failed")


def _settle(future: Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _ancestors(origin: Execution) -> set[Execution]:
    """The executions that wait for a request made in ``origin``, itself included."""
    found = {origin}
    todo = [origin]
    while todo:
        above = {request.origin for request in todo.pop().requests if request.origin is not None} - found
        found |= above
        todo += above
    return found
