"""``pb_utils.InferenceResponse`` and the sender that delivers responses later."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

from trivet.errors import InternalError
from trivet.inference import InferenceRequest, ParameterValue
from trivet.inference import InferenceResponse as KernelResponse

from trivet_backend_python.pb_utils.errors import TritonError, TritonModelException
from trivet_backend_python.pb_utils.tensor import Tensor, check_tensors

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class InferenceResponse:
    """Output tensors or an error, and parameters for the caller."""

    __slots__ = ("_error", "_parameters", "_tensors")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> None:
        """Raises :class:`TypeError` where an argument is of another type, :class:`TritonModelException` where a tensor
        is ``None`` or a parameter is not a bool, int, float or str.
        """
        if isinstance(output_tensors, Tensor):
            raise TypeError(
                "InferenceResponse: output_tensors takes a list of tensors, got one Tensor; put it in a list"
            )
        self._tensors = check_tensors(output_tensors, "Output tensor for inference response should not be empty.")
        if error is not None and not isinstance(error, TritonError):
            raise TypeError(
                f"InferenceResponse: error takes a pb_utils.TritonError, got {type(error).__name__}; wrap it:"
                " TritonError(message)"
            )
        self._error = error
        self._parameters = None if parameters is None else check_parameters(parameters)

    def output_tensors(self) -> list[Tensor]:
        """The outputs, in the order in which the model gave them."""
        return self._tensors

    def has_error(self) -> bool:
        """Whether the request failed."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Why the request failed; ``None`` where it did not."""
        return self._error

    def parameters(self) -> str:
        """The parameters as a JSON object."""
        return json.dumps(self._parameters or {})

    def __repr__(self) -> str:
        return f"InferenceResponse({self._error or self._tensors})"


Answer = Callable[[InferenceRequest, InferenceResponse | None, bool], KernelResponse]
"""``answer(request, response, final)``: the kernel's response for one of the model's."""


class InferenceResponseSender:
    """Delivers the responses of one request, from any thread, also after ``execute`` returned.

    A request whose sender goes away without a final response is answered with an error, so that its caller does not
    wait for ever.
    """

    __slots__ = ("_answer", "_answers", "_closed", "_concurrent", "_decoupled", "_lock", "_request", "_sent")

    def __init__(self, request: InferenceRequest, answer: Answer, *, decoupled: bool, concurrent: bool = False) -> None:
        """``concurrent``: the model answers on an event loop that it shares with other requests."""
        self._answers = True
        self._concurrent = concurrent
        self._request = request
        self._answer = answer
        self._decoupled = decoupled
        self._sent = False
        self._closed = False
        self._lock = threading.Lock()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> Awaitable[None] | None:
        """Deliver ``response``; with ``flags`` ``TRITONSERVER_RESPONSE_COMPLETE_FINAL`` it is the last, and
        may be missing.

        Blocks while the caller is too far behind, except in the coroutine of a decoupled model, which it would keep
        others from: there await the result, which is ``None`` where there is nothing to wait for.

        Raises :class:`TritonModelException` where the responses so far do not allow it.
        """
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException("Unable to send response. Unsupported flag provided.")
        if response is None and flags == 0:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        if response is not None and not isinstance(response, InferenceResponse):
            raise TypeError(f"send() takes an InferenceResponse, got {type(response).__name__}")
        with self._lock:
            self._check(response)
            final = flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL
            if response is not None or self._decoupled:
                # A model that is not decoupled has one response, so that is the last whatever the flags say.
                answer = self._answer(self._request, response, final or not self._decoupled)
                self._respond(answer)
                self._sent = True
            # Not before: a response that cannot be sent leaves the request to be answered, at the latest by __del__.
            self._closed = final
        throttle = self._request.throttle
        if not self._concurrent or throttle is None or self._request.done or not is_on_loop():
            return None
        return _Room(throttle)

    def is_cancelled(self) -> bool:
        """Whether the caller has given up; a model may then stop early."""
        return self._request.cancelled

    def _respond(self, answer: KernelResponse) -> None:
        if self._concurrent and is_on_loop() and self._request.responder is not None:
            # One caller that reads slowly must not hold up the others, whose coroutines run on this thread: past the
            # throttle.
            self._request.responder(self._request, answer)
        else:
            self._request.respond(answer)

    def _close(self) -> None:
        """The request was answered in another way."""
        with self._lock:
            self._closed = True

    def _check(self, response: InferenceResponse | None) -> None:
        if not self._decoupled:
            if response is not None and self._sent:
                raise TritonModelException(
                    "Unable to send response. Non-decoupled model cannot send more than one response."
                )
            if response is None and not self._sent:
                raise TritonModelException(
                    "Unable to send response. Non-decoupled model cannot send complete final before sending a response."
                )
        if self._closed:
            raise TritonModelException("Unable to send response. Response sender has been closed.")

    def __del__(self) -> None:
        if self._answers and not self._closed and not self._request.done:
            message = (
                f"model '{self._request.model_name}' answered request '{self._request.id}' neither in what execute"
                " returned nor to the end through the request's response sender"
            )
            # Past the throttle: the garbage collector may run on the thread of another model, which must not wait.
            if self._request.responder is not None:
                self._request.responder(self._request, KernelResponse(error=InternalError(message)))


class _Room:
    """Awaited by a coroutine that has sent a response, until its caller has read enough for another."""

    __slots__ = ("_throttle",)

    def __init__(self, throttle: Callable[[], None]) -> None:
        self._throttle = throttle

    def __await__(self) -> Generator[Any, None, None]:
        # What was sent past the throttle is made good by passing it now, on a thread that it may block.
        return asyncio.get_running_loop().run_in_executor(None, self._throttle).__await__()


def is_on_loop() -> bool:
    """Whether this thread runs an event loop now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def check_parameters(parameters: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """A copy, with names and values of the types that a protocol can carry.

    Raises :class:`TypeError` for what is no mapping, and :class:`TritonModelException` for another name or value.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a dict, got {type(parameters).__name__}")
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise TritonModelException(f"Expect parameters keys to have type str, found type {type(name)}")
        if not isinstance(value, bool | int | float | str):
            raise TritonModelException(
                f"Expect parameters values to have type bool/int/float/str, found type {type(value)}"
            )
    return dict(parameters)
