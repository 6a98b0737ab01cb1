"""The service on grpcio's asyncio server."""

from __future__ import annotations

import grpc
import grpc.aio

from trivet_protocol_kserve_v2.grpc.handlers import Handlers, Router
from trivet_protocol_kserve_v2.grpc.server import GrpcServer
from trivet_protocol_kserve_v2.grpc.settings import GrpcSettings, Tls


class AioServer(GrpcServer):
    """grpcio's asyncio server, which runs on the kernel's event loop."""

    def __init__(self, settings: GrpcSettings, handlers: Handlers) -> None:
        self._settings = settings
        self._handlers = handlers
        self._server = grpc.aio.server(options=settings.channel_arguments())
        self._server.add_generic_rpc_handlers((Router(handlers.unary() | handlers.streaming()),))

    async def start(self) -> int:
        target, tls = self._settings.target, self._settings.tls
        try:
            if tls is None:
                port = self._server.add_insecure_port(target)
            else:
                port = self._server.add_secure_port(target, _credentials(tls))
        except RuntimeError as error:
            raise OSError(f"gRPC address {target}: {error}") from error
        await self._server.start()
        return port

    async def stop(self, grace_s: float) -> None:
        self._handlers.close_streams()
        await self._server.stop(grace_s)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)],
        root_certificates=tls.client_root,
        require_client_auth=tls.client_root is not None,
    )
