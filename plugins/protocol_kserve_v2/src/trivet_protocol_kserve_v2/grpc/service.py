"""What the plugin names: gRPC, or nothing of it."""

from __future__ import annotations

from trivet.service import Protocol, ServerContext


def create(context: ServerContext) -> Protocol:
    """The protocol over gRPC. Raises :class:`~trivet.errors.InvalidArgumentError` for a setting that is wrong."""
    if not context.settings["allow_grpc"]:
        return Disabled()
    # Only now, so that a server without gRPC does not import it.
    from trivet_protocol_kserve_v2.grpc.protocol import GrpcProtocol  # noqa: PLC0415

    return GrpcProtocol(context)


class Disabled(Protocol):
    """Stands for gRPC where ``--allow-grpc=false``."""

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self, grace_s: float) -> None:
        """Nothing to do."""
