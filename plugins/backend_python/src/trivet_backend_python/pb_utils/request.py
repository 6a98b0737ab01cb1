"""``pb_utils.InferenceRequest``: what ``execute`` gets, and what a model makes to call another one."""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

from trivet.inference import InferenceRequest as KernelRequest
from trivet.inference import ParameterValue, RequestedOutput

from trivet_backend_python.pb_utils import calls
from trivet_backend_python.pb_utils.errors import TritonModelException
from trivet_backend_python.pb_utils.response import (
    Answer,
    InferenceResponseSender,
    check_parameters,
)
from trivet_backend_python.pb_utils.tensor import Tensor, check_tensors

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2


class MemoryType(IntEnum):
    """Where a model would like the outputs of a model that it calls."""

    TRITONSERVER_MEMORY_GPU = 0
    TRITONSERVER_MEMORY_CPU = 1


TRITONSERVER_MEMORY_GPU = MemoryType.TRITONSERVER_MEMORY_GPU
TRITONSERVER_MEMORY_CPU = MemoryType.TRITONSERVER_MEMORY_CPU


class PreferredMemory:
    """A wish, as in Triton: outputs stay where the called model left them, and DLPack takes them anywhere."""

    __slots__ = ("device_id", "memory_type")

    def __init__(self, preferred_memory_type: MemoryType, preferred_device_id: int = 0) -> None:
        self.memory_type = MemoryType(preferred_memory_type)
        self.device_id = preferred_device_id


class InferenceTrace:
    """The trace that a request belongs to, to be handed on to the requests that a model makes."""

    __slots__ = ("_context", "_request")

    def __init__(self, context: Any = None, request: KernelRequest | None = None) -> None:
        """``request`` is the one that is traced."""
        self._context = context
        self._request = request

    def get_context(self) -> Any:
        """The propagated trace context; ``None`` where the request is not traced."""
        return self._context


