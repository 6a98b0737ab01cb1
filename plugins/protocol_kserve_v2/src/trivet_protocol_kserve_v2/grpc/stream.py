"""``ModelStreamInfer``: many requests in flight on one call, each with any number of responses.

Order, as in Triton: responses of models that are not decoupled go out in the order of their requests; responses of
decoupled models go out as they come. An error concerns its request alone and travels as ``error_message``; with the
metadata ``triton_grpc_error: true`` the first error ends the call instead, with a status.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from trivet.errors import InternalError, TrivetError, UnavailableError, message_of
from trivet.inference import InferenceRequest, InferenceResponse

from trivet_protocol_kserve_v2.codec.protobuf_request import parse_request
from trivet_protocol_kserve_v2.codec.protobuf_response import (
    encode_stream_end,
    encode_stream_error,
    encode_stream_refusal,
    encode_stream_response,
)
from trivet_protocol_kserve_v2.grpc.inference import Inference
from trivet_protocol_kserve_v2.grpc.restricted import Metadata
from trivet_protocol_kserve_v2.throttle import Throttle

logger = logging.getLogger(__name__)

MAX_PENDING = 1024
"""Requests in flight and responses not yet sent, on one stream; with more, no further request is read."""
MAX_PENDING_BYTES = 256 * 2**20
"""The same in bytes. One message may exceed it."""
MAX_UNSENT_BYTES = 16 * 2**20
"""Of responses ready to be sent; with more, a decoupled model waits before it answers again. One may exceed it. Tokens
of a language model never come near, and a client that does not read costs the server no more than this."""

STOPPING = "GRPC server is shutting down and has stopped accepting new requests."

Read = Callable[[], Awaitable[bytes | None]]
"""The next message, ``None`` when the client has sent its last."""
Write = Callable[[bytes], Awaitable[None]]
"""Send a message; returns when there is room for the next."""


class _Turn:
    """A request's place on the stream, and its responses as long as they wait for those of earlier requests."""

    __slots__ = ("done", "empty_final", "messages", "size", "throttle")

    def __init__(self, *, size: int) -> None:
        self.size = size
        self.throttle: Throttle | None = None
        """Set for a request to a decoupled model."""
        self.empty_final = False
        """The caller wants to hear when a decoupled model is done, also where its last answer holds nothing."""
        self.messages: list[bytes] = []
        self.done = False

    @property
    def ordered(self) -> bool:
        """Its responses wait for those of earlier requests."""
        return self.throttle is None


