"""The gRPC options of ``trivet serve``, under tritonserver's names and defaults."""

from __future__ import annotations

from trivet.options import Option

OPTIONS: tuple[Option, ...] = (
    Option("allow-grpc", "boolean", True, "Serve the protocol over gRPC."),
    Option("grpc-address", "string", "0.0.0.0", "Address that gRPC listens on."),  # noqa: S104 - tritonserver's default
    Option("grpc-port", "integer", 8001, "Port that gRPC listens on; 0 takes a free one."),
    Option(
        "reuse-grpc-port",
        "boolean",
        False,
        "Let several servers listen on the same gRPC port; all of them need this option and the same models.",
    ),
    Option(
        "grpc-server",
        "choice",
        "aio",
        "aio: grpcio's asyncio server. native: pygrpc-native, whose HTTP/2 runs in Rust; several times faster, but"
        " young and without TLS (pip install pygrpc-native).",
        choices=("aio", "native"),
    ),
    Option(
        "grpc-header-forward-pattern",
        "string",
        "",
        "Regular expression: request metadata whose key matches is forwarded as a parameter of the inference request.",
    ),
    Option(
        "grpc-infer-thread-count",
        "integer",
        None,
        "Accepted for compatibility; has no effect, as all calls are handled on one event loop.",
    ),
    Option(
        "grpc-infer-allocation-pool-size",
        "integer",
        None,
        "Accepted for compatibility; has no effect, as requests are not pooled.",
    ),
    Option(
        "grpc-max-response-pool-size",
        "integer",
        None,
        "How many responses of one request may wait for the client to read them; a decoupled model that is further"
        " ahead is paused. Unlimited by default.",
    ),
    Option(
        "grpc-write-timeout",
        "number",
        60.0,
        "Seconds that the client of a stream may take without reading any of its responses.",
    ),
    Option("grpc-use-ssl", "boolean", False, "Serve gRPC over TLS; needs --grpc-server-cert and --grpc-server-key."),
    Option(
        "grpc-use-ssl-mutual",
        "boolean",
        False,
        "Serve gRPC over TLS and require a client certificate signed by --grpc-root-cert. Implies --grpc-use-ssl.",
    ),
    Option("grpc-server-cert", "path", None, "PEM file with the server's certificate chain."),
    Option("grpc-server-key", "path", None, "PEM file with the server's private key."),
    Option("grpc-root-cert", "path", None, "PEM file with the certificates that sign client certificates."),
    Option(
        "grpc-infer-response-compression-level",
        "choice",
        "none",
        "How hard to compress inference responses for clients that accept it.",
        choices=("none", "low", "medium", "high"),
    ),
    Option(
        "grpc-keepalive-time",
        "integer",
        7_200_000,
        "Milliseconds without activity after which a connection is pinged.",
    ),
    Option(
        "grpc-keepalive-timeout",
        "integer",
        20_000,
        "Milliseconds that a ping may stay unanswered before the connection is closed.",
    ),
    Option("grpc-keepalive-permit-without-calls", "boolean", False, "Ping connections that have no calls, too."),
    Option(
        "grpc-http2-max-pings-without-data",
        "integer",
        2,
        "How many pings may be sent without data in between; 0 for any number.",
    ),
    Option(
        "grpc-http2-min-recv-ping-interval-without-data",
        "integer",
        300_000,
        "Milliseconds that a client must leave between pings without data; one that comes earlier is a strike.",
    ),
    Option(
        "grpc-http2-max-ping-strikes",
        "integer",
        2,
        "After how many strikes the connection is closed; 0 for never.",
    ),
    Option("grpc-max-connection-age", "integer", 0, "Milliseconds after which a connection is closed; 0 for never."),
    Option(
        "grpc-max-connection-age-grace",
        "integer",
        0,
        "Milliseconds that calls may still take on a connection that reached its age; 0 for any time.",
    ),
    Option(
        "grpc-restricted-protocol",
        multiple=True,
        help="PROTOCOL[,PROTOCOL...]:KEY=VALUE restricts protocols to calls with the metadata"
        " triton-grpc-protocol-KEY: VALUE. Protocols: health, metadata, inference, shared-memory, model-config,"
        " model-repository, statistics, trace, logging. May be repeated.",
    ),
)
