"""Responses in this process, bounded in bytes; the least recently used ones leave first."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping

from trivet.datatypes import BY_NAME
from trivet.errors import InvalidArgumentError
from trivet.extensions import CacheUsage, ResponseCache
from trivet.inference import InferenceResponse, ParameterValue
from trivet.tensor import Buffer, Tensor

_FAILED = "Failed to initialize LocalCache:"

_SMALLEST = 1024
"""Bytes; Triton's cache does not start with less either."""

_SLOT = 320
"""Bytes for an entry's place in the dictionary, its tuple and its numbers, with room for a table that just grew."""

_INTEGER = 32
"""Bytes of a dimension of a shape."""


_Output = tuple[str, str, tuple[int, ...], Buffer]
"""Name, datatype's name, shape, and elements in wire layout."""


_Parameters = tuple[tuple[str, ParameterValue], ...]

_Entry = tuple[int, tuple[_Output, ...], _Parameters]
"""Size in bytes, and a response in parts. Plain tuples of plain values, since Python's cyclic garbage collector stops
looking into those: objects it would walk again and again, a million of them for a good part of a second."""


class LocalCache(ResponseCache):
    """An LRU of at most ``size`` bytes, with everything that an entry occupies counted, not the tensors alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self._evictions = 0

    @property
    def largest_response(self) -> int:
        return self._size

    @property
    def usage(self) -> CacheUsage:
        return CacheUsage(len(self._entries), self._bytes, self._size, self._evictions)

    def lookup(self, key: bytes) -> InferenceResponse | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        _, outputs, parameters = entry
        tensors = [Tensor.from_wire(name, BY_NAME[kind], shape, data) for name, kind, shape, data in outputs]
        return InferenceResponse(tensors, parameters=dict(parameters))

    def insert(self, key: bytes, response: InferenceResponse) -> None:
        outputs = tuple((one.name, one.datatype.name, one.shape, one.wire()) for one in response.outputs)
        parameters = tuple(response.parameters.items())
        size = _footprint(key, outputs, parameters)
        if size > self._size:
            return
        before = self._entries.pop(key, None)
        if before is not None:
            self._bytes -= before[0]
        while self._bytes + size > self._size:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest[0]
            self._evictions += 1
        self._entries[key] = (size, outputs, parameters)
        self._bytes += size

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0


def create(options: Mapping[str, str]) -> LocalCache:
    """The cache of ``--cache-config=local,size=BYTES``.

    Raises :class:`~trivet.errors.InvalidArgumentError` for a size that is missing, no number, or too small for any
    response, and for other options.
    """
    if unknown := options.keys() - {"size"}:
        raise InvalidArgumentError(
            f"{_FAILED} there is no option '{min(unknown)}'; expected --cache-config=local,size=BYTES"
        )
    text = options.get("size", "")
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgumentError(
            f"{_FAILED} config didn't contain a valid 'size' field. Expected --cache-config=local,size=BYTES, e.g."
            f" local,size=1048576{f'; got size={text}' if 'size' in options else ''}"
        )
    # As many digits as that are no number of bytes, and Python refuses to read more of them than 4,300.
    if len(text) > len(str(sys.maxsize)):
        raise InvalidArgumentError(f"{_FAILED} size={text[:32]}... is more than any memory")
    size = int(text)
    if size < _SMALLEST:
        raise InvalidArgumentError(
            f"{_FAILED} size={size} is too small to hold a response; expected at least {_SMALLEST} bytes"
        )
    return LocalCache(size)


def _footprint(key: bytes, outputs: tuple[_Output, ...], parameters: _Parameters) -> int:
    """Bytes of memory that an entry occupies."""
    size_of = sys.getsizeof
    total = _SLOT + size_of(key) + size_of(outputs)
    for output in outputs:
        name, _, shape, data = output
        total += size_of(output) + size_of(name) + size_of(shape) + size_of(data) + _INTEGER * len(shape)
    if parameters:
        total += size_of(parameters)
        for parameter in parameters:
            total += size_of(parameter) + size_of(parameter[0]) + size_of(parameter[1])
    return total
