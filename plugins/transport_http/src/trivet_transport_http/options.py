"""The options of ``trivet serve`` that this package adds, and the limits that come of them."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass, replace

from trivet.errors import InvalidArgumentError
from trivet.options import Option, Settings

logger = logging.getLogger(__name__)

# Left for models, libraries and the other listeners when connections take all they may.
_OTHER_DESCRIPTORS = 256

OPTIONS: tuple[Option, ...] = (
    Option("http-address", "string", "0.0.0.0", "Address or host name that HTTP listens on."),  # noqa: S104 - as tritonserver
    Option("http-port", "integer", 8000, "Port that HTTP listens on; 0 takes any free port."),
    Option("reuse-http-port", "boolean", False, "Let several servers listen on the same HTTP port (SO_REUSEPORT)."),
    Option("http-unix-socket", "path", None, "Serve HTTP on this UNIX socket too."),
    Option("metrics-address", "string", None, "Address that metrics listen on; --http-address where not given."),
    Option("metrics-port", "integer", 8002, "Port that metrics listen on; 0 takes any free port."),
    Option("http-use-ssl", "boolean", False, "Serve HTTP over TLS (1.2 or newer)."),
    Option("http-ssl-certificate", "path", None, "PEM file: the server's certificate, then its intermediates."),
    Option("http-ssl-key", "path", None, "PEM file: the private key of --http-ssl-certificate."),
    Option(
        "http-ssl-client-ca", "path", None, "PEM file: require client certificates signed by one of these (mutual TLS)."
    ),
    Option("http2", "boolean", False, "Serve HTTP/2 as well on the HTTP port (prior knowledge, upgrade, ALPN)."),
    Option("http3-port", "integer", None, "UDP port to serve HTTP/3 on; 0 takes any free port. Needs --http-use-ssl."),
    Option(
        "http-max-connections", "integer", 8192, "Connections per listener; beyond it, the one idle longest is closed."
    ),
    Option("http-max-body-size", "integer", 2**31 - 1, "Bytes of a request's body as received; more is answered 413."),
    Option("http-max-header-size", "integer", 64 * 1024, "Bytes of request line and headers; more is answered 431."),
    Option("http-max-header-count", "integer", 128, "Headers of a request; more are answered 431."),
    Option("http-max-url-length", "integer", 8 * 1024, "Bytes of a request's target; more are answered 414."),
    Option("http-header-timeout", "number", 30.0, "Seconds a client may take to send a request's line and headers."),
    Option("http-body-timeout", "number", 60.0, "Seconds a body may take before --http-min-body-rate applies to it."),
    Option("http-min-body-rate", "integer", 1024, "Bytes per second that a body needs to have; 0: no minimum."),
    Option("http-write-timeout", "number", 60.0, "Seconds a client may take without reading any of its response."),
    Option("http-keep-alive-timeout", "number", 620.0, "Seconds a connection may stay idle between requests."),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client is granted. Sizes in bytes, times in seconds."""

    max_connections: int
    max_body_size: int
    max_header_size: int
    max_header_count: int
    max_url_length: int
    header_timeout: float
    body_timeout: float
    min_body_rate: int
    write_timeout: float
    keep_alive_timeout: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Read and check the limits; :class:`InvalidArgumentError` names the option that makes no sense."""
        values = {}
        for name in cls.__slots__:
            value = settings[f"http_{name}"]
            least = 0 if name == "min_body_rate" else 1 if isinstance(value, int) else 0.001
            if value < least:
                option = f"--http-{name}".replace("_", "-")
                raise InvalidArgumentError(f"{option} is {value}, expected at least {least}")
            values[name] = value
        return cls(**values)

    def within_descriptors(self) -> Limits:
        """These limits with no more connections than the process may open files, less what the rest of it needs."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self
        most = max(soft - _OTHER_DESCRIPTORS, soft // 2)
        if self.max_connections <= most:
            return self
        logger.info("at most %d HTTP connections: the process may open %d files (ulimit -n)", most, soft)
        return replace(self, max_connections=most)
