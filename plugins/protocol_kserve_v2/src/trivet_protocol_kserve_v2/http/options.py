"""The HTTP options of ``trivet serve``, under tritonserver's names where it has them."""

from __future__ import annotations

from trivet.options import Option

OPTIONS: tuple[Option, ...] = (
    Option("allow-http", "boolean", True, "Serve the protocol over HTTP."),
    Option(
        "http-header-forward-pattern",
        "string",
        "",
        "Regular expression: request headers whose name matches, in any case, are forwarded as parameters of the"
        " inference request, with their names in lower case.",
    ),
    Option(
        "http-max-decompressed-size",
        "integer",
        512 * 1024 * 1024,
        "Bytes that a compressed request body may grow to; more is answered 413.",
    ),
    Option(
        "http-cors-allow-origin",
        multiple=True,
        help="Origin whose web pages may call this server, e.g. https://example.org; '*' is any. Repeat it for several."
        " None by default.",
    ),
    Option(
        "http-restricted-api",
        multiple=True,
        help="API[,API...]:KEY=VALUE restricts APIs to requests with the header KEY: VALUE. APIs: health, metadata,"
        " inference, shared-memory, model-config, model-repository, statistics, trace, logging. May be repeated.",
    ),
    Option(
        "http-thread-count",
        "integer",
        None,
        "Accepted for compatibility; has no effect, as all requests are handled on one event loop.",
    ),
)