class InferenceStream:
    """One call of ``ModelStreamInfer``, on the event loop."""

    def __init__(
        self, inference: Inference, metadata: Metadata, *, max_waiting: int = 0, write_timeout_s: float = 60.0
    ) -> None:
        """``max_waiting`` responses of one decoupled request may wait for the client; 0 for any number. A client that
        takes nothing for ``write_timeout_s`` is given up, as it may hold a model back.
        """
        self._inference = inference
        self._write_timeout_s = write_timeout_s
        self._writing_since: float | None = None
        """On the loop's clock: since when a message waits to be taken."""
        self._max_waiting = max_waiting
        self._engine = inference.engine
        self._metadata = metadata
        self._fail_call = any(key == "triton_grpc_error" and value == "true" for key, value in metadata)
        self._in_flight: dict[InferenceRequest, _Turn] = {}
        self._order: deque[_Turn] = deque()
        self._outbox: deque[tuple[bytes, Throttle | None]] = deque()
        self._outbox_bytes = 0
        self._unsent = 0
        """Responses in the outbox, and those that wait for their turn."""
        self._pending_bytes = 0
        """Of the requests in flight and the unsent responses."""
        self._reading = True
        self._closing = False
        self._failure: TrivetError | None = None
        self._changed = asyncio.Event()
        """There is something to send, or nothing more to come."""
        self._room = asyncio.Event()
        """Cleared while no further request may be read."""
        self._room.set()

    async def run(self, read: Read, write: Write) -> None:
        """Serve the call until the client has sent its last request and got its last response.

        Raises :class:`~trivet.errors.TrivetError` where the call ends with an error. Cancelling this cancels all
        requests in flight, and so does a client that takes nothing for too long.
        """
        if self._inference.restriction is not None:
            try:
                self._inference.restriction.check(self._metadata)
            except TrivetError as error:
                self._inference.report_refused(None, error)
                raise
        reader = asyncio.ensure_future(self._read_all(read))
        writer = asyncio.ensure_future(self._write_all(write))
        watch = asyncio.ensure_future(self._watch(writer))
        try:
            await writer
        except asyncio.CancelledError:
            if not watch.done():
                raise
            raise UnavailableError(
                f"the client took none of its responses for {self._write_timeout_s:g} s (--grpc-write-timeout)"
            ) from None
        finally:
            # Nothing here may wait: this task is perhaps cancelled a second time.
            watch.cancel()
            reader.cancel()
            abandoned, self._in_flight = self._in_flight, {}
            for request, turn in abandoned.items():
                if turn.throttle is not None:
                    turn.throttle.open()
                self._engine.cancel(request)

    def close(self) -> None:
        """The server stops: end the call when the requests in flight are answered, for clients keep streams open."""
        self._closing = True
        self._changed.set()

    async def _read_all(self, read: Read) -> None:
        try:
            while (payload := await read()) is not None:
                self._accept(payload)
                await self._room.wait()
        except TrivetError as error:
            self._failure = error
        except Exception as error:
            logger.exception("reading from a stream failed")
            self._failure = InternalError(f"reading from the stream failed: {error}")
        finally:
            self._reading = False
            self._changed.set()

    async def _watch(self, writer: asyncio.Task[None]) -> None:
        """Cancel ``writer`` when the client has taken nothing for too long: one look now and then for any number of
        messages.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._write_timeout_s / 4)
            since = self._writing_since
            if since is not None and loop.time() - since >= self._write_timeout_s:
                writer.cancel()
                return

    async def _write_all(self, write: Write) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._outbox and self._failure is None:
                message, throttle = self._outbox.popleft()
                self._writing_since = loop.time()
                await write(message)
                self._writing_since = None
                self._sent(message, throttle)
            if self._failure is not None:
                raise self._failure
            if not self._in_flight:
                if not self._reading:
                    return
                if self._closing:
                    raise UnavailableError(STOPPING)
            self._changed.clear()
            await self._changed.wait()

    def _accept(self, payload: bytes) -> None:
        """Submit one request. Raises :class:`~trivet.errors.TrivetError` only where that ends the call."""
        try:
            message, raw = parse_request(payload)
        except TrivetError as error:
            self._inference.report_refused(None, error)
            raise
        request: InferenceRequest | None = None
        turn = _Turn(size=len(payload))
        try:
            if self._inference.is_decoupled(message):
                turn.throttle = Throttle(self._max_waiting, self._is_full)
            else:
                self._order.append(turn)
            request, turn.empty_final = self._inference.decode(message, raw, self._metadata)
            self._submit(turn, request)
        except TrivetError as error:
            if request is None:
                self._inference.report_refused(message, error)
            if self._fail_call:
                raise
            if turn.ordered and not (self._order and self._order[-1] is turn):
                # The model is not known, so nothing is known of its policy: Triton answers in order.
                self._order.append(turn)
            self._deliver(turn, encode_stream_refusal(message.id, message_of(error)), last=True)
        self._measure_room()

    def _submit(self, turn: _Turn, request: InferenceRequest) -> None:
        request.on_response = self._respond
        request.throttle = turn.throttle
        # Known before it is submitted, as a scheduler may answer it at once.
        self._in_flight[request] = turn
        self._pending_bytes += turn.size
        try:
            self._engine.submit(request)
        except TrivetError:
            self._forget(request)
            raise

    def _respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """``on_response`` of the stream's requests."""
        turn = self._in_flight.get(request)
        if turn is None:
            return
        if response.final:
            self._forget(request)
        # Not raised: its traceback would lead back to the request, and keep its memory until the next collection.
        failure = response.error
        message = None
        if failure is None:
            try:
                message = self._encode(turn, request, response)
            except TrivetError as error:
                failure = error
        if failure is not None:
            if self._fail_call:
                self._failure = failure
                self._changed.set()
                return
            message = encode_stream_error(request, message_of(failure), final=response.final)
        self._deliver(turn, message, last=response.final)

    def _encode(self, turn: _Turn, request: InferenceRequest, response: InferenceResponse) -> bytes | None:
        """The message for a response, if it makes one. Raises :class:`~trivet.errors.TrivetError` where it cannot."""
        if response.final and not turn.ordered and not response.outputs:
            return encode_stream_end(request) if turn.empty_final else None
        try:
            return encode_stream_response(request, response)
        except TrivetError:
            raise
        except Exception as error:
            logger.exception("response of model '%s' cannot be encoded", request.model_name)
            raise InternalError(f"response of model '{request.model_name}' cannot be encoded: {error}") from error

    def _forget(self, request: InferenceRequest) -> None:
        turn = self._in_flight.pop(request)
        self._pending_bytes -= turn.size
        if turn.throttle is not None:
            turn.throttle.open()

    def _deliver(self, turn: _Turn, message: bytes | None, *, last: bool) -> None:
        """Queue a message where its turn has come, and those that waited for this turn."""
        if message is not None:
            self._unsent += 1
            self._pending_bytes += len(message)
            if turn.ordered:
                turn.messages.append(message)
            else:
                self._queue(message, turn.throttle)
        elif turn.throttle is not None:
            turn.throttle.sent()
        if turn.throttle is not None:
            turn.throttle.delivered()
        turn.done = last
        while self._order:
            first = self._order[0]
            for ready in first.messages:
                self._queue(ready, None)
            first.messages.clear()
            if not first.done:
                break
            self._order.popleft()
        self._changed.set()
        self._measure_room()

    def _queue(self, message: bytes, throttle: Throttle | None) -> None:
        self._outbox.append((message, throttle))
        self._outbox_bytes += len(message)

    def _sent(self, message: bytes, throttle: Throttle | None) -> None:
        was_full = self._is_full()
        self._outbox_bytes -= len(message)
        self._unsent -= 1
        self._pending_bytes -= len(message)
        if throttle is not None:
            throttle.sent()
        if was_full and not self._is_full():
            for turn in self._in_flight.values():
                if turn.throttle is not None:
                    turn.throttle.recheck()
        self._measure_room()

    def _is_full(self) -> bool:
        """Whether decoupled models are held back, on any thread.

        Only what the client's reading alone makes less counts here: a model that waited for requests to end might
        wait for its own.
        """
        return self._outbox_bytes >= MAX_UNSENT_BYTES

    def _measure_room(self) -> None:
        if len(self._in_flight) + self._unsent < MAX_PENDING and self._pending_bytes < MAX_PENDING_BYTES:
            self._room.set()
        else:
            self._room.clear()
