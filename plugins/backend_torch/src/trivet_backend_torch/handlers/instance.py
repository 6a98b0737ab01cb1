"""An instance of a handler: one call of ``handle(data, context)`` for all requests of a batch."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from trivet.backend import ModelContext, RequestInstance
from trivet.errors import InternalError, InvalidArgumentError, ResourceExhaustedError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.private_code import PrivatePackage

from trivet_backend_torch.devices import Host
from trivet_backend_torch.handlers.metrics import HandlerMetrics
from trivet_backend_torch.handlers.tensors import encoded, output_tensor, outputs_of, rows_of
from trivet_backend_torch.runtime import execute_failure

_MODES = ("explain", "describe")
_MESSAGE_CHARACTERS = 2000
_UNDECODED = (
    "if the handler expects decoded JSON, give the request the parameter content_type 'application/json', or set the"
    " model's parameter CONTENT_TYPE to that"
)


class HandlerInstance(RequestInstance):
    """Calls ``handle`` with a dictionary for each row of the batch."""

    def __init__(
        self,
        context: ModelContext,
        handle: Callable[[Any, Any], Any],
        handler_context: Any,
        device: Host,
        code: PrivatePackage,
        content_type: str,
    ) -> None:
        """``code`` and the context's metrics are this instance's, which closes them."""
        self._name = f"'{context.name}' version {context.version}"
        self._logger = context.logger
        self._handle = handle
        self._context = handler_context
        self._device = device
        self._code = code
        self._content_type = content_type
        self._batches = context.config.max_batch_size > 0
        self._decoupled = context.config.model_transaction_policy.decoupled
        self._stateful = context.config.HasField("sequence_batching")
        self._outputs = outputs_of(context.config)
        self._sent = False
        """Whether the batch that is executed was answered in part."""

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse]:
        """One call for all. Where the handler raises, each request gets a call of its own, so that it costs no other.

        But an exception fails the whole batch where the handler may have done its part already, once it has answered
        in part or kept the state of a sequence, and where there is not enough memory. Requests are executed one by one
        too where one asks for something else than a prediction, which handlers look for in the first request only.
        """
        mixed = len({tuple(request.parameters.get(mode) for mode in _MODES) for request in requests}) > 1
        if not mixed:
            try:
                return self._together(requests)
            except TrivetError as error:
                if len(requests) == 1 or self._sent or self._stateful or isinstance(error, ResourceExhaustedError):
                    self._log(error)
                    raise
        return [self._alone(request) for request in requests]

    def _alone(self, request: InferenceRequest) -> InferenceResponse:
        try:
            (response,) = self._together((request,))
        except TrivetError as error:
            self._log(error)
            return InferenceResponse(error=error)
        return response

    def _log(self, error: TrivetError) -> None:
        """Say where a handler raised what is no caller's fault; its caller is told no more than what it was."""
        if error.__cause__ is not None and not isinstance(error, InvalidArgumentError):
            self._logger.warning("the handler of model %s failed", self._name, exc_info=error.__cause__)

    def _together(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse]:
        rows: list[dict[str, Any]] = []
        ends = [0]
        ids: list[str] = []
        headers: list[dict[str, Any]] = []
        for request in requests:
            content_type = str(request.parameters.get("content_type", self._content_type))
            made = rows_of(request, batches=self._batches, content_type=content_type)
            rows += made
            ends.append(len(rows))
            ids += [_unique(request.id, ids)] * len(made)
            headers += [_headers(request) for _ in made]
        parts = [(request, slice(*ends)) for request, ends in zip(requests, pairwise(ends), strict=True)]
        self._sent = False
        self._context.begin_batch(ids, headers)
        self._context.send_intermediate = lambda answers, whose: self._send(parts, ids, answers, whose)
        try:
            answers = self._handle(rows, self._context)
        except TrivetError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        finally:
            self._context.send_intermediate = None
        self._check_count(answers, len(rows))
        return [self._response(request, part, answers[part]) for request, part in parts]

    def _check_count(self, answers: Any, expected: int) -> None:
        if not isinstance(answers, (list, tuple)) or len(answers) != expected:
            given = len(answers) if isinstance(answers, (list, tuple)) else type(answers).__name__
            raise InternalError(
                f"number of batch response mismatched, expect: {expected}, got: {given} (model {self._name})"
            )

    def _send(
        self,
        parts: Sequence[tuple[InferenceRequest, slice]],
        ids: Sequence[str],
        answers: Sequence[Any],
        whose: Mapping[int, str],
    ) -> None:
        """Answer requests in part: those whose ids ``whose`` has for the answers at these positions."""
        if not self._decoupled:
            raise InternalError(
                f"the handler of model {self._name} answers in parts, which only a decoupled model may: set"
                " 'model_transaction_policy { decoupled: true }' in its config.pbtxt"
            )
        self._sent = True
        for request, part in parts:
            sent = [answers[index] for index, id in whose.items() if id == ids[part.start]]
            if sent:
                rows = slice(part.start, part.start + len(sent))
                request.respond(self._response(request, rows, sent, final=False))

    def _response(
        self, request: InferenceRequest, part: slice, answers: Sequence[Any], *, final: bool = True
    ) -> InferenceResponse:
        wanted = None if request.outputs is None else {output.name for output in request.outputs}
        processors = self._context.request_processor[part]
        try:
            for processor, answer in zip(processors, answers, strict=True):
                if processor.get_response_status_code() >= 400:
                    raise self._refusal(processor, answer)
            tensors = [
                output_tensor(
                    name, datatype, dims, [self._part(answer, name) for answer in answers], batches=self._batches
                )
                for name, (datatype, dims) in self._outputs.items()
                if wanted is None or name in wanted
            ]
        except TrivetError as error:
            return InferenceResponse(error=error)
        except (TypeError, ValueError, OverflowError) as error:
            return InferenceResponse(
                error=InternalError(f"the handler's answer fits no output: {error} (model {self._name})")
            )
        parameters = {key: str(value) for each in processors for key, value in each.get_response_headers().items()}
        return InferenceResponse(tensors, parameters=parameters, final=final)

    def _failure(self, error: Exception) -> TrivetError:
        """The error for an exception of the handler, whose ``PredictionException`` has a message and status."""
        status = getattr(error, "error_code", None)
        if not isinstance(status, int):
            failure = execute_failure(error, self._name)
            if isinstance(error, (TypeError, AttributeError)) and "bytearray" in failure.message:
                return type(failure)(f"{failure.message}; {_UNDECODED}")
            return failure
        kind = InvalidArgumentError if 400 <= status < 500 else InternalError
        told = "" if status == 400 else f"status {status}, "
        return kind(f"{getattr(error, 'message', error)} ({told}model {self._name})")

    def _refusal(self, processor: Any, answer: Any) -> TrivetError:
        """The error for a row that the handler gave a status: a client of TorchServe gets its answer with that."""
        status = processor.get_response_status_code()
        said = encoded(answer).decode(errors="replace")[:_MESSAGE_CHARACTERS]
        phrase = processor.get_response_status_phrase()
        kind = InvalidArgumentError if status < 500 else InternalError
        return kind(f"{said} (status {status}{f', {phrase}' if phrase else ''}, model {self._name})")

    def _part(self, answer: Any, name: str) -> Any:
        """What of an answer belongs to an output: all of it where there is one, else the value of that name."""
        if len(self._outputs) == 1 and not (isinstance(answer, dict) and set(answer) == {name}):
            return answer
        if not isinstance(answer, dict) or name not in answer:
            raise InternalError(f"the handler's answer has no '{name}' (model {self._name})")
        return answer[name]

    def close(self) -> None:
        """Let go of the handler, its code and its metrics, and end the threads of its micro batches."""
        shutdown = getattr(self._handle, "shutdown", None)
        del self._handle
        if shutdown is not None:
            shutdown()
        metrics = self._context.metrics
        if isinstance(metrics, HandlerMetrics):
            metrics.close()
        self._code.close()
        self._device.close()


def _unique(id: str, taken: Sequence[str]) -> str:
    """The id of a request, another where it has none or one before it has the same: parts are sent by id."""
    return id if id and id not in taken else uuid.uuid4().hex


def _headers(request: InferenceRequest) -> dict[str, Any]:
    """The parameters of a request as TorchServe's headers, and the sequence that it belongs to under its names."""
    headers = {key: str(value) for key, value in request.parameters.items()}
    if request.correlation_id:
        headers["ts_request_sequence_id"] = str(request.correlation_id)
        if request.sequence_start:
            headers["ts_request_sequence_start"] = "true"
        if request.sequence_end:
            headers["ts_request_sequence_end"] = "true"
    return headers
