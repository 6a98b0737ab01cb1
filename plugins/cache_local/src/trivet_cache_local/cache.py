"""Responses in this process, bounded in bytes; the least recently used ones leave first."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping

from trivet.errors import InvalidArgumentError
from trivet.extensions import CacheUsage, ResponseCache
from trivet.inference import InferenceResponse

_FAILED = "Failed to initialize LocalCache:"

_SMALLEST = 1024
"""Bytes; Triton's cache does not start with less either."""

_SLOT = 256
"""Bytes for an entry's place in the dictionary, its tuple and its numbers, with room for a table that just grew."""


class LocalCache(ResponseCache):
    """An LRU of at most ``size`` bytes, with everything that an entry occupies counted, not the tensors alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, tuple[InferenceResponse, int]] = OrderedDict()
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
        return entry[0]

    def insert(self, key: bytes, response: InferenceResponse) -> None:
        size = footprint(key, response)
        if size > self._size:
            return
        before = self._entries.pop(key, None)
        if before is not None:
            self._bytes -= before[1]
        while self._bytes + size > self._size:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed
            self._evictions += 1
        self._entries[key] = (response, size)
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


def footprint(key: bytes, response: InferenceResponse) -> int:
    """Bytes of memory that an entry occupies."""
    size_of = sys.getsizeof
    total = _SLOT + size_of(key) + size_of(response) + size_of(response.outputs)
    for tensor in response.outputs:
        # The view that is handed out is made for each caller; what stays is the tensor, and the bytes under it.
        total += size_of(tensor) + size_of(tensor.name) + size_of(tensor.shape) + size_of(tensor.wire())
        total += sum(map(size_of, tensor.shape))
    if response.parameters:
        total += size_of(response.parameters)
        total += sum(size_of(name) + size_of(value) for name, value in response.parameters.items())
    return total
