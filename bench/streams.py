"""A load generator for streams of server-sent events, on one event loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bench.load import LoadError
from bench.servers import Server

_EVENT = b"data: "


def events_per_second(
    server: Server, model: str, documents: Sequence[dict[str, Any]], in_flight: int, seconds: float
) -> float:
    """The events of ``generate_stream`` per second, with so many streams open at any time.

    The documents are asked one after the other, over and over; the streams that are open when the time is over are read
    to their end, and count. Raises :class:`~bench.load.LoadError` where an answer is not a stream of responses.
    """
    return asyncio.run(_run(server, model, documents, in_flight, seconds))


async def _run(
    server: Server, model: str, documents: Sequence[dict[str, Any]], in_flight: int, seconds: float
) -> float:
    bodies = itertools.cycle([json.dumps(document).encode() for document in documents])
    path = f"/v2/models/{model}/generate_stream"
    begun = time.perf_counter()
    counts = await asyncio.gather(*(_worker(server, path, bodies, begun + seconds) for _ in range(in_flight)))
    return sum(counts) / (time.perf_counter() - begun)


async def _worker(server: Server, path: str, bodies: Iterator[bytes], until: float) -> int:
    """Streams on one connection until the time is over; the number of their events."""
    host, _, port = server.http.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    count = 0
    try:
        while time.perf_counter() < until:
            body = next(bodies)
            writer.write(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)))
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 ") or b"text/event-stream" not in head:
                raise LoadError(f"{server.name}: POST {path} was answered {head!r}")
            count += await _events(reader)
    finally:
        writer.close()
    return count


async def _events(reader: asyncio.StreamReader) -> int:
    """Read a chunked body to its end; the number of events in it."""
    count = 0
    while size := int(await reader.readline(), 16):
        chunk = await reader.readexactly(size + 2)
        if b'data: {"error"' in chunk:
            raise LoadError(f"a stream was answered with an error: {chunk[:500]!r}")
        count += chunk.count(_EVENT)
    await reader.readexactly(2)
    return count
