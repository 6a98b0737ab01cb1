"""Business logic scripting: what happens when a model runs a request on another one.

Source: Triton's Python backend, "Business Logic Scripting". Messages are Triton's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trivet.backend import ModelCaller
from trivet.errors import NotFoundError, TrivetError, UnavailableError
from trivet.inference import InferenceRequest as KernelRequest
from trivet.inference import InferenceResponse as KernelResponse
from trivet.tensor import Tensor as KernelTensor

from trivet_backend_python import scope
from trivet_backend_python.memory import read_only
from trivet_backend_python.pb_utils.errors import TritonError, TritonModelException, from_kernel
from trivet_backend_python.pb_utils.response import InferenceResponse
from trivet_backend_python.pb_utils.tensor import Tensor
from trivet_backend_python.waits import ResponseStream, Waits

if TYPE_CHECKING:
    from trivet_backend_python.scope import Scope

Running = dict[KernelRequest, ModelCaller]
"""The calls of one request that have no final response yet."""


class ResponseIterator:
    """The responses of one request, to be iterated over once, with ``for`` or ``async for``.

    The last one may be empty: a decoupled model says by it that it is done. An error is a response that has one. What
    is not iterated to its end is cancelled when the iterator goes away.
    """

    __slots__ = ("_request", "_stream")

    def __init__(self, request: KernelRequest, stream: ResponseStream) -> None:
        self._request = request
        self._stream = stream

    def __iter__(self) -> ResponseIterator:
        return self

    def __next__(self) -> InferenceResponse:
        response = self._stream.take()
        if response is None:
            raise StopIteration("Iteration is done for the responses.")
        return _to_response(self._request, response)

    def __aiter__(self) -> ResponseIterator:
        return self

    async def __anext__(self) -> InferenceResponse:
        response = await self._stream.take_async()
        if response is None:
            raise StopAsyncIteration
        return _to_response(self._request, response)

    def cancel(self) -> None:
        """Ask the called model to stop. An error with the code ``CANCELLED`` then ends the iteration."""
        self._stream.cancel()

    def close(self) -> None:
        """End the iteration now, and cancel the rest of it."""
        self._stream.close()

    def __del__(self) -> None:
        self._stream.close()


def run(request: KernelRequest, running: Running) -> InferenceResponse:
    """Block for the one response. Errors are in it, also where the request was refused."""
    place, caller = _place()
    refusal = _refusal(caller, request)
    if refusal is not None:
        return refusal
    request.origin = place.execution
    waits = place.waits
    running[request] = caller
    if waits is not None:
        waits.begin()
    try:
        return _to_response(request, caller.infer(request))
    except TrivetError as error:
        raise TritonModelException(error.message) from error
    finally:
        del running[request]
        if waits is not None:
            waits.end()


def run_async(request: KernelRequest, running: Running) -> asyncio.Future[InferenceResponse]:
    """Begin now; the result is to be awaited on the model's event loop that runs now, and may be cancelled there."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[InferenceResponse] = loop.create_future()
    place, caller = _place()
    refusal = _refusal(caller, request)
    if refusal is not None:
        done.set_result(refusal)
        return done
    request.origin = place.execution
    waits = place.waits
    running[request] = caller
    if waits is not None:
        waits.begin()

    def settle(response: KernelResponse) -> None:
        if not done.done():
            done.set_result(_to_response(request, response))

    def on_response(response: KernelResponse) -> None:
        # The server's loop calls back, the model awaits on a loop of its own, which may have ended.
        if not response.final:
            return
        running.pop(request, None)
        try:
            loop.call_soon_threadsafe(settle, response)
        except RuntimeError:
            if not loop.is_closed():
                raise

    def ended(done: asyncio.Future[InferenceResponse]) -> None:
        if waits is not None:
            waits.end()
        if done.cancelled():
            caller.cancel(request)

    done.add_done_callback(ended)
    caller.submit(request, on_response)
    return done


def run_decoupled(request: KernelRequest, running: Running) -> ResponseIterator:
    """Begin now; responses come as they are asked for. Of a model that is not decoupled there is one."""
    place, caller = _place()
    request.origin = place.execution
    if place.waits is None:
        place.waits = Waits()
    running[request] = caller

    def ended() -> None:
        running.pop(request, None)

    stream = ResponseStream(caller, request, place.waits, ended)
    return ResponseIterator(request, stream)


def _place() -> tuple[Scope, ModelCaller]:
    place = scope.find()
    caller = None if place is None else place.package.call
    if place is None or caller is None:
        raise TritonModelException("BLS is only supported during the 'execute' function.")
    if caller.on_loop():
        raise TritonModelException("a model cannot call another one on the server's event loop; use a thread")
    return place, caller


def _refusal(caller: ModelCaller, request: KernelRequest) -> InferenceResponse | None:
    if not caller.is_decoupled(request.model_name, request.model_version):
        return None
    message = (
        f"Model {request.model_name} is using the decoupled. The current BLS request call doesn't support models using"
        " the decoupled transaction policy. Please use 'decoupled=True' argument to the 'exec' or 'async_exec' calls"
        " for decoupled models.'"
    )
    return InferenceResponse(error=TritonError(_prefixed(request, message)))


def _to_response(request: KernelRequest, response: KernelResponse) -> InferenceResponse:
    """Another model's response. Its outputs may be memory that the other model keeps, so they are read-only, which
    makes ``as_numpy`` copy.
    """
    error = response.error
    tensors = [Tensor._of(_protected(tensor), to_host=False) for tensor in response.outputs]
    parameters: Mapping[str, Any] = response.parameters
    return InferenceResponse(tensors, None if error is None else _to_error(request, error), parameters)


def _to_error(request: KernelRequest, error: TrivetError) -> TritonError:
    """The error of another model, or the reason why the server did not hand it the request."""
    found = from_kernel(error)
    if request.queued_ns:
        return found
    message = error.message
    if isinstance(error, NotFoundError | UnavailableError):
        reason = f" ({message})" if isinstance(error, UnavailableError) else ""
        message = f"Failed for execute the inference request. Model '{request.model_name}' is not ready.{reason}"
    return TritonError(_prefixed(request, message), found.code())


def _prefixed(request: KernelRequest, message: str) -> str:
    return f"Model {request.model_name} - Error when running inference: {message}"


def _protected(tensor: KernelTensor) -> KernelTensor:
    return (
        tensor if tensor.on_device else KernelTensor.from_numpy(tensor.name, read_only(tensor.numpy()), tensor.datatype)
    )
