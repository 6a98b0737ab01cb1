"""The service, health and reflection on one port."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from trivet.service import Protocol, ServerContext

from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.extensions import announce
from trivet_protocol_kserve_v2.grpc.aio_server import AioServer
from trivet_protocol_kserve_v2.grpc.control import HEALTH, SERVICE, Control
from trivet_protocol_kserve_v2.grpc.handlers import Handlers
from trivet_protocol_kserve_v2.grpc.inference import Inference
from trivet_protocol_kserve_v2.grpc.reflection import REFLECTION, Reflection
from trivet_protocol_kserve_v2.grpc.server import GrpcServer
from trivet_protocol_kserve_v2.grpc.settings import GrpcSettings

logger = logging.getLogger(__name__)


class GrpcProtocol(Protocol):
    """``inference.GRPCInferenceService``, health and reflection on one port."""

    def __init__(self, context: ServerContext) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that is wrong."""
        settings = GrpcSettings.of(context.settings)
        announce(context.engine, context.memory)
        memory = SharedMemory(context.memory)
        inference = Inference(context.engine, settings.header_pattern, settings.restrictions.get("inference"), memory)
        methods = Control(context.engine, settings.restrictions, memory).methods()
        reflection = Reflection((SERVICE, HEALTH, REFLECTION))
        handlers = Handlers(
            inference,
            methods,
            reflection,
            compression=settings.compression,
            max_waiting=settings.max_waiting_responses,
            write_timeout_s=settings.write_timeout_s,
        )
        self._settings = settings
        self._server: GrpcServer
        if settings.server == "native":
            from trivet_protocol_kserve_v2.grpc.native_server import NativeServer  # noqa: PLC0415 - it is optional

            self._server = NativeServer(settings, inference, methods, handlers)
        else:
            self._server = AioServer(settings, handlers)
        self._port: int | None = None

    async def start(self) -> None:
        self._port = await self._server.start()
        logger.info("Started GRPCInferenceService at %s:%d", self._settings.address, self._port)

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)
        self._port = None

    @property
    def addresses(self) -> Mapping[str, Sequence[str]]:
        if self._port is None:
            return {}
        return {"grpc": [f"{self._settings.host}:{self._port}"]}
