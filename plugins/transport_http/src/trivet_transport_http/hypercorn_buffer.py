"""What hypercorn keeps of an HTTP/2 stream until its client grants room for it.

hypercorn's own buffer lets its writer go on whenever little was taken out of it, also where that was nothing because
the client's window is closed: a client that does not read then costs memory without bound.
"""

from __future__ import annotations

from hypercorn.protocol import h2


class BoundedStreamBuffer(h2.StreamBuffer):
    """Holds a writer that has put in more than the high water mark until less than the low one is left."""

    async def push(self, data: bytes) -> None:
        """Raises :class:`hypercorn.protocol.h2.BufferCompleteError` where the stream has ended."""
        if self._complete:
            raise h2.BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if len(self.buffer) >= h2.BUFFER_HIGH_WATER:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """At most ``max_length`` bytes, fewer where there are fewer."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < h2.BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


def install() -> None:
    """Have hypercorn use it for the streams that it opens from now on."""
    h2.StreamBuffer = BoundedStreamBuffer  # type: ignore[misc]
