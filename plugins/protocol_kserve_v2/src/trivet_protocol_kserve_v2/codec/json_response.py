"""An inference response over HTTP: a JSON header, and the bytes of binary tensors behind it.

Source: Open Inference Protocol v2, "Inference Response JSON Object"; Triton's binary tensor data, classification and
shared memory extensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trivet.errors import InternalError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.memory import RegionSlice, place
from trivet.tensor import Buffer, Tensor

from trivet_protocol_kserve_v2.codec.classification import classified
from trivet_protocol_kserve_v2.codec.json_request import ResponseFormat
from trivet_protocol_kserve_v2.codec.json_tensor import encode_data
from trivet_protocol_kserve_v2.codec.json_writer import write_json

if TYPE_CHECKING:
    from trivet.lifecycle import LoadedModel


_NO_REGIONS: Mapping[str, RegionSlice] = {}


class EncodedResponse:
    """The buffers of a body, to be sent one after the other.

    ``json_size`` is the ``Inference-Header-Content-Length`` where binary data follows the JSON, 0 where none does.
    """

    __slots__ = ("buffers", "json_size")

    def __init__(self, buffers: Sequence[Buffer], json_size: int) -> None:
        self.buffers = buffers
        self.json_size = json_size


def encode_response(request: InferenceRequest, response: InferenceResponse) -> EncodedResponse:
    """The body that answers ``request``, whose ``context`` is its :class:`ResponseFormat`. Tensors are not copied.

    Called on the event loop; outputs that have one of its ``regions`` are put there. Raises the response's error if it
    has one, and :class:`~trivet.errors.TrivetError` for an output that cannot be given in the way the caller wants.
    """
    if response.error is not None:
        raise response.error
    model = request.model
    if model is None:
        raise InternalError("response to a request that no model has taken")
    place(request, response)
    response_format: ResponseFormat = request.context
    outputs = response.outputs if request.outputs is None else classified(request, response.outputs)
    regions = request.regions or _NO_REGIONS
    if not (request.id or response.parameters or regions):
        encoded = _encode_binary(model, outputs, response_format)
        if encoded is not None:
            return encoded

    document: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if request.id:
        document = {"id": request.id, **document}
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    buffers: list[Buffer] = [b""]
    document["outputs"] = [
        _describe(tensor) if tensor.name in regions else _encode_output(tensor, response_format, buffers)
        for tensor in outputs
    ]
    header = write_json(document)
    buffers[0] = header
    return EncodedResponse(buffers, len(header) if len(buffers) > 1 else 0)


# Few headers describe most responses: models, shapes and sizes repeat while the data changes.
_headers: dict[tuple[Any, ...], bytes] = {}
_HEADERS_SIZE = 1024


def _encode_binary(
    model: LoadedModel, outputs: Sequence[Tensor], response_format: ResponseFormat
) -> EncodedResponse | None:
    """A response of binary outputs and nothing else, with a remembered header; ``None`` where some output is JSON."""
    buffers: list[Buffer] = [b""]
    key: list[object] = [model.name, model.version]
    for tensor in outputs:
        if not response_format.outputs.get(tensor.name, response_format.binary):
            return None
        data = tensor.wire()
        size = data.nbytes if type(data) is memoryview else len(data)
        key += (tensor.name, tensor.datatype, tensor.shape, size)
        if size:
            buffers.append(data)
    if len(buffers) == 1:
        return None
    header = _headers.get(signature := tuple(key))
    if header is None:
        document = {
            "model_name": model.name,
            "model_version": str(model.version),
            "outputs": [_encode_output(tensor, response_format, []) for tensor in outputs],
        }
        header = write_json(document)
        if len(_headers) >= _HEADERS_SIZE:
            _headers.clear()
        _headers[signature] = header
    buffers[0] = header
    return EncodedResponse(buffers, len(header))


def _describe(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype.name, "shape": tensor.shape}


def _encode_output(tensor: Tensor, response_format: ResponseFormat, buffers: list[Buffer]) -> dict[str, Any]:
    fields = _describe(tensor)
    if response_format.outputs.get(tensor.name, response_format.binary):
        data = tensor.wire()
        size = memoryview(data).nbytes
        fields["parameters"] = {"binary_data_size": size}
        if size:
            buffers.append(data)
    else:
        fields["data"] = encode_data(tensor)
    return fields
