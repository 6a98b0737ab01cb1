"""The service on pygrpc-native, whose HTTP/2 and framing run in Rust, outside the interpreter lock.

Its low-level front is used rather than its grpc.aio look-alike: unary calls arrive many at a time, and inference
answers them from callbacks, with no task per call. Streaming methods, which the front does not serve, go to a grpc.aio
server on a Unix socket behind it, with the same handlers.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from trivet.errors import InvalidArgumentError, TrivetError, UnavailableError

from trivet_protocol_kserve_v2.errors import grpc_details, grpc_status
from trivet_protocol_kserve_v2.grpc.control import ControlMethod
from trivet_protocol_kserve_v2.grpc.handlers import INFER, Handlers, Router
from trivet_protocol_kserve_v2.grpc.inference import Inference
from trivet_protocol_kserve_v2.grpc.restricted import Metadata
from trivet_protocol_kserve_v2.grpc.server import GrpcServer
from trivet_protocol_kserve_v2.grpc.settings import GrpcSettings
from trivet_protocol_kserve_v2.grpc.stream import STOPPING

try:
    from pygrpc_native import EVENT_CANCEL, NativeGrpcFront
except ImportError as error:
    raise InvalidArgumentError(
        f"--grpc-server=native needs the package pygrpc-native: pip install pygrpc-native ({error})"
    ) from error

logger = logging.getLogger(__name__)

# How many calls the front hands over at once. More makes the first of them wait for the last.
_BATCH = 64

_Cancel = Callable[[], object]


class NativeServer(GrpcServer):
    """A front that hands calls over in batches, and a grpc.aio server for the methods that stream."""

    def __init__(
        self, settings: GrpcSettings, inference: Inference, methods: Sequence[ControlMethod], handlers: Handlers
    ) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that pygrpc-native cannot honour."""
        _refuse_unsupported(settings)
        self._settings = settings
        self._inference = inference
        self._methods = methods
        self._handlers = handlers
        self._calls: dict[int, _Cancel | None] = {}
        """What cancels each unanswered call; ``None`` while it is being submitted."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._idle = asyncio.Event()
        self._front: NativeGrpcFront | None = None
        self._streaming: grpc.aio.Server | None = None
        self._folder: Path | None = None

    async def start(self) -> int:
        settings = self._settings
        try:
            front = NativeGrpcFront(
                settings.target,
                [(INFER, False), *((method.path, False) for method in self._methods)],
                call_details=True,
                keepalive_time_ms=settings.keepalive.time_ms,
                keepalive_timeout_ms=settings.keepalive.timeout_ms,
                keepalive_permit_without_calls=settings.keepalive.permit_without_calls,
                reuse_port=settings.reuse_port,
            )
        except OSError as error:
            raise OSError(f"gRPC address {settings.target}: {error}") from error
        self._front = front
        front.set_fallback(await self._start_streaming())
        front.start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._dispatch, args=(front, loop), name="grpc-native", daemon=True).start()
        return front.bound_port

    async def stop(self, grace_s: float) -> None:
        self._stopping = True
        self._handlers.close_streams()
        streaming = asyncio.ensure_future(self._streaming.stop(grace_s)) if self._streaming is not None else None
        if self._calls and grace_s:
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                logger.warning("%d gRPC calls were ended before they were answered", len(self._calls))
        for call_id, cancel in list(self._calls.items()):
            if cancel is not None:
                cancel()
            self._fail(call_id, UnavailableError("Server is stopping"))
        if streaming is not None:
            await streaming
        if self._front is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._front.close)
            self._front = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _start_streaming(self) -> str:
        self._folder = Path(tempfile.mkdtemp(prefix="trivet-grpc-"))
        path = str(self._folder / "stream.sock")
        self._streaming = grpc.aio.server(options=self._settings.channel_arguments())
        self._streaming.add_generic_rpc_handlers((Router(self._handlers.streaming()),))
        self._streaming.add_insecure_port(f"unix:{path}")
        await self._streaming.start()
        return path

    def _dispatch(self, front: NativeGrpcFront, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread of its own: take calls from the front, one wake-up of the loop per batch."""
        while (events := front.recv_batch_details(_BATCH)) is not None:
            try:
                loop.call_soon_threadsafe(self._on_events, front, events)
            except RuntimeError:
                # The loop was closed without stop().
                front.close()
                return

    def _on_events(self, front: NativeGrpcFront, events: Sequence[tuple[Any, ...]]) -> None:
        for kind, call_id, method_index, payload, _, details in events:
            if kind == EVENT_CANCEL:
                # The client has gone, or its deadline has passed: nothing that is sent now would arrive.
                cancel = self._calls.get(call_id)
                if call_id in self._calls:
                    self._done(call_id)
                if cancel is not None:
                    cancel()
            elif self._stopping:
                error = UnavailableError(STOPPING)
                front.fail(call_id, grpc_status(error), grpc_details(error))
            elif method_index == 0:
                self._infer(front, call_id, payload, details[0])
            else:
                task = asyncio.ensure_future(
                    self._control(self._methods[method_index - 1], call_id, payload, details[0])
                )
                self._calls[call_id] = task.cancel
                # The loop holds tasks weakly.
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _infer(self, front: NativeGrpcFront, call_id: int, payload: bytes, metadata: Metadata) -> None:
        calls = self._calls

        def answer(result: bytes | TrivetError) -> None:
            if call_id not in calls:
                return
            if isinstance(result, bytes):
                self._done(call_id)
                front.respond(call_id, result)
            else:
                self._fail(call_id, result)

        calls[call_id] = None
        try:
            request = self._inference.submit(payload, metadata, answer)
        except TrivetError as error:
            self._fail(call_id, error)
        else:
            if call_id in calls:
                calls[call_id] = lambda: self._inference.engine.cancel(request)

    async def _control(self, method: ControlMethod, call_id: int, payload: bytes, metadata: Metadata) -> None:
        try:
            result = await method(payload, metadata)
        except TrivetError as error:
            self._fail(call_id, error)
        else:
            if call_id in self._calls:
                self._done(call_id)
                assert self._front is not None
                self._front.respond(call_id, result)

    def _fail(self, call_id: int, error: TrivetError) -> None:
        if call_id in self._calls:
            self._done(call_id)
            assert self._front is not None
            self._front.fail(call_id, grpc_status(error), grpc_details(error))

    def _done(self, call_id: int) -> None:
        del self._calls[call_id]
        if self._stopping and not self._calls:
            self._idle.set()


def _refuse_unsupported(settings: GrpcSettings) -> None:
    keepalive = settings.keepalive
    refused = {
        "TLS (--grpc-use-ssl)": settings.tls is not None,
        "response compression (--grpc-infer-response-compression-level)": settings.compression != "none",
        "closing connections by age (--grpc-max-connection-age)": bool(keepalive.max_connection_age_ms),
    }
    for what, asked in refused.items():
        if asked:
            raise InvalidArgumentError(f"--grpc-server=native cannot do {what}; use --grpc-server=aio")
