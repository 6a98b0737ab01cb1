"""What the gRPC options say, checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trivet.errors import InvalidArgumentError
from trivet.options import Settings

from trivet_protocol_kserve_v2.codec.protobuf_response import MAX_MESSAGE_SIZE
from trivet_protocol_kserve_v2.grpc.restricted import Restriction, parse_restrictions

logger = logging.getLogger(__name__)

# Options of tritonserver that tune what this server does not have.
_WITHOUT_EFFECT = ("grpc_infer_thread_count", "grpc_infer_allocation_pool_size")

Compression = Literal["none", "low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files' contents."""

    certificate: bytes
    key: bytes
    client_root: bytes | None
    """Set for mutual TLS: what client certificates are checked against."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Times in milliseconds; see the options of the same names."""

    time_ms: int
    timeout_ms: int
    permit_without_calls: bool
    max_pings_without_data: int
    min_recv_ping_interval_without_data_ms: int
    max_ping_strikes: int
    max_connection_age_ms: int
    max_connection_age_grace_ms: int


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """The settings of the gRPC side."""

    address: str
    port: int
    reuse_port: bool
    server: Literal["aio", "native"]
    tls: Tls | None
    keepalive: KeepAlive
    compression: Compression
    restrictions: Mapping[str, Restriction]
    """By protocol."""
    header_pattern: re.Pattern[str] | None
    max_waiting_responses: int
    """Per request on a stream; 0 for any number."""
    write_timeout_s: float

    @property
    def host(self) -> str:
        """The address as it is written before a port."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def target(self) -> str:
        """What to listen on, as gRPC writes it."""
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, settings: Settings) -> GrpcSettings:
        """Read the settings of ``OPTIONS``; warns of those that have no effect here.

        Raises :class:`~trivet.errors.InvalidArgumentError` naming the option that is wrong.
        """
        for key in _WITHOUT_EFFECT:
            if settings[key] is not None:
                logger.warning("--%s has no effect on this server", key.replace("_", "-"))
        keepalive = KeepAlive(
            time_ms=settings["grpc_keepalive_time"],
            timeout_ms=settings["grpc_keepalive_timeout"],
            permit_without_calls=settings["grpc_keepalive_permit_without_calls"],
            max_pings_without_data=settings["grpc_http2_max_pings_without_data"],
            min_recv_ping_interval_without_data_ms=settings["grpc_http2_min_recv_ping_interval_without_data"],
            max_ping_strikes=settings["grpc_http2_max_ping_strikes"],
            max_connection_age_ms=settings["grpc_max_connection_age"],
            max_connection_age_grace_ms=settings["grpc_max_connection_age_grace"],
        )
        waiting = settings["grpc_max_response_pool_size"]
        if waiting is not None and waiting < 1:
            raise InvalidArgumentError(f"--grpc-max-response-pool-size={waiting}: expected at least 1")
        write_timeout_s = settings["grpc_write_timeout"]
        if write_timeout_s <= 0:
            raise InvalidArgumentError(f"--grpc-write-timeout={write_timeout_s:g}: expected more than 0")
        return cls(
            address=settings["grpc_address"],
            port=settings["grpc_port"],
            reuse_port=settings["reuse_grpc_port"],
            server=settings["grpc_server"],
            tls=_tls(settings),
            keepalive=keepalive,
            compression=settings["grpc_infer_response_compression_level"],
            restrictions=parse_restrictions(settings["grpc_restricted_protocol"]),
            header_pattern=_pattern(settings["grpc_header_forward_pattern"]),
            max_waiting_responses=waiting or 0,
            write_timeout_s=write_timeout_s,
        )

    def channel_arguments(self) -> list[tuple[str, int]]:
        """The settings as grpc-core's channel arguments."""
        keepalive = self.keepalive
        arguments = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
            ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
            # grpcio would share the port by default: two servers on one port, and nobody told.
            ("grpc.so_reuseport", int(self.reuse_port)),
            ("grpc.keepalive_time_ms", keepalive.time_ms),
            ("grpc.keepalive_timeout_ms", keepalive.timeout_ms),
            ("grpc.keepalive_permit_without_calls", int(keepalive.permit_without_calls)),
            ("grpc.http2.max_pings_without_data", keepalive.max_pings_without_data),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                keepalive.min_recv_ping_interval_without_data_ms,
            ),
            ("grpc.http2.max_ping_strikes", keepalive.max_ping_strikes),
        ]
        if keepalive.max_connection_age_ms:
            arguments.append(("grpc.max_connection_age_ms", keepalive.max_connection_age_ms))
        if keepalive.max_connection_age_grace_ms:
            arguments.append(("grpc.max_connection_age_grace_ms", keepalive.max_connection_age_grace_ms))
        return arguments


def _tls(settings: Settings) -> Tls | None:
    mutual = settings["grpc_use_ssl_mutual"]
    if not (settings["grpc_use_ssl"] or mutual):
        return None
    used_by = "--grpc-use-ssl-mutual" if mutual else "--grpc-use-ssl"
    return Tls(
        certificate=_read(settings, "grpc_server_cert", used_by),
        key=_read(settings, "grpc_server_key", used_by),
        client_root=_read(settings, "grpc_root_cert", used_by) if mutual else None,
    )


def _read(settings: Settings, key: str, used_by: str) -> bytes:
    option = f"--{key.replace('_', '-')}"
    path = settings[key]
    if not path:
        raise InvalidArgumentError(f"{used_by} needs {option}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"{option}={path}: {error.strerror}") from error


def _pattern(pattern: str) -> re.Pattern[str] | None:
    if not pattern:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidArgumentError(f"--grpc-header-forward-pattern={pattern}: {error}") from error
