"""A response as one value, and back.

Four bytes of magic and version, the length of the header as a little-endian uint32, the header in JSON, and then the
outputs one after the other in wire layout. The header has ``outputs`` (name, datatype, shape, bytes of each) and
``parameters``.

A value comes out of a store that others may write to, so it is checked before anything is made of it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from trivet.datatypes import BY_NAME, BYTES
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceResponse
from trivet.tensor import Tensor, decode_bytes, element_count

MAGIC = b"TRV\x01"
"""The last byte is the version of the format."""

_LENGTH = struct.Struct("<I")
_START = len(MAGIC) + _LENGTH.size


class CorruptEntryError(ValueError):
    """The value is none that :func:`encode` wrote."""


def encode(response: InferenceResponse) -> bytes:
    """The value for a response; its tensors are copied into it."""
    buffers = [tensor.wire() for tensor in response.outputs]
    outputs = [
        [tensor.name, tensor.datatype.name, list(tensor.shape), memoryview(buffer).nbytes]
        for tensor, buffer in zip(response.outputs, buffers, strict=True)
    ]
    header = json.dumps({"outputs": outputs, "parameters": dict(response.parameters)}, separators=(",", ":")).encode()
    return b"".join([MAGIC, _LENGTH.pack(len(header)), header, *buffers])


def decode(value: bytes) -> InferenceResponse:
    """The response in a value, its tensors as views of it. Raises :class:`CorruptEntryError`, and nothing else."""
    if value[: len(MAGIC)] != MAGIC or len(value) < _START:
        raise CorruptEntryError(f"begins with {value[:8]!r}, expected {MAGIC!r}")
    end = _START + _LENGTH.unpack_from(value, len(MAGIC))[0]
    if end > len(value):
        raise CorruptEntryError(f"has {len(value)} bytes, and a header that ends at {end}")
    try:
        header = json.loads(value[_START:end])
        outputs, parameters = header["outputs"], header["parameters"]
        tensors = _tensors(outputs, memoryview(value)[end:])
        if not all(isinstance(one, (bool, int, float, str)) for one in parameters.values()):
            raise CorruptEntryError("has a parameter that is no bool, number or text")
    except CorruptEntryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptEntryError(f"has no valid header: {type(error).__name__}: {error}") from error
    return InferenceResponse(tensors, parameters=parameters)


def _tensors(outputs: Sequence[Any], data: memoryview) -> list[Tensor]:
    tensors: list[Tensor] = []
    start = 0
    for name, type_name, dims, size in outputs:
        datatype = BY_NAME[type_name]
        if type(name) is not str or not all(type(number) is int and number >= 0 for number in (size, *dims)):
            raise CorruptEntryError(f"has an output {[name, type_name, dims, size]!r}")
        shape = tuple(dims)
        part = data[start : start + size]
        if datatype is BYTES:
            try:
                decode_bytes(name, part, element_count(shape))
            except InvalidArgumentError as error:
                raise CorruptEntryError(f"has an output whose strings cannot be read: {error}") from error
        elif size != element_count(shape) * datatype.itemsize:
            raise CorruptEntryError(f"has {size} bytes for output '{name}', {datatype} of shape {dims}")
        if part.nbytes != size:
            raise CorruptEntryError(f"ends within output '{name}'")
        tensors.append(Tensor.from_wire(name, datatype, shape, part))
        start += size
    if start != data.nbytes:
        raise CorruptEntryError(f"has {data.nbytes - start} bytes after its last output")
    return tensors
