"""A model instance: a thread that takes batches from a queue, executes them, and posts the answers back.

Everything a backend's :class:`~trivet.backend.BackendInstance` does, from creation to close, happens on this thread. It
blocks on a C queue, so an idle instance costs nothing, and several instances of a model may share one queue.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from time import perf_counter_ns
from typing import TYPE_CHECKING

from trivet import warmup
from trivet.backend import ArrayInstance, BackendInstance, BackendModel, InstanceContext, RequestInstance
from trivet.batching import gather, share_extra_inputs, split
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, named_message_of
from trivet.extra_outputs import split_extra_outputs, take_extra_outputs
from trivet.inference import InferenceRequest, InferenceResponse, check_is_response
from trivet.loop import LoopInbox, LoopOutbox
from trivet.memory import place
from trivet.reshaping import reshape_inputs, reshape_outputs
from trivet.scheduling import Batch

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec
    from trivet.datatypes import DataType
    from trivet.statistics import ModelStatistics
    from trivet.warmup import WarmupSample

logger = logging.getLogger(__name__)

WorkQueue = LoopOutbox["Batch | None"]
"""Batches for the threads that take from it; ``None`` ends one thread."""


class Finished:
    """What an instance posts to the event loop: answers to requests, and the batch if its execution ended with them.

    ``executed`` are those of the batch's requests that were executed: all but what was cancelled before;
    ``rescheduled`` are those of them that go back to the scheduler.
    """

    __slots__ = ("batch", "executed", "instance", "rescheduled", "responses")

    def __init__(
        self,
        instance: Instance,
        responses: Sequence[tuple[InferenceRequest, InferenceResponse]],
        batch: Batch | None = None,
        executed: Sequence[InferenceRequest] = (),
        rescheduled: Sequence[InferenceRequest] = (),
    ) -> None:
        self.instance = instance
        self.responses = responses
        self.batch = batch
        self.executed = executed
        self.rescheduled = rescheduled


class Instance:
    """One instance of one model version. Constructed on the event loop; :meth:`start` runs its thread."""

    def __init__(
        self,
        model: BackendModel,
        context: InstanceContext,
        spec: ModelSpec,
        queue: WorkQueue,
        inbox: LoopInbox[Finished],
        warmup_samples: Sequence[WarmupSample] = (),
    ) -> None:
        self._model: BackendModel | None = model
        """Until the backend's instance is made of it: whoever still has this then does not keep that in memory."""
        self.context = context
        self._spec = spec
        self._queue = queue
        self._post = inbox.post
        self._warmup_samples = warmup_samples
        self._warmup_executions: list[Sequence[InferenceRequest]] = []
        self._thread: threading.Thread | None = None
        self._backend: BackendInstance | None = None
        self._serving = False
        self._held: Finished | None = None
        """What an execution ended with while the next batch waited; see :meth:`_finish`."""
        self.submit: Callable[[Batch], None] = queue.put
        """Queue a batch for this thread; from the event loop, returns at once. Leads through the rate limiter where
        there is one."""

    @property
    def name(self) -> str:
        """``GROUP_INDEX``, and the name of its thread."""
        return self.context.name

    def start(self, started: Callable[[Exception | None], None]) -> None:
        """Create the backend's instance on a new thread and warm it up; call ``started`` from there with what went
        wrong.
        """
        # A daemon: a model that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(started,), name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let one thread that takes from this instance's queue end once the queue is empty. From the event loop."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread to end. From a worker thread."""
        if self._thread is not None:
            self._thread.join()

    def count_warmup(self, statistics: ModelStatistics) -> None:
        """Count what was executed to warm up, and forget it. From the event loop, after the start."""
        executions, self._warmup_executions = self._warmup_executions, []
        for requests in executions:
            statistics.executed(requests)
        for request in dict.fromkeys(chain.from_iterable(executions)):
            statistics.request_succeeded(request, request.compute_end_ns)

    def _run(self, started: Callable[[Exception | None], None]) -> None:
        model, self._model = self._model, None
        assert model is not None
        try:
            self.context.host_policy.apply()
            self._backend = backend = model.create_instance(self.context)
        except BaseException as error:  # noqa: BLE001 - a model's constructor may raise anything, SystemExit included
            started(_as_error(error, f"failed to create model instance '{self.name}'"))
            return
        finally:
            del model
        execute: Callable[[Batch], None]
        if isinstance(backend, ArrayInstance):
            execute = partial(self._execute_arrays, backend)
        elif isinstance(backend, RequestInstance):
            execute = partial(self._execute_requests, backend)
        else:
            kind = type(backend).__name__
            started(
                InternalError(f"model instance '{self.name}' is a {kind}, expected an ArrayInstance or RequestInstance")
            )
            return
        try:
            self._warm_up(execute)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the load must hear of it
            self._close()
            started(_as_error(error, f"failed to warm up model instance '{self.name}'"))
            return
        started(None)
        self._serving = True
        while (batch := self._take()) is not None:
            execute(batch)
            # Do not keep a request's tensors alive while waiting for the next one.
            del batch
        self._post_held()
        del execute, backend
        self._close()

    def _take(self) -> Batch | None:
        """The next batch. Waits for it only when the loop knows of all that was executed."""
        if self._held is not None:
            with suppress(Empty):  # another instance may have been faster
                return self._queue.get_nowait()
            self._post_held()
        return self._queue.get()

    def _warm_up(self, execute: Callable[[Batch], None]) -> None:
        """Execute the samples of ``model_warmup``, whose answers concern nobody but this thread."""
        finished: SimpleQueue[Finished] = SimpleQueue()
        post, self._post = self._post, finished.put
        try:
            self._warmup_executions = warmup.run(self._warmup_samples, execute, finished.get)
        finally:
            self._post = post
            self._warmup_samples = ()

    def _close(self) -> None:
        assert self._backend is not None
        try:
            self._backend.close()
        except BaseException:
            logger.exception("model instance '%s' failed to close", self.name)
        self._backend = None

    def _execute_arrays(self, backend: ArrayInstance, batch: Batch) -> None:
        requests = _to_execute(batch)
        responses: list[tuple[InferenceRequest, InferenceResponse]] = []
        if requests:
            start = perf_counter_ns()
            input_end = infer_end = 0
            for request in requests:
                request.compute_start_ns = start
            try:
                inputs = gather(
                    self._spec, requests, batch.extra_inputs, backend.batch_memory, backend.batch_gpu_memory
                )
                self._post_held()
                names = self._wanted(requests, batch.extra_outputs)
                backend.placed = placed = _on_devices(requests)
                input_end = perf_counter_ns()
                results = backend.execute(inputs, names)
                infer_end = perf_counter_ns()
                answers = split(self._spec, requests, results, placed)
                if batch.extra_outputs:
                    batch.extra_results = split_extra_outputs(self._spec, requests, results, batch.extra_outputs)
            except BaseException as error:  # noqa: BLE001 - whatever a model raises fails its batch and nothing else
                failure = _as_error(error, f"model instance '{self.name}' failed")
                if (
                    isinstance(failure, InvalidArgumentError)
                    and len(requests) > 1
                    and not (batch.whole or batch.extra_outputs)
                ):
                    answers = [self._execute_alone(backend, request) for request in requests]
                else:
                    answers = [InferenceResponse(error=failure) for _ in requests]
            responses = list(zip(requests, answers, strict=True))
            _place(responses)
            end = perf_counter_ns()
            for request in requests:
                request.input_end_ns = input_end or end
                request.infer_end_ns = infer_end or end
                request.compute_end_ns = end
                request.done = True
        self._finish(Finished(self, responses, batch, requests))

    def _execute_alone(self, backend: ArrayInstance, request: InferenceRequest) -> InferenceResponse:
        """Execute one request of a batch that failed over somebody's input, so that it costs no other request."""
        try:
            inputs = gather(self._spec, (request,), None, backend.batch_memory)
            backend.placed = _on_devices((request,))
            (answer,) = split(self._spec, (request,), backend.execute(inputs, self._wanted((request,), None)))
        except BaseException as error:  # noqa: BLE001 - see _execute_arrays
            return InferenceResponse(error=_as_error(error, f"model instance '{self.name}' failed"))
        return answer

    def _finish(self, finished: Finished) -> None:
        """Post what an execution of arrays ended with: at once, or when the inputs of a batch that waits are together.

        The loop, once woken, reads what the answered clients ask next. A thread that copies inputs meanwhile waits for
        the interpreter lock at every turn, and the model waits with it.
        """
        self._post_held()
        if self._serving and self._queue.ready():
            self._held = finished
        else:
            self._post(finished)

    def _post_held(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._post(held)

    def _execute_requests(self, backend: RequestInstance, batch: Batch) -> None:
        requests = _to_execute(batch)
        answers: list[tuple[InferenceRequest, InferenceResponse]] = []
        rescheduled: list[InferenceRequest] = []
        if requests:
            start = perf_counter_ns()
            respond = partial(self._respond_and_take, batch) if batch.extra_outputs else self._respond
            for request in requests:
                request.compute_start_ns = request.input_end_ns = start
                request.responder = respond
                request.rescheduled = False
            try:
                if batch.extra_inputs:
                    share_extra_inputs(requests, batch.extra_inputs)
                if self._spec.reshaped_inputs:
                    for request in requests:
                        request.inputs = reshape_inputs(self._spec, request.inputs)
                responses = backend.execute(requests)
                if responses is not None:
                    if batch.extra_outputs:
                        for request, response in zip(requests, responses, strict=False):
                            if response is not None:
                                take_extra_outputs(self._spec, batch, request, response)
                    answers = self._returned(requests, responses)
            except BaseException as error:  # noqa: BLE001 - see _execute_arrays
                failure = _as_error(error, f"model instance '{self.name}' failed")
                open_requests = [request for request in requests if not request.done]
                answers = self._returned(open_requests, [InferenceResponse(error=failure)] * len(open_requests))
            if len(answers) < len(requests):
                rescheduled = [request for request in requests if request.rescheduled and not request.done]
        self._post(Finished(self, answers, batch, requests, rescheduled))

    def _returned(
        self, requests: Sequence[InferenceRequest], responses: Sequence[InferenceResponse | None]
    ) -> list[tuple[InferenceRequest, InferenceResponse]]:
        """Pair the responses that ``execute`` returned with their requests."""
        if len(responses) != len(requests):
            raise InternalError(
                f"model instance '{self.name}' returned {len(responses)} responses to {len(requests)} requests"
            )
        pairs = zip(requests, responses, strict=True)
        answers = [(request, response) for request, response in pairs if response is not None]
        for _, response in answers:
            check_is_response(response)
            response.final = True  # by contract; a request whose returned response was not would never be answered
            if self._spec.reshaped_outputs:
                self._reshape(response)
        _place(answers)
        now = perf_counter_ns()
        for request, _ in answers:
            if not request.infer_end_ns:
                request.infer_end_ns = now
            request.compute_end_ns = now
            request.done = True
        return answers

    def _reshape(self, response: InferenceResponse) -> None:
        """A model's output that does not have the shape to be reshaped costs its own request, and no other."""
        try:
            response.outputs = reshape_outputs(self._spec, response.outputs)
        except TrivetError as error:
            response.outputs = ()
            response.error = error

    def _respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """``InferenceRequest.respond`` of the requests executing here; any thread."""
        if request.done:
            if not request.cancelled:  # a model need not have heard of that yet
                logger.warning("instance '%s' answered request '%s' after its final response", self.name, request.id)
            return
        if self._spec.reshaped_outputs:
            response.outputs = reshape_outputs(self._spec, response.outputs)
        _place(((request, response),))
        now = perf_counter_ns()
        if not request.infer_end_ns:
            request.infer_end_ns = now
        request.compute_end_ns = response.made_ns = now
        request.done = response.final
        self._post(Finished(self, ((request, response),)))

    def _respond_and_take(self, batch: Batch, request: InferenceRequest, response: InferenceResponse) -> None:
        """As :meth:`_respond`, where the scheduler wants some of the outputs."""
        if not request.done:
            take_extra_outputs(self._spec, batch, request, response)
        self._respond(request, response)

    def _wanted(self, requests: Sequence[InferenceRequest], extra: Mapping[str, DataType] | None) -> Sequence[str]:
        """Names of the outputs that any request asks for, in the configuration's order, and the scheduler's."""
        names: Sequence[str] = self._spec.output_names
        wanted: set[str] = set()
        for request in requests:
            if request.outputs is None:
                break
            wanted.update(output.name for output in request.outputs)
        else:
            names = [name for name in names if name in wanted]
        return [*names, *(name for name in extra if name not in names)] if extra else names


def _to_execute(batch: Batch) -> Sequence[InferenceRequest]:
    """The batch without what was cancelled; whole where the scheduler laid out inputs for the whole of it."""
    if batch.whole:
        return batch.requests
    return [request for request in batch.requests if not request.cancelled]


def _on_devices(requests: Sequence[InferenceRequest]) -> Collection[str]:
    """The outputs that every caller wants in memory on a GPU."""
    placed: set[str] | None = None
    for request in requests:
        if request.regions is None:
            return ()
        names = {name for name, region in request.regions.items() if region.on_device}
        placed = names if placed is None else placed & names
    return placed or ()


def _place(answers: Iterable[tuple[InferenceRequest, InferenceResponse]]) -> None:
    """Put outputs into shared memory; a response whose outputs do not fit becomes an error, and costs no other.

    So does one that was made of an input whose memory went away while it was read.
    """
    for request, response in answers:
        try:
            for tensor in request.inputs.values():
                region = tensor.region
                if region is not None:
                    region.check()
            if request.regions is not None:
                place(request, response)
        except Exception as error:  # noqa: BLE001 - the memory is the client's, and anything may have happened to it
            response.outputs = ()
            response.error = _as_error(
                error, f"output of model '{request.model_name}' cannot be put into shared memory"
            )


def _as_error(error: BaseException, what: str) -> TrivetError:
    """The error for the caller; anything that is not meant for one is logged with its traceback."""
    if isinstance(error, TrivetError):
        # Its traceback leads to the requests that it is the answer to, and would keep their memory until the next
        # collection.
        return error.with_traceback(None)
    logger.error("%s", what, exc_info=error)
    return InternalError(f"{what}: {named_message_of(error)}")
