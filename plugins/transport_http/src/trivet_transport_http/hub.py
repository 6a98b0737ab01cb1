"""What all connections of one listener share: limits, caches, the receive buffer, and the one timer."""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING

from trivet_transport_http.head import HeadParser
from trivet_transport_http.options import Limits
from trivet_transport_http.responses import ResponseEncoder, alternative_service
from trivet_transport_http.router import Router

if TYPE_CHECKING:
    from trivet_transport_http.connection import Connection
    from trivet_transport_http.hypercorn_lane import HypercornLane

logger = logging.getLogger(__name__)


class Hub:
    """The heart of a listener's HTTP/1.1 lane. Lives on one event loop, and so needs no locks.

    Timeouts cost a request nothing but an attribute: every connection holds a deadline, and one sweep over all
    connections, at most once a second, finds the ones that are over. A timeout is late by one sweep at most.
    """

    RECEIVE_SIZE = 64 * 1024
    """Bytes of the receive buffer."""
    LONGEST_SWEEP = 1.0
    """Seconds from one sweep to the next, at most."""

    def __init__(self, router: Router, limits: Limits, http2: HypercornLane | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.http2 = http2
        self.heads = HeadParser(router, limits)
        self.responses = ResponseEncoder()
        # One buffer for all connections: what a read puts into it is used up or copied before the next read begins.
        self.buffer = bytearray(self.RECEIVE_SIZE)
        self.view = memoryview(self.buffer)
        self.connections: set[Connection] = set()
        self.closing = False
        self.idle_deadline = 0.0
        """When a connection that becomes idle now is to be closed, on the loop's clock."""
        times = (limits.header_timeout, limits.body_timeout, limits.write_timeout, limits.keep_alive_timeout)
        self._interval = min(self.LONGEST_SWEEP, *(t / 4 for t in times))
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweep()

    def admit(self, connection: Connection) -> bool:
        """Count ``connection`` in, if need be at the cost of idle ones; false where all are at work."""
        connections = self.connections
        limit = self.limits.max_connections
        if self.http2 is not None:
            limit -= self.http2.connection_count
        if len(connections) >= limit:
            # Several at once, so that a flood of connections does not make each of them look at all others.
            idle = [c for c in connections if c.is_idle]
            for victim in heapq.nsmallest(len(connections) // 64 + 1, idle, key=lambda c: c.deadline):
                victim.close()
                connections.discard(victim)
        if len(connections) >= limit:
            return False
        connections.add(connection)
        self._empty.clear()
        return True

    def discard(self, connection: Connection) -> None:
        """``connection`` is closed, or no longer ours."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def advertise(self, port: int) -> None:
        """Tell clients that HTTP/3 is at this UDP port. Before the first response: rendered heads are remembered."""
        self.responses.common = b"alt-svc: %b\r\n" % alternative_service(port)

    async def drain(self, grace_s: float) -> None:
        """Close idle connections now, others after their answer, and all that are left after ``grace_s`` seconds."""
        self.closing = True
        for connection in [c for c in self.connections if c.is_idle]:
            connection.close()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            busy = sum(1 for connection in self.connections if not connection.transport.is_closing())
            if busy:
                logger.warning("closing %d HTTP connections that are still busy", busy)
            for connection in list(self.connections):
                connection.abort()
            await self._empty.wait()
        self._timer.cancel()

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(self._interval, self._sweep)
        now = self.loop.time()
        self.idle_deadline = now + self.limits.keep_alive_timeout + self._interval
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.expire(now)