class InferenceRequest:
    """A request to a model: made by a model to call another one, or given to ``execute``."""

    __slots__ = ("_inputs", "_kernel", "_running")

    def __init__(
        self,
        request_id: str = "",
        correlation_id: int | str = 0,
        inputs: Sequence[Tensor] | None = None,
        requested_output_names: Sequence[str] | None = None,
        model_name: str | None = None,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: InferenceTrace | None = None,
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> None:
        """``timeout`` is in microseconds; ``model_version`` -1 asks for the latest.

        Raises :class:`TypeError` where a required argument is missing or of another type,
        :class:`TritonModelException` where a value is not one that a request can carry.
        """
        if inputs is None or requested_output_names is None or model_name is None:
            raise TypeError("InferenceRequest needs inputs, requested_output_names and model_name")
        whose = f"for request with id '{request_id}' and model name '{model_name}' should not be empty."
        self._inputs = {tensor.name(): tensor for tensor in check_tensors(inputs, f"Input tensor {whose}")}
        if "" in requested_output_names:
            raise TritonModelException(f"Requested output name {whose}")
        if not isinstance(correlation_id, int | str):
            raise TritonModelException("Correlation ID must be integer or string")
        for what, text in (("request_id", request_id), ("model_name", model_name)):
            if not isinstance(text, str):
                raise TypeError(f"InferenceRequest: {what} takes str, got {type(text).__name__}")
        model_version, flags = _integer("model_version", model_version), _integer("flags", flags)
        timeout = _integer("timeout", timeout)
        if not 0 <= timeout < 2**64:
            raise TypeError(f"InferenceRequest: timeout takes microseconds from 0 to 2**64 - 1, got {timeout}")
        if preferred_memory is not None and not isinstance(preferred_memory, PreferredMemory):
            raise TypeError(f"preferred_memory must be a PreferredMemory, got {type(preferred_memory).__name__}")
        self._kernel = KernelRequest(
            model_name,
            {},
            model_version="" if model_version < 0 else str(model_version),
            id=request_id,
            outputs=[RequestedOutput(name) for name in requested_output_names] or None,
            parameters=check_parameters(parameters or {}),
            timeout_us=timeout,
            correlation_id=correlation_id,
        )
        if trace is not None:
            self._kernel.trace_context = trace.get_context()
            self._kernel.parent = trace._request
        self._running: calls.Running = {}
        self.set_flags(flags)

    def inputs(self) -> list[Tensor]:
        """The input tensors, in the caller's order."""
        return list(self._inputs.values())

    def request_id(self) -> str:
        """The caller's; empty where it gave none."""
        return self._kernel.id

    def correlation_id(self) -> int | str:
        """The sequence that the request belongs to; 0 for none."""
        return self._kernel.correlation_id

    def requested_output_names(self) -> set[str]:
        """The outputs asked for; empty for all."""
        return {output.name for output in self._kernel.outputs or ()}

    def model_name(self) -> str:
        """The model that is asked."""
        return self._kernel.model_name

    def model_version(self) -> int:
        """The version asked for; -1 for the latest."""
        return int(self._kernel.model_version or -1)

    def flags(self) -> int:
        """``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`` and ``..._END``, or-ed."""
        return (TRITONSERVER_REQUEST_FLAG_SEQUENCE_START if self._kernel.sequence_start else 0) | (
            TRITONSERVER_REQUEST_FLAG_SEQUENCE_END if self._kernel.sequence_end else 0
        )

    def set_flags(self, flags: int) -> None:
        """As :meth:`flags` gives them."""
        self._kernel.sequence_start = bool(flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
        self._kernel.sequence_end = bool(flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)

    def timeout(self) -> int:
        """Microseconds; 0 for none."""
        return self._kernel.timeout_us

    def parameters(self) -> str:
        """The request's parameters as a JSON object."""
        return json.dumps(dict(self._kernel.parameters))

    def trace(self) -> InferenceTrace:
        """The request's trace, to be given to a request that this one leads to."""
        return InferenceTrace(self._kernel.trace_context, self._kernel)

    def is_cancelled(self) -> bool:
        """Whether the caller has given up; a model may then stop early."""
        return self._kernel.cancelled

    def set_release_flags(self, flags: int) -> None:
        """What happens with a request that ``execute`` was given when it returns.

        ``TRITONSERVER_REQUEST_RELEASE_RESCHEDULE`` has it executed again; see :class:`ServedRequest`. On a request that
        a model made it has no effect.
        """
        if flags not in (TRITONSERVER_REQUEST_RELEASE_ALL, TRITONSERVER_REQUEST_RELEASE_RESCHEDULE):
            raise TritonModelException(
                f"unknown release flags {flags}, expected TRITONSERVER_REQUEST_RELEASE_ALL (1) or"
                " TRITONSERVER_REQUEST_RELEASE_RESCHEDULE (2)"
            )

    def get_response_sender(self) -> InferenceResponseSender:
        """Raises :class:`TritonModelException`: only a request that ``execute`` is given has one."""
        raise TritonModelException("a request that a model made to call another one has no response sender")

    def _input(self, name: str) -> Tensor | None:
        return self._inputs.get(name)

    def exec(self, decoupled: bool = False) -> Any:
        """Run this request on the model that it names and block for the :class:`InferenceResponse`.

        Its error, if any, is in it. With ``decoupled`` return an iterator over any number of responses at once
        (:class:`ResponseIterator`).

        Raises :class:`TritonModelException` where it is not called from a model.
        """
        if decoupled:
            return calls.run_decoupled(self._for_submission(), self._running)
        return calls.run(self._for_submission(), self._running)

    def async_exec(self, decoupled: bool = False) -> asyncio.Future[Any]:
        """Like :meth:`exec`, begun now and to be awaited; several can run at a time.

        The iterator that comes of ``decoupled`` takes ``async for`` too. Cancelling what is returned cancels the
        request. Raises :class:`RuntimeError` where no event loop runs.
        """
        if not decoupled:
            return calls.run_async(self._for_submission(), self._running)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(calls.run_decoupled(self._for_submission(), self._running))
        return done

    def cancel(self) -> None:
        """Cancel what :meth:`exec` and :meth:`async_exec` have begun and that is not answered yet. From any thread."""
        for request, caller in list(self._running.items()):
            caller.cancel(request)

    def _for_submission(self) -> KernelRequest:
        """A request of its own each time, as a request can be submitted once and this one be run again."""
        made = self._kernel
        request = KernelRequest(
            made.model_name,
            {name: tensor._to_input() for name, tensor in self._inputs.items()},
            model_version=made.model_version,
            id=made.id,
            outputs=made.outputs,
            parameters=made.parameters,
            timeout_us=made.timeout_us,
            correlation_id=made.correlation_id,
            sequence_start=made.sequence_start,
            sequence_end=made.sequence_end,
        )
        request.trace_context = made.trace_context
        request.parent = made.parent
        return request


def _integer(what: str, value: Any) -> int:
    """A wrong one is to be reported where the request is made, and not by whoever gets it."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"InferenceRequest: {what} takes int, got {type(value).__name__}") from None


@dataclass(frozen=True, slots=True)
class Service:
    """What all requests of one model instance have in common."""

    answer: Answer
    output_names: frozenset[str]
    decoupled: bool
    to_host: bool
    """Inputs on a device are given as host arrays (``FORCE_CPU_ONLY_INPUT_TENSORS``)."""
    reschedules: bool = False
    """Requests may be executed again, with the inputs that they came with (``iterative_sequence``)."""
    concurrent: bool = False
    """``execute`` is a coroutine function that shares an event loop with those of other requests."""


class ServedRequest(InferenceRequest):
    """A request as ``execute`` gets it: a view of the kernel's, whose parts are made when the model asks for them."""

    __slots__ = ("_sender", "_service")

    def __init__(self, request: KernelRequest, service: Service) -> None:
        self._kernel = request
        self._service = service
        self._inputs = {}
        self._sender: InferenceResponseSender | None = None

    def inputs(self) -> list[Tensor]:
        """The input tensors, in the caller's order; the same objects each time."""
        return [cast("Tensor", self._input(name)) for name in self._kernel.inputs]

    def parameters(self) -> str:
        """The request's parameters as a JSON object."""
        return json.dumps(dict(self._kernel.parameters), ensure_ascii=False, separators=(",", ":"))

    def requested_output_names(self) -> set[str]:
        """The outputs to answer with: all, where the caller named none."""
        outputs = self._kernel.outputs
        return set(self._service.output_names) if outputs is None else {output.name for output in outputs}

    def get_response_sender(self) -> InferenceResponseSender:
        """The same one each time; see :class:`InferenceResponseSender`."""
        if self._sender is None:
            self._sender = InferenceResponseSender(
                self._kernel,
                self._service.answer,
                decoupled=self._service.decoupled,
                concurrent=self._service.concurrent,
            )
        return self._sender

    def set_release_flags(self, flags: int) -> None:
        """With ``TRITONSERVER_REQUEST_RELEASE_RESCHEDULE`` the request goes back to the scheduler when ``execute``
        returns, and is executed again: put ``None`` in its place where the model is not decoupled.

        Raises :class:`TritonModelException` where the model's configuration does not say ``iterative_sequence``.
        """
        super().set_release_flags(flags)
        again = flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE
        if again and not self._service.reschedules:
            raise TritonModelException(
                "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the model is not configured to"
                " handle such a flag. It needs sequence_batching { iterative_sequence: true } in its configuration."
            )
        if again and self._service.concurrent:
            raise TritonModelException(
                "an async execute of a decoupled model cannot reschedule requests: it has returned before its coroutine"
                " begins; await the next step in it instead"
            )
        self._kernel.rescheduled = again

    def exec(self, decoupled: bool = False) -> Any:
        """Raises :class:`TritonModelException`."""
        raise TritonModelException("a request that a model is serving cannot be run again; make a new InferenceRequest")

    def async_exec(self, decoupled: bool = False) -> Any:
        """Raises :class:`TritonModelException`, when called and not when awaited."""
        return self.exec(decoupled)

    def _input(self, name: str) -> Tensor | None:
        tensor = self._inputs.get(name)
        if tensor is None:
            source = self._kernel.inputs.get(name)
            if source is None:
                return None
            service, regions = self._service, self._kernel.regions
            places = regions.values() if regions else ()
            tensor = Tensor._of(source, service.to_host, copy=service.reschedules, places=places)
            self._inputs[name] = tensor
        return tensor

    def _end(self) -> None:
        """The model answered. Let go of the inputs, so that one that it answered with is seen not to be kept."""
        self._inputs.clear()
        if self._sender is not None:
            self._sender._close()

    def _again(self) -> None:
        """The request is executed once more; the sender may still be used, but nobody has to."""
        self._inputs.clear()
        if self._sender is not None:
            self._sender._answers = False
