"""The way back: from what instances and schedulers answer to whoever asked, counted and traced as it goes out.

On the event loop. Every request gets exactly one final response: what comes after that is dropped here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

from trivet.errors import Code, InternalError, TrivetError, named_message_of
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.statistics import FailureReason
from trivet.throttle import Throttle

if TYPE_CHECKING:
    from trivet.instance import Finished
    from trivet.lifecycle import LoadedModel
    from trivet.tracing import Tracing

logger = logging.getLogger(__name__)


class Delivery:
    """Gives responses to those who asked, whatever an instance, a scheduler or a caller that goes away does."""

    def __init__(self, tracing: Tracing) -> None:
        self.on_finished: list[Callable[[InferenceRequest, InferenceResponse], None]] = []
        """See :attr:`trivet.engine.Engine.on_finished`."""
        self._tracing = tracing

    def finished(self, item: Finished) -> None:
        """What instances post: answers, and batches that ended."""
        for request, response in item.responses:
            assert request.model is not None
            scheduler = request.model.scheduler
            if scheduler.orders_responses:
                try:
                    scheduler.deliver(request, response)
                except Exception as error:  # noqa: BLE001 - whatever a plugin raises is logged there
                    self._stumbled(request, "deliver a response", error)
            else:
                self.answer(request, response)
        batch = item.batch
        if batch is None:
            return
        model = batch.requests[0].model
        assert model is not None
        if item.executed:
            model.statistics.executed(item.executed)
        for request in item.rescheduled:
            self._reschedule(model, request)
        try:
            model.scheduler.batch_done(item.instance, batch)
        except Exception:
            logger.exception("the scheduler of model '%s' failed when a batch was done", model.name)

    def _reschedule(self, model: LoadedModel, request: InferenceRequest) -> None:
        """A model has executed a step of a request, and wants the request again for the next one."""
        if request not in model.in_flight:
            return
        throttle = request.throttle
        if isinstance(throttle, Throttle) and throttle.holds():
            # Its caller has yet to read what there is; the next step would only hold up those that share it.
            throttle.when_room(partial(self._reschedule, model, request))
            return
        request.rescheduled = False
        request.responder = None
        request.infer_end_ns = 0
        try:
            model.scheduler.reschedule(request)
        except TrivetError as error:
            self.reject(request, error)
        except Exception as error:  # noqa: BLE001 - as in finished
            self._stumbled(request, "queue the next step of a request", error)

    def _stumbled(self, request: InferenceRequest, what: str, error: Exception) -> None:
        """A scheduler failed at one request, which must not cost what was posted behind it."""
        logger.error("model '%s' failed to %s", request.model_name, what, exc_info=error)
        reason = named_message_of(error)
        self.reject(request, InternalError(f"model '{request.model_name}' failed to {what}: {reason}"))

    def answer(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Send a response on its way, and count it; nothing where the request has its final one. Does not raise."""
        model = request.model
        assert model is not None
        if request not in model.in_flight:
            # It was cancelled or rejected while an instance worked on it, and has its final response.
            return
        if model.spec.decoupled:
            model.statistics.responded(request, response, perf_counter_ns())
        if response.final:
            model.finished(request)
            now = request.answered_ns = perf_counter_ns()
            if response.error is not None:
                model.statistics.request_failed(request, now, _failure_reason(request, response.error))
            elif request.cache_access is None:
                model.statistics.request_succeeded(request, now)
            else:
                request.cache_access.succeeded(model, request, response, now)
        elif request.cache_access is not None:
            request.cache_access.forget()
        self._deliver(request, response)

    def reject(self, request: InferenceRequest, error: TrivetError) -> None:
        """Give a request in flight an error as its final response."""
        request.done = True
        self.answer(request, InferenceResponse(error=error))

    def withdraw(self, request: InferenceRequest, error: TrivetError) -> None:
        """Take a request from whoever holds it, and give it an error as its final response, unless it has one."""
        model = request.model
        if model is None or request not in model.in_flight:
            return
        request.cancelled = True
        if request.on_cancel is not None:
            try:
                request.on_cancel(request)
            except Exception:
                logger.exception("the scheduler of model '%s' failed to let go of a request", request.model_name)
        self.reject(request, error)

    def respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Answer a request that no instance executed, for a scheduler."""
        if request.done:
            return
        request.done = response.final
        model = request.model
        assert model is not None
        if response.final and response.error is None and request in model.in_flight:
            model.statistics.executed((request,))
        self.answer(request, response)

    def _deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        traced = request.trace
        # Taking the time is among what a trace costs most.
        begun_ns = 0 if traced is None else (response.final and request.answered_ns) or perf_counter_ns()
        if request.on_response is not None:
            try:
                request.on_response(request, response)
            except Exception as error:
                # A protocol that fails to write one answer must not cost the answers behind it, and whoever asked still
                # waits for this one.
                logger.exception("response to request '%s' of model '%s' failed", request.id, request.model_name)
                if response.error is None:
                    failure = InternalError(
                        f"the response of model '{request.model_name}' cannot be sent: {type(error).__name__}: {error}"
                    )
                    self._deliver(request, InferenceResponse(error=failure, final=response.final))
                    return
        if traced is not None:
            self._tracing.delivered(traced, request, response, begun_ns)
        if response.final:
            for observer in self.on_finished:
                try:
                    observer(request, response)
                except Exception:
                    logger.exception("observer %r failed on a response of model '%s'", observer, request.model_name)


def _failure_reason(request: InferenceRequest, error: TrivetError) -> FailureReason:
    if error.code is Code.CANCELLED:
        return FailureReason.CANCELED
    if request.compute_start_ns:
        return FailureReason.BACKEND
    if error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED):
        return FailureReason.REJECTED
    return FailureReason.OTHER
