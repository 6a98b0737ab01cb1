"""HTTP/3 by hypercorn, made to outlive what single clients do. Imported only where HTTP/3 is asked for.

hypercorn serves all clients of a UDP socket in one task group, so an error that one of them provokes would end them
all, and it does not tell applications that a connection has ended. Both are mended here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.udp_server import UDPServer
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.quic import QuicProtocol, _Connection
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

logger = logging.getLogger(__name__)

# Datagrams that wait for the event loop; more are dropped, and sent again by their clients.
_QUEUED_DATAGRAMS = 1024


class QuicServer(UDPServer):
    """All HTTP/3 connections of one UDP socket."""

    protocol: _Quic

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.protocol_queue = asyncio.Queue(_QUEUED_DATAGRAMS)

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self.transport is not None
        sock: socket.socket = self.transport.get_extra_info("socket")
        address = parse_socket_addr(sock.family, sock.getsockname())
        while True:
            try:
                async with TaskGroup(self.loop) as group:
                    self.protocol = _Quic(
                        self.app,
                        self.config,
                        self.context,
                        group,
                        ConnectionState({}),
                        address,
                        self.protocol_send,
                    )
                    while True:
                        await self._handle(await self.protocol_queue.get())
            except Exception:
                logger.exception("HTTP/3 failed; its connections are lost, new ones are accepted")

    async def close(self) -> None:
        """Tell all clients, then close the socket."""
        protocol = getattr(self, "protocol", None)
        if protocol is not None:
            for connection in {id(c): c for c in protocol.connections.values()}.values():
                connection.quic.close()
                await protocol.send_all(connection)
        if self.transport is not None:
            self.transport.close()

    async def _handle(self, event: Any) -> None:
        try:
            await self.protocol.handle(event)
        except Exception:
            logger.warning("an HTTP/3 connection failed", exc_info=True)


class _Quic(QuicProtocol):
    async def _handle_events(self, connection: _Connection, client: tuple[str, int] | None = None) -> None:
        await super()._handle_events(connection, client)
        if not connection.cids and connection.h3 is not None:  # it has ended
            for stream_id, stream in list(connection.h3.streams.items()):
                await stream.handle(StreamClosed(stream_id=stream_id))
            connection.h3.streams.clear()
