"""The generate extension: inference in terms of plain JSON, answered whole or as a stream of events.

Source: Triton's generate extension. Both endpoints serve decoupled models and others alike.
"""

from __future__ import annotations

from trivet.engine import Engine
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.http import HttpRequest, HttpResponse
from trivet.inference import InferenceRequest, InferenceResponse

from trivet_protocol_kserve_v2.codec.generate_request import decode_generate
from trivet_protocol_kserve_v2.codec.generate_response import encode_generated, only_ends
from trivet_protocol_kserve_v2.http.event_stream import EventStream
from trivet_protocol_kserve_v2.http.forwarding import HeaderForwarding
from trivet_protocol_kserve_v2.http.refusals import report_refused
from trivet_protocol_kserve_v2.http.responses import JSON, error_response
from trivet_protocol_kserve_v2.http.versions import path_version

_IDENTITY = (b"", b"identity")
_NOT_ONE = (
    "generate expects model to produce exactly 1 response, use generate stream for model that generates various number"
    " of responses"
)


class GenerateHandlers:
    """Answer ``POST v2/models/NAME[/versions/VERSION]/generate`` and ``.../generate_stream``, later and without a task.

    Both raise :class:`~trivet.errors.TrivetError` where the request is refused.
    """

    def __init__(self, engine: Engine, forwarding: HeaderForwarding) -> None:
        self._engine = engine
        self._forwarding = forwarding

    def one(self, call: HttpRequest) -> None:
        """``generate``: the model's only response."""
        _OneResponse(self._engine, call).submit(self._decode(call))

    def stream(self, call: HttpRequest) -> None:
        """``generate_stream``: any number of responses, each as it comes."""
        EventStream(self._engine, call).submit(self._decode(call))

    def _decode(self, call: HttpRequest) -> InferenceRequest:
        try:
            return self._read(call)
        except TrivetError as error:
            report_refused(self._engine, call, error)
            raise

    def _read(self, call: HttpRequest) -> InferenceRequest:
        version = path_version(call)
        spec = self._engine.model(call.params["model"], version).spec
        if call.headers.get(b"content-encoding", b"").lower() not in _IDENTITY:
            raise InvalidArgumentError("Unsupported content-encoding, only 'identity' is supported.")
        request = decode_generate(call.body, spec, version, received_ns=call.received_ns)
        self._forwarding.apply(call, request)
        return request


class _OneResponse:
    """One call of ``generate``. It knows that a second response is one too many, so it waits for no third."""

    def __init__(self, engine: Engine, call: HttpRequest) -> None:
        self._engine = engine
        self._call = call
        self._request: InferenceRequest | None = None
        self._answer: HttpResponse | None = None
        self._answered = False

    def submit(self, request: InferenceRequest) -> None:
        self._request = request
        request.on_response = self._respond
        self._call.on_disconnect = self._cancel
        self._engine.submit(request)

    def _cancel(self) -> None:
        self._answered = True
        if self._request is not None:
            self._engine.cancel(self._request)

    def _respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """The engine's callback."""
        if self._answered:
            return
        if not only_ends(request, response):
            if self._answer is not None:
                self._answered = True
                self._call.respond(error_response(InternalError(_NOT_ONE)))
                self._engine.cancel(request)
                return
            try:
                self._answer = HttpResponse(200, (encode_generated(request, response),), JSON)
            except TrivetError as error:
                self._answer = error_response(error)
        if response.final:
            self._answered = True
            self._call.respond(self._answer or error_response(InternalError(_NOT_ONE)))
