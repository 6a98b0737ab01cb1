"""Inference over HTTP.

The usual request costs no task: the handler decodes and submits it, and the engine's callback answers it. A request
that is compressed, or wants its response so, takes a task, in which the work of compressing leaves the event loop.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache, partial

from anyio import CapacityLimiter, to_thread
from trivet.config.spec import ModelSpec
from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, UnimplementedError
from trivet.http import Body, HandlerResult, Header, HttpRequest, HttpResponse
from trivet.inference import InferenceRequest, InferenceResponse

from trivet_protocol_kserve_v2.codec import compression
from trivet_protocol_kserve_v2.codec.compression import Coding
from trivet_protocol_kserve_v2.codec.header_cache import HeaderCache
from trivet_protocol_kserve_v2.codec.json_response import EncodedResponse, encode_response
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.http.forwarding import HeaderForwarding
from trivet_protocol_kserve_v2.http.refusals import report_refused
from trivet_protocol_kserve_v2.http.responses import JSON, error_response
from trivet_protocol_kserve_v2.http.versions import path_version

_HEADER_LENGTH = b"inference-header-content-length"
_LEADING_INTEGER = re.compile(rb"\s*([+-]?[0-9]{1,20})")
_BINARY: Header = (b"content-type", b"application/octet-stream")

# Bodies of this many bytes are compressed and decompressed on another thread; below, handing them over costs more.
_OFFLOADED_BYTES = 64 * 1024


class InferenceHandler:
    """Answers ``POST v2/models/NAME[/versions/VERSION]/infer``."""

    def __init__(
        self,
        engine: Engine,
        memory: SharedMemory,
        forwarding: HeaderForwarding,
        *,
        max_decompressed_size: int = 2**63 - 1,
    ) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for a size below 1."""
        if max_decompressed_size < 1:
            raise InvalidArgumentError(f"--http-max-decompressed-size={max_decompressed_size}: expected at least 1")
        self._engine = engine
        self._memory = memory
        self._max_decompressed_size = max_decompressed_size
        # A small body may grow to a very large one, so only as many grow at a time as there are processors; and the
        # threads that look into repositories are not to be had for this.
        self._coders = CapacityLimiter(os.cpu_count() or 1)
        self._headers = HeaderCache()
        self._forwarding = forwarding

    def __call__(self, call: HttpRequest) -> HandlerResult:
        """Answer later through ``call.respond``, or in a coroutine. Raises where the request is refused."""
        headers = call.headers
        if b"content-encoding" in headers or b"accept-encoding" in headers:
            coding = compression.preferred_coding(headers.get(b"accept-encoding", b""))
            if coding is not None or b"content-encoding" in headers:
                return self._answer_compressed(call, coding)
        try:
            request = self._decode(call, call.body, *self._target(call))
        except TrivetError as error:
            report_refused(self._engine, call, error)
            raise
        request.context.call = call
        request.on_response = self._respond
        self._engine.submit(request)
        if not request.done:
            call.on_disconnect = partial(self._engine.cancel, request)
        return None

    def _target(self, call: HttpRequest) -> tuple[ModelSpec, str]:
        """The model that the path names, and the version as the caller wants it."""
        version = path_version(call)
        spec = self._engine.model(call.params["model"], version).spec
        if spec.decoupled:
            raise UnimplementedError("HTTP end point doesn't support models with decoupled transaction policy")
        return spec, version

    def _decode(self, call: HttpRequest, body: Body, spec: ModelSpec, version: str) -> InferenceRequest:
        headers = call.headers
        json_size = _json_size(headers[_HEADER_LENGTH], len(body)) if _HEADER_LENGTH in headers else None
        request = self._headers.decode(
            body,
            json_size,
            spec,
            version,
            received_ns=call.received_ns,
            memory=self._memory,
        )
        self._forwarding.apply(call, request)
        return request

    def _respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """The engine's callback."""
        response_format = request.context
        if not response.final:
            response_format.early_responses += 1
            return
        try:
            if response_format.early_responses:
                raise InternalError(f"expected a single response, got {response_format.early_responses + 1}")
            encoded = encode_response(request, response)
        except TrivetError as error:
            response_format.call.respond(error_response(error))
        else:
            response_format.call.respond(HttpResponse(200, encoded.buffers, _headers(encoded)))

    async def _answer_compressed(self, call: HttpRequest, coding: Coding | None) -> HttpResponse:
        try:
            target = self._target(call)
            request = self._decode(call, await self._plain_body(call), *target)
        except TrivetError as error:
            report_refused(self._engine, call, error)
            if isinstance(error, compression.UnknownCodingError):
                return error_response(error, headers=((b"accept-encoding", compression.SUPPORTED.encode()),))
            if isinstance(error, compression.ContentTooLargeError):
                return error_response(error, 413)
            raise
        response = await self._engine.infer(request)
        encoded = encode_response(request, response)
        headers = _headers(encoded)
        if coding is None:
            return HttpResponse(200, encoded.buffers, headers)
        compressed = await self._compress(encoded.buffers, coding)
        return HttpResponse(200, compressed, (*headers, (b"content-encoding", coding.encode())))

    async def _plain_body(self, call: HttpRequest) -> Body:
        body = call.body
        if not compression.is_compressed(call.headers.get(b"content-encoding", b"identity")):
            return body
        if len(body) < _OFFLOADED_BYTES:
            return compression.decompress(body, self._max_decompressed_size)
        return await to_thread.run_sync(compression.decompress, body, self._max_decompressed_size, limiter=self._coders)

    async def _compress(self, buffers: Sequence[Body], coding: Coding) -> Sequence[Body]:
        if sum(memoryview(buffer).nbytes for buffer in buffers) < _OFFLOADED_BYTES:
            return compression.compress(buffers, coding)
        return await to_thread.run_sync(compression.compress, buffers, coding, limiter=self._coders)


def _headers(encoded: EncodedResponse) -> Sequence[Header]:
    return _binary_headers(encoded.json_size) if encoded.json_size else JSON


@lru_cache(maxsize=1024)
def _binary_headers(json_size: int) -> Sequence[Header]:
    return (_BINARY, (_HEADER_LENGTH, b"%d" % json_size))


def _json_size(value: bytes, body_size: int) -> int:
    """The header's number; as in Triton, text after it is passed over, and text in its place counts as 0."""
    if value.isdigit() and len(value) < 20:
        size = int(value)
    else:
        match = _LEADING_INTEGER.match(value)
        size = int(match[1]) if match is not None else 0
    if not 0 <= size <= body_size:
        raise InvalidArgumentError(
            f"inference header size should be in range (0, {body_size}), got: {value.decode('latin-1')}"
        )
    return size
