"""``ModelInfer``: bytes in, ``Engine.submit``, bytes out.

Written with callbacks, so that a server which hands over many calls at once needs no task for each.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

from trivet.engine import Engine
from trivet.errors import InternalError, TrivetError, UnimplementedError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Buffer

from trivet_protocol_kserve_v2.codec.protobuf_request import DecodedRequest, decode_request, parse_request
from trivet_protocol_kserve_v2.codec.protobuf_response import encode_response
from trivet_protocol_kserve_v2.codec.shared_memory import NO_MEMORY, SharedMemory
from trivet_protocol_kserve_v2.grpc.restricted import Metadata, Restriction
from trivet_protocol_kserve_v2.grpc.versions import usual_version
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import ModelInferRequest

logger = logging.getLogger(__name__)

_TRACE_CONTEXT = ("traceparent", "tracestate")

Answer = Callable[[bytes | TrivetError], None]
"""Takes the response message, or the error that ends the call; called once, on the event loop."""


class Inference:
    """Runs inference for calls of the service. All of it on the event loop."""

    def __init__(
        self,
        engine: Engine,
        header_pattern: re.Pattern[str] | None,
        restriction: Restriction | None,
        memory: SharedMemory = NO_MEMORY,
    ) -> None:
        self.engine = engine
        self._memory = memory
        self.restriction = restriction
        self._header_pattern = header_pattern

    def submit(self, payload: bytes, metadata: Metadata, answer: Answer) -> InferenceRequest:
        """Start one ``ModelInfer`` call; ``Engine.cancel`` takes the request that is returned.

        Raises :class:`~trivet.errors.TrivetError`, and nothing else, where it is refused; ``answer`` is then never
        called.
        """
        message: ModelInferRequest | None = None
        request: InferenceRequest | None = None
        try:
            if self.restriction is not None:
                self.restriction.check(metadata)
            message, raw = parse_request(payload)
            if self.is_decoupled(message):
                raise UnimplementedError("ModelInfer RPC doesn't support models with decoupled transaction policy")
            request, _ = self.decode(message, raw, metadata)
            request.on_response = _respond
            request.context = answer
            self.engine.submit(request)
        except TrivetError as error:
            if request is None:
                self.report_refused(message, error)
            raise
        except Exception as error:
            logger.exception("a call of ModelInfer failed")
            raise InternalError(f"Unexpected {type(error).__name__}: {error}") from error
        return request

    def report_refused(self, message: ModelInferRequest | None, error: TrivetError) -> None:
        """Tell of a request that was refused before ``Engine.submit``; no ``message`` where it could not be parsed."""
        message = message or ModelInferRequest()
        self.engine.report_refused(message.model_name, error, model_version=message.model_version, id=message.id)

    def is_decoupled(self, message: ModelInferRequest) -> bool:
        """Whether the model that a message names answers any number of times; brings its version into usual spelling.

        Raises :class:`~trivet.errors.TrivetError` where there is no such model. Triton looks for it before it reads the
        inputs: where both are wrong, clients hear of the model.
        """
        if message.model_version:
            message.model_version = usual_version(message.model_version)
        return self.engine.model(message.model_name, message.model_version).spec.decoupled

    def decode(self, message: ModelInferRequest, raw: Sequence[Buffer], metadata: Metadata) -> DecodedRequest:
        """The request that a message and its call's metadata make. Raises :class:`~trivet.errors.TrivetError`."""
        decoded = decode_request(message, raw, self._memory)
        decoded.request.protocol = "GRPC"
        decoded.request.trace_context = _trace_context(metadata)
        if self._header_pattern is not None:
            matches = self._header_pattern.search
            forwarded = {key: value for key, value in metadata if isinstance(value, str) and matches(key)}
            if forwarded:
                decoded.request.parameters = {**decoded.request.parameters, **forwarded}
        return decoded


def _trace_context(metadata: Metadata) -> dict[str, str] | None:
    """The caller's trace context (W3C), where the call's metadata has one."""
    found = {key: value for key, value in metadata if key in _TRACE_CONTEXT and isinstance(value, str)}
    return found if "traceparent" in found else None


def _respond(request: InferenceRequest, response: InferenceResponse) -> None:
    """``on_response`` of a unary call, which has one response; what a model adds to it goes nowhere."""
    if request.context is None:
        return
    answer: Answer = request.context
    request.context = None
    if response.error is not None:
        answer(response.error)
        return
    try:
        encoded = encode_response(request, response)
    except TrivetError as error:
        answer(error)
    except Exception as error:
        logger.exception("response of model '%s' cannot be encoded", request.model_name)
        answer(InternalError(f"response of model '{request.model_name}' cannot be encoded: {error}"))
    else:
        answer(encoded)
