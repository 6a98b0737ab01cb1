"""The service's methods as handlers of grpc.aio's interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from trivet.errors import InternalError, TrivetError

from trivet_protocol_kserve_v2.errors import grpc_details, grpc_status
from trivet_protocol_kserve_v2.grpc.control import SERVICE, ControlMethod
from trivet_protocol_kserve_v2.grpc.inference import Inference
from trivet_protocol_kserve_v2.grpc.reflection import PATHS, Reflection
from trivet_protocol_kserve_v2.grpc.restricted import Metadata
from trivet_protocol_kserve_v2.grpc.settings import Compression
from trivet_protocol_kserve_v2.grpc.stream import InferenceStream
from trivet_protocol_kserve_v2.proto.reflection_pb2 import ServerReflectionRequest

INFER = f"/{SERVICE.full_name}/ModelInfer"
STREAM_INFER = f"/{SERVICE.full_name}/ModelStreamInfer"

_STATUS: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
# The algorithms that grpc-core would choose for these levels.
_COMPRESSION: dict[Compression, grpc.Compression] = {
    "low": grpc.Compression.Gzip,
    "medium": grpc.Compression.Deflate,
    "high": grpc.Compression.Deflate,
}

if TYPE_CHECKING:
    # Generic in the type stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


class Handlers:
    """The service's methods as grpc.aio's handlers, by path. All of it on the event loop.

    Messages pass through as bytes: the codec parses them.
    """

    def __init__(
        self,
        inference: Inference,
        methods: Sequence[ControlMethod],
        reflection: Reflection,
        *,
        compression: Compression,
        max_waiting: int,
        write_timeout_s: float,
    ) -> None:
        self._inference = inference
        self._methods = methods
        self._reflection = reflection
        self._compression = _COMPRESSION.get(compression)
        self._max_waiting = max_waiting
        self._write_timeout_s = write_timeout_s
        self._streams: set[InferenceStream] = set()

    def unary(self) -> dict[str, Handler]:
        """Methods with one request and one response."""
        handlers: dict[str, Handler] = {INFER: grpc.unary_unary_rpc_method_handler(self._infer)}
        for method in self._methods:
            handlers[method.path] = grpc.unary_unary_rpc_method_handler(_control(method))
        return handlers

    def streaming(self) -> dict[str, Handler]:
        """Methods with any number of requests and responses."""
        handlers: dict[str, Handler] = {STREAM_INFER: grpc.stream_stream_rpc_method_handler(self._stream)}
        for path in PATHS:
            handlers[path] = grpc.stream_stream_rpc_method_handler(self._reflect)
        return handlers

    def close_streams(self) -> None:
        """The server stops: end the streams that are open, each when its requests are answered."""
        for stream in self._streams:
            stream.close()

    async def _infer(self, payload: bytes, context: Context) -> bytes:
        if self._compression is not None:
            context.set_compression(self._compression)
        inference = self._inference
        answered: asyncio.Future[bytes | TrivetError] = asyncio.get_running_loop().create_future()

        def answer(result: bytes | TrivetError) -> None:
            if not answered.done():
                answered.set_result(result)

        try:
            request = inference.submit(payload, _metadata(context), answer)
        except TrivetError as error:
            return await _fail(context, error)
        try:
            result = await answered
        except asyncio.CancelledError:
            # The caller has gone, or its deadline has passed.
            inference.engine.cancel(request)
            raise
        if not isinstance(result, bytes):
            return await _fail(context, result)
        if self._compression is not None:
            # grpc.aio forgets the algorithm of a unary call that has not sent its metadata before its message.
            await context.send_initial_metadata(())
        return result

    async def _stream(self, _: object, context: Context) -> None:
        if self._compression is not None:
            context.set_compression(self._compression)

        async def read() -> bytes | None:
            try:
                message = await context.read()
            except grpc.aio.InternalError:
                # The client has gone; this task is cancelled in a moment.
                return None
            return None if message is grpc.aio.EOF else message

        stream = InferenceStream(
            self._inference,
            _metadata(context),
            max_waiting=self._max_waiting,
            write_timeout_s=self._write_timeout_s,
        )
        self._streams.add(stream)
        try:
            await stream.run(read, context.write)
        except TrivetError as error:
            await _fail(context, error)
        except grpc.aio.InternalError:
            # A write failed, since the client has gone. As for any call that was cancelled, no status is sent after it.
            raise asyncio.CancelledError from None
        finally:
            self._streams.discard(stream)

    async def _reflect(self, _: object, context: Context) -> None:
        while (payload := await context.read()) is not grpc.aio.EOF:
            try:
                question = ServerReflectionRequest.FromString(payload)
            except DecodeError:
                await _fail(context, InternalError("Unable to parse request"))
                return
            await context.write(self._reflection.answer(question).SerializeToString())


class Router(grpc.GenericRpcHandler):
    """Finds a handler by path.

    In place of registered methods, each of which grpc.aio awaits by itself: for every call it would look at two dozen
    futures, those of all methods.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        return self._handlers.get(handler_call_details.method)


def _control(method: ControlMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def handle(payload: bytes, context: Context) -> bytes:
        try:
            return await method(payload, _metadata(context))
        except TrivetError as error:
            return await _fail(context, error)

    return handle


def _metadata(context: Context) -> Metadata:
    return tuple(context.invocation_metadata() or ())


async def _fail(context: Context, error: TrivetError) -> bytes:
    """End the call with an error's status. Returns what the handler is to, which is not sent.

    The context keeps the exception that ``abort()`` raises, and grpc.aio raises it again when the handler has returned.
    Let through from here it would refer to the handler's frame, and so to the context: with them, the request's message
    would stay in memory until a garbage collection.
    """
    try:
        await context.abort(_STATUS[grpc_status(error)], grpc_details(error))
    except grpc.aio.AbortError as aborted:
        aborted.__traceback__ = aborted.__context__ = None
    return b""
