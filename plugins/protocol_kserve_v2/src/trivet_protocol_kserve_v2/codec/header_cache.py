"""Remembers the JSON headers of requests whose tensors are all binary or in shared memory.

A client that asks again for other data sends the same header again: its bytes say everything but the data, so what they
were decoded to last time is what they would be decoded to now. That holds for headers without an id, which clients make
unique; a header is looked up by all of its bytes. Regions are found anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trivet.datatypes import DataType
from trivet.inference import InferenceRequest, ParameterValue, RequestedOutput
from trivet.tensor import Buffer, Tensor

from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_request import ResponseFormat, decode_request, region_of
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec


_Part = tuple[str, int, int]
"""Of a region: its name, offset and size."""


class _Header:
    """A decoded header: the request without its data."""

    __slots__ = ("binary", "data_size", "inputs", "outputs", "parameters", "regions", "requested")

    def __init__(self, document: Mapping[str, Any], request: InferenceRequest) -> None:
        """``document`` is what ``request`` was decoded from."""
        response_format: ResponseFormat = request.context
        self.inputs: list[tuple[str, DataType, tuple[int, ...], int, _Part | None]] = []
        self.data_size = 0
        shared = _parts(document["inputs"])
        for tensor in request.inputs.values():
            size = 0 if tensor.name in shared else tensor.wire_size or 0
            self.inputs.append((tensor.name, tensor.datatype, tensor.shape, size, shared.get(tensor.name)))
            self.data_size += size
        self.parameters: Mapping[str, ParameterValue] = request.parameters
        self.requested: Sequence[RequestedOutput] | None = request.outputs
        self.regions = _parts(document.get("outputs", ()))
        self.binary = response_format.binary
        self.outputs = response_format.outputs


def _parts(tensors: Sequence[Mapping[str, Any]]) -> dict[str, _Part]:
    """Where in shared memory tensors are, of those that are there."""
    parts: dict[str, _Part] = {}
    for tensor in tensors:
        parameters = tensor.get("parameters")
        if type(parameters) is dict and "shared_memory_region" in parameters:
            parts[tensor["name"]] = region_of(parameters)
    return parts


class HeaderCache:
    """:func:`decode_request` that remembers headers. Used on the event loop; one per server."""

    SIZE = 1024
    """Headers that are remembered; when it is full, all are forgotten."""
    LONGEST = 4096
    """Bytes up to which a header is remembered."""

    def __init__(self) -> None:
        self._headers: dict[bytes, _Header] = {}

    def __len__(self) -> int:
        return len(self._headers)

    def decode(
        self,
        body: Buffer,
        json_size: int | None,
        spec: ModelSpec,
        version: str,
        *,
        received_ns: int,
        memory: SharedMemory,
    ) -> InferenceRequest:
        """What :func:`decode_request` gives for the same arguments, and the errors that it raises."""
        size = len(body) if json_size is None else json_size
        if not 0 < size <= self.LONGEST:
            return decode_request(body, json_size, spec, version, received_ns=received_ns, memory=memory)
        text = bytes(body[:size])
        header = self._headers.get(text)
        if header is None or header.data_size != len(body) - size:
            request = decode_request(body, json_size, spec, version, received_ns=received_ns, memory=memory)
            if header is None:
                self._remember(text, request)
            return request
        data = memoryview(body)
        inputs: dict[str, Tensor] = {}
        start = size
        for name, datatype, shape, tensor_size, part in header.inputs:
            if part is None:
                end = start + tensor_size
                inputs[name] = Tensor.from_wire(name, datatype, shape, data[start:end])
                start = end
            else:
                inputs[name] = memory.slice(*part).tensor(name, datatype, shape)
        request = InferenceRequest(
            spec.name,
            inputs,
            model_version=version,
            outputs=header.requested,
            parameters=header.parameters,
            context=ResponseFormat(header.binary, header.outputs),
            received_ns=received_ns,
        )
        if header.regions:
            request.regions = {name: memory.slice(*part) for name, part in header.regions.items()}
        return request

    def _remember(self, text: bytes, request: InferenceRequest) -> None:
        if not _can_be_remembered(text, request):
            return
        document = read_json(text)
        if len(document.get("outputs", ())) != len(request.outputs or ()):
            return  # an output that is named twice
        if len(self._headers) >= self.SIZE:
            self._headers.clear()
        self._headers[text] = _Header(document, request)


def _can_be_remembered(text: bytes, request: InferenceRequest) -> bool:
    """Whether no tensor's data is in the header, and nothing in it belongs to one request of many."""
    return (
        # A backslash could spell the word looked for in another way.
        b"\\" not in text
        and b'"data"' not in text
        and not request.id
        and not (request.correlation_id or request.sequence_start or request.sequence_end)
        and not (request.priority or request.timeout_us)
    )
