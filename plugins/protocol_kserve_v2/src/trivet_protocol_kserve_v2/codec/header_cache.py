"""Remembers the JSON headers of requests whose tensors are all binary.

A client that asks again for other data sends the same header again: its bytes say everything but the data, so what they
were decoded to last time is what they would be decoded to now. That holds for headers without an id, which clients make
unique; a header is looked up by all of its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trivet.datatypes import DataType
from trivet.inference import InferenceRequest, ParameterValue, RequestedOutput
from trivet.tensor import Buffer, Tensor

from trivet_protocol_kserve_v2.codec.json_request import ResponseFormat, decode_request
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec


class _Header:
    """A decoded header: the request without its data."""

    __slots__ = ("binary", "data_size", "inputs", "outputs", "parameters", "requested")

    def __init__(self, request: InferenceRequest) -> None:
        response_format: ResponseFormat = request.context
        self.inputs: list[tuple[str, DataType, tuple[int, ...], int]] = []
        self.data_size = 0
        for tensor in request.inputs.values():
            size = tensor.wire_size or 0
            self.inputs.append((tensor.name, tensor.datatype, tensor.shape, size))
            self.data_size += size
        self.parameters: Mapping[str, ParameterValue] = request.parameters
        self.requested: Sequence[RequestedOutput] | None = request.outputs
        self.binary = response_format.binary
        self.outputs = response_format.outputs


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
        if not json_size or json_size > self.LONGEST:
            return decode_request(body, json_size, spec, version, received_ns=received_ns, memory=memory)
        text = bytes(body[:json_size])
        header = self._headers.get(text)
        if header is None or header.data_size != len(body) - json_size:
            request = decode_request(body, json_size, spec, version, received_ns=received_ns, memory=memory)
            if header is None and _can_be_remembered(text, request):
                if len(self._headers) >= self.SIZE:
                    self._headers.clear()
                self._headers[text] = _Header(request)
            return request
        data = memoryview(body)
        inputs: dict[str, Tensor] = {}
        start = json_size
        for name, datatype, shape, size in header.inputs:
            end = start + size
            inputs[name] = Tensor.from_wire(name, datatype, shape, data[start:end])
            start = end
        return InferenceRequest(
            spec.name,
            inputs,
            model_version=version,
            outputs=header.requested,
            parameters=header.parameters,
            context=ResponseFormat(header.binary, header.outputs),
            received_ns=received_ns,
        )


def _can_be_remembered(text: bytes, request: InferenceRequest) -> bool:
    """Whether every tensor is binary, and nothing in the header belongs to one request of many."""
    return (
        # A backslash could spell the words looked for in another way.
        not any(word in text for word in (b"\\", b'"data"', b"shared_memory"))
        and not request.id
        and not (request.correlation_id or request.sequence_start or request.sequence_end)
        and not (request.priority or request.timeout_us)
    )
