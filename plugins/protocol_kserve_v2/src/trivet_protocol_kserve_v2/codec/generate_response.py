"""A response of the generate extension: one JSON object, or an event of a stream that holds one.

Its keys are the outputs, the response's parameters, ``model_name``, ``model_version`` and ``id``, sorted. An output of
one element is that element, any other a flat list. Source: Triton's generate extension; for events, the HTML standard,
"Server-sent events".
"""

from __future__ import annotations

from typing import Any

import orjson
from trivet.errors import InternalError, TrivetError, message_of
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor, element_count

from trivet_protocol_kserve_v2.codec.json_tensor import encode_elements
from trivet_protocol_kserve_v2.codec.json_writer import quote, write_json


def encode_generated(request: InferenceRequest, response: InferenceResponse) -> bytes:
    """The object for one response. Where names are the same, those of the protocol win, then the parameters.

    Called on the event loop. Raises the response's error if it has one, and :class:`~trivet.errors.TrivetError` for an
    output that has no form in JSON.
    """
    if response.error is not None:
        raise response.error
    model = request.model
    if model is None:
        raise InternalError("response to a request that no model has taken")
    document: dict[str, Any] = {tensor.name: _encode_output(tensor) for tensor in response.outputs}
    document.update(response.parameters)
    document["model_name"] = model.name
    document["model_version"] = str(model.version)
    if request.id:
        document["id"] = request.id
    return write_json(dict(sorted(document.items())))


def only_ends(request: InferenceRequest, response: InferenceResponse) -> bool:
    """Whether a decoupled model says no more than that this was all; such a response has no object."""
    decoupled = request.model is not None and request.model.spec.decoupled
    return decoupled and response.final and response.error is None and not response.outputs


def encode_error(error: TrivetError) -> bytes:
    """The object that tells of a failure."""
    return b'{"error":' + quote(message_of(error)) + b"}"


def encode_event(document: bytes) -> bytes:
    """The event of a stream that carries one object, which has no line breaks."""
    return b"data: " + document + b"\n\n"


def _encode_output(tensor: Tensor) -> orjson.Fragment:
    encoded = encode_elements(tensor)
    # An only element stands without its brackets.
    return orjson.Fragment(encoded[1:-1] if element_count(tensor.shape) == 1 else encoded)
