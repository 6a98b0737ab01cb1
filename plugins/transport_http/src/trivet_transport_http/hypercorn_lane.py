"""HTTP/2 and HTTP/3 by hypercorn, over the same router and handlers. Imported only where one of them is asked for.

hypercorn's own ``serve`` wants to own sockets and signals. A connection that turns out to speak HTTP/2 is already
accepted here, so its connection classes are used directly; the version of hypercorn is pinned for that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from trivet_transport_http import hypercorn_buffer
from trivet_transport_http.asgi import HandlerApp
from trivet_transport_http.options import Limits
from trivet_transport_http.responses import alternative_service
from trivet_transport_http.router import Router
from trivet_transport_http.tls import TlsFiles

if TYPE_CHECKING:
    from trivet_transport_http.hypercorn_quic import QuicServer

logger = logging.getLogger(__name__)


class HypercornLane:
    """Everything of one listener that does not speak HTTP/1.1. Lives on one event loop."""

    def __init__(self, router: Router, limits: Limits, files: TlsFiles | None) -> None:
        hypercorn_buffer.install()
        config = Config()
        config.errorlog = logger
        config.include_date_header = False
        config.include_server_header = False
        config.keep_alive_timeout = limits.keep_alive_timeout
        config.keep_alive_max_requests = 2**63
        config.h2_max_header_list_size = limits.max_header_size
        if files is not None:
            config.certfile = str(files.certificate)
            config.keyfile = str(files.key)
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._handlers = HandlerApp(router, limits)
        self._app = ASGIWrapper(cast("Any", self._handlers))
        self._context = WorkerContext(None)
        self._tasks: set[asyncio.Task[None]] = set()
        self._quic: list[tuple[QuicServer, asyncio.Task[None]]] = []

    def advertise(self, port: int) -> None:
        """Tell clients of HTTP/2 that HTTP/3 is at this UDP port."""
        self._config.alt_svc_headers = [alternative_service(port).decode()]

    @property
    def connection_count(self) -> int:
        """Of HTTP/2; HTTP/3 takes one file descriptor for all its connections."""
        return len(self._tasks)

    def take(self, transport: asyncio.Transport, received: bytes) -> None:
        """Go on with a connection that speaks HTTP/2, of which ``received`` was read already."""
        reader = asyncio.StreamReader(loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if received:
            reader.feed_data(received)
        transport.resume_reading()
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        server = TCPServer(self._app, self._loop, self._config, self._context, {}, reader, writer)
        task = self._loop.create_task(self._run(server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve_quic(self, sock: socket.socket) -> None:
        """Serve HTTP/3 on a bound UDP socket."""
        from trivet_transport_http.hypercorn_quic import QuicServer  # noqa: PLC0415 - aioquic comes with HTTP/3 only

        server = QuicServer(self._app, self._loop, self._config, self._context, {})
        await self._loop.create_datagram_endpoint(lambda: server, sock=sock)
        self._quic.append((server, self._loop.create_task(server.run())))

    async def drain(self, grace_s: float) -> None:
        """Close idle connections now, others after their answers, and all that are left after ``grace_s`` seconds."""
        await self._context.terminated.set()
        try:
            async with asyncio.timeout(grace_s):
                await self._handlers.idle()
                if self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            if self._handlers.busy:
                logger.warning("giving up %d HTTP/2 and HTTP/3 requests that are still busy", self._handlers.busy)
        tasks = [*self._tasks]
        for server, task in self._quic:
            await server.close()
            tasks.append(task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, server: TCPServer) -> None:
        try:
            await server.run()
        except Exception:
            # What a peer can do wrong past HTTP/2's own error handling ends its connection and nothing else.
            logger.warning("an HTTP/2 connection failed", exc_info=True)
