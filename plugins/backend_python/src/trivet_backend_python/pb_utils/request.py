"""``pb_utils.InferenceRequest``: what ``execute`` gets, and what a model makes to call another one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

from trivet.backend import ModelCaller
from trivet.inference import InferenceRequest as KernelRequest
from trivet.inference import InferenceResponse as KernelResponse
from trivet.inference import ParameterValue, RequestedOutput
from trivet.tensor import Tensor as KernelTensor

from trivet_backend_python.memory import read_only
from trivet_backend_python.modules import calling_model
from trivet_backend_python.pb_utils.errors import TritonModelException, from_kernel, unsupported
from trivet_backend_python.pb_utils.response import (
    Answer,
    InferenceResponse,
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

    __slots__ = ("_context",)

    def __init__(self, context: Any = None) -> None:
        self._context = context

    def get_context(self) -> Any:
        """The propagated trace context; ``None`` where the request is not traced."""
        return self._context


class InferenceRequest:
    """A request to a model: made by a model to call another one, or given to ``execute``."""

    __slots__ = ("_inputs", "_kernel", "_parameters")

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

        Raises :class:`TypeError` where a required argument is missing, :class:`TritonModelException` where a value is
        not one that a request can carry.
        """
        if inputs is None or requested_output_names is None or model_name is None:
            raise TypeError("InferenceRequest needs inputs, requested_output_names and model_name")
        whose = f"for request with id '{request_id}' and model name '{model_name}' should not be empty."
        self._inputs = {tensor.name(): tensor for tensor in check_tensors(inputs, f"Input tensor {whose}")}
        if "" in requested_output_names:
            raise TritonModelException(f"Requested output name {whose}")
        if not isinstance(correlation_id, int | str):
            raise TritonModelException("Correlation ID must be integer or string")
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
        self._kernel.trace_context = None if trace is None else trace.get_context()
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
        return json.dumps(dict(self._kernel.parameters), ensure_ascii=False, separators=(",", ":"))

    def trace(self) -> InferenceTrace:
        """The request's trace, to be given to a request that this one leads to."""
        return InferenceTrace(self._kernel.trace_context)

    def is_cancelled(self) -> bool:
        """Whether the caller has given up; a model may then stop early."""
        return self._kernel.cancelled

    def set_release_flags(self, flags: int) -> None:
        """Only ``TRITONSERVER_REQUEST_RELEASE_ALL``, the default, is there yet."""
        if flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE:
            raise unsupported("set_release_flags(TRITONSERVER_REQUEST_RELEASE_RESCHEDULE), for iterative sequences,")
        if flags != TRITONSERVER_REQUEST_RELEASE_ALL:
            raise TritonModelException(f"unknown release flags {flags}, expected TRITONSERVER_REQUEST_RELEASE_ALL (1)")

    def get_response_sender(self) -> InferenceResponseSender:
        """Raises :class:`TritonModelException`: only a request that ``execute`` is given has one."""
        raise TritonModelException("a request that a model made to call another one has no response sender")

    def _input(self, name: str) -> Tensor | None:
        return self._inputs.get(name)

    def exec(self, decoupled: bool = False) -> InferenceResponse:
        """Run this request on the model that it names and block for the response, whose error, if any, is in it.

        Raises :class:`TritonModelException` where it is not called from a model.
        """
        caller = self._caller(decoupled)
        return _to_response(caller.infer(self._for_submission()))

    async def _exec_async(self, caller: ModelCaller) -> InferenceResponse:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[KernelResponse] = loop.create_future()

        def settle(response: KernelResponse) -> None:
            if not done.done():
                done.set_result(response)

        def on_response(response: KernelResponse) -> None:
            # The server's loop calls back, the model awaits on a loop of its own.
            if response.final:
                loop.call_soon_threadsafe(settle, response)

        caller.submit(self._for_submission(), on_response)
        return _to_response(await done)

    def async_exec(self, decoupled: bool = False) -> Any:
        """Like :meth:`exec`, to be awaited; several can run at a time."""
        return self._exec_async(self._caller(decoupled))

    def _caller(self, decoupled: bool) -> ModelCaller:
        if decoupled:
            raise unsupported("InferenceRequest.exec(decoupled=True)")
        model = calling_model()
        if model is None or model.call is None:
            raise TritonModelException("BLS is only supported during the 'execute' function.")
        return model.call

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
        return request


@dataclass(frozen=True, slots=True)
class Service:
    """What all requests of one model instance have in common."""

    answer: Answer
    output_names: frozenset[str]
    decoupled: bool
    to_host: bool
    """Inputs on a device are given as host arrays (``FORCE_CPU_ONLY_INPUT_TENSORS``)."""


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

    def requested_output_names(self) -> set[str]:
        """The outputs to answer with: all, where the caller named none."""
        outputs = self._kernel.outputs
        return set(self._service.output_names) if outputs is None else {output.name for output in outputs}

    def get_response_sender(self) -> InferenceResponseSender:
        """The same one each time; see :class:`InferenceResponseSender`."""
        if self._sender is None:
            self._sender = InferenceResponseSender(
                self._kernel, self._service.answer, decoupled=self._service.decoupled
            )
        return self._sender

    def exec(self, decoupled: bool = False) -> InferenceResponse:
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
            tensor = self._inputs[name] = Tensor._of(source, self._service.to_host)
        return tensor

    def _end(self) -> None:
        """The model answered. Let go of the inputs, so that one that it answered with is seen not to be kept."""
        self._inputs.clear()
        if self._sender is not None:
            self._sender._close()


def _to_response(response: KernelResponse) -> InferenceResponse:
    """Another model's response. Its outputs may be memory that the other model keeps, so they are read-only, which
    makes ``as_numpy`` copy.
    """
    error = None if response.error is None else from_kernel(response.error)
    tensors = [Tensor._of(_protected(tensor), to_host=False) for tensor in response.outputs]
    return InferenceResponse(tensors, error, response.parameters)


def _protected(tensor: KernelTensor) -> KernelTensor:
    return (
        tensor if tensor.on_device else KernelTensor.from_numpy(tensor.name, read_only(tensor.numpy()), tensor.datatype)
    )
