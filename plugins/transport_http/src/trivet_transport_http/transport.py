"""The HTTP transport: all listeners, over all lanes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError
from trivet.http import HttpTransport, Listener
from trivet.options import Settings

from trivet_transport_http import sockets
from trivet_transport_http.connection import Connection
from trivet_transport_http.hub import Hub
from trivet_transport_http.options import Limits
from trivet_transport_http.router import Router
from trivet_transport_http.tls import TlsFiles

if TYPE_CHECKING:
    from trivet_transport_http.hypercorn_lane import HypercornLane

# TLS and the other HTTP versions are offered on this listener; the others (metrics) speak plain HTTP/1.1.
_MAIN = "http"
_BACKLOG = 4096


def create(settings: Settings) -> Transport:
    """The factory of the plugin. :class:`InvalidArgumentError` names an option, or a file, that will not do."""
    return Transport(settings)


class Transport(HttpTransport):
    """Every listener on its own lane for HTTP/1.1; the main one on hypercorn's for HTTP/2 and HTTP/3, where asked for.

    HTTP/2 needs no port of its own: a connection shows its version with its first bytes (or by ALPN, in the TLS
    handshake), and one that speaks HTTP/2 is handed to hypercorn as it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = Limits.of(settings).within_descriptors()
        self._files = TlsFiles.of(settings)
        self._tls: ssl.SSLContext | None = None
        if self._files is not None:
            self._tls = self._files.context(["h2", "http/1.1"] if settings["http2"] else ["http/1.1"])
        self._unix_path = None if settings["http_unix_socket"] is None else Path(settings["http_unix_socket"])
        self._owns_unix_path = False
        self._http3_port: int | None = settings["http3_port"]
        if self._http3_port is not None:
            if self._files is None:
                raise InvalidArgumentError("--http3-port needs --http-use-ssl: there is no HTTP/3 without TLS")
            if self._files.client_ca is not None:
                raise InvalidArgumentError(
                    "--http3-port with --http-ssl-client-ca: the HTTP/3 server cannot check client certificates, so it "
                    "would let everybody in; leave one of them out"
                )
        self._servers: list[asyncio.Server] = []
        self._hubs: list[Hub] = []
        self._lanes: list[HypercornLane] = []
        self._sockets: list[socket.socket] = []
        """Bound, and served by nobody yet."""
        self._addresses: dict[str, list[str]] = {}

    async def start(self, listeners: Mapping[str, Listener]) -> None:
        """See :meth:`trivet.http.HttpTransport.start`.

        Also raises :class:`ValueError` if routes of a listener contradict, and :class:`InvalidArgumentError` for a
        listener that no option gives an address, or where a package for HTTP/2 or HTTP/3 is missing. Nothing is left
        bound then.
        """
        try:
            for name, listener in listeners.items():
                await self._serve(name, Router(listener.routes, listener.not_found))
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, grace_s: float) -> None:
        """See :meth:`trivet.http.HttpTransport.stop`."""
        for server in self._servers:
            server.close()
        drained = [hub.drain(grace_s) for hub in self._hubs] + [lane.drain(grace_s) for lane in self._lanes]
        await asyncio.gather(*drained)
        for sock in self._sockets:
            sock.close()
        if self._unix_path is not None and self._owns_unix_path:
            self._unix_path.unlink(missing_ok=True)
            self._owns_unix_path = False
        self._sockets.clear()
        self._servers, self._hubs, self._lanes, self._addresses = [], [], [], {}

    @property
    def addresses(self) -> Mapping[str, Sequence[str]]:
        """URLs by listener; HTTP/3 as ``https+h3://``, UNIX sockets as ``http+unix:/path``."""
        return self._addresses

    def _bind(self, name: str) -> None:
        """Fill ``_sockets`` with those of one listener."""
        settings = self._settings
        try:
            port, address = settings[f"{name}_port"], settings[f"{name}_address"]
        except KeyError as error:
            raise InvalidArgumentError(f"no option says where the HTTP listener {name!r} listens: {error}") from None
        main = name == _MAIN
        host = settings["http_address"] if address is None else address
        bound = self._sockets
        bound += sockets.bind(host, port, f"{name}-port", reuse_port=main and settings["reuse_http_port"])
        if main and self._unix_path is not None:
            bound.append(sockets.bind_unix(self._unix_path, "http-unix-socket"))
            self._owns_unix_path = True
        if main and self._http3_port is not None:
            bound += sockets.bind(host, self._http3_port, "http3-port", kind=socket.SOCK_DGRAM)

    async def _serve(self, name: str, router: Router) -> None:
        self._bind(name)
        bound = self._sockets
        main = name == _MAIN
        tls = self._tls if main else None
        schemes = {socket.SOCK_STREAM: "http" if tls is None else "https", socket.SOCK_DGRAM: "https+h3"}
        self._addresses[name] = [sockets.url(schemes[sock.type], sock) for sock in bound]

        http2 = main and self._settings["http2"]
        lane = self._hypercorn(router) if main and (http2 or self._http3_port is not None) else None
        hub = Hub(router, self._limits, lane if http2 else None)
        self._hubs.append(hub)
        handshake_timeout = None if tls is None else self._limits.header_timeout
        while bound:
            sock = bound.pop(0)
            if sock.type == socket.SOCK_DGRAM:
                assert lane is not None
                port = sock.getsockname()[1]
                await lane.serve_quic(sock)
                lane.advertise(port)
                hub.advertise(port)
                continue
            unix = sock.family == socket.AF_UNIX
            create_server = hub.loop.create_unix_server if unix else hub.loop.create_server
            server = await create_server(
                lambda: Connection(hub), sock=sock, backlog=_BACKLOG, ssl=tls, ssl_handshake_timeout=handshake_timeout
            )
            self._servers.append(server)

    def _hypercorn(self, router: Router) -> HypercornLane:
        extra = "http2" if self._http3_port is None else "http3"
        try:
            from trivet_transport_http.hypercorn_lane import HypercornLane  # noqa: PLC0415 - heavy, and rarely wanted
        except ImportError as error:
            option = "--http3-port" if extra == "http3" else "--http2"
            raise InvalidArgumentError(
                f'{option} needs hypercorn ({error}): pip install "trivet-transport-http[{extra}]"'
            ) from error
        lane = HypercornLane(router, self._limits, self._files)
        self._lanes.append(lane)
        return lane
