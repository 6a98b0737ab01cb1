"""The entry point: what this package offers, without importing either server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet import hookimpl
from trivet.hookspecs import ProtocolPlugin

from trivet_protocol_kserve_v2.cli import COMMANDS
from trivet_protocol_kserve_v2.grpc.options import OPTIONS as GRPC_OPTIONS
from trivet_protocol_kserve_v2.http.options import OPTIONS as HTTP_OPTIONS

if TYPE_CHECKING:
    import click


@hookimpl
def trivet_cli_commands() -> Sequence[click.Command]:
    """``trivet infer``, ``trivet generate`` and ``trivet models``: clients of a running server."""
    return COMMANDS


@hookimpl
def trivet_protocols() -> Sequence[ProtocolPlugin]:
    """The protocol over its two transports, which start and stop on their own."""
    return [
        ProtocolPlugin(
            name="kserve_v2_http",
            factory="trivet_protocol_kserve_v2.http.service:create",
            options=HTTP_OPTIONS,
            description="KServe v2 and Triton's extensions over HTTP, mounted on the listener 'http'",
        ),
        ProtocolPlugin(
            name="kserve_v2_grpc",
            factory="trivet_protocol_kserve_v2.grpc.service:create",
            options=GRPC_OPTIONS,
            description="KServe v2 and Triton's extensions over gRPC",
        ),
    ]
