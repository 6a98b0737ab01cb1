"""Every endpoint of the protocol over HTTP, on one page: what is mounted, and what the OpenAPI document describes.

Source: Open Inference Protocol v2, "HTTP/REST"; the HTTP parts of Triton's extensions. Each path that Triton has
is there.
"""

from __future__ import annotations

from typing import NamedTuple

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


class Endpoint(NamedTuple):
    """One method of one path.

    ``api`` is the name by which ``--http-restricted-api`` restricts it. ``operation`` is what it does; paths that do
    the same share it.
    """

    method: str
    path: str
    api: str
    operation: str


_SERVER = (
    Endpoint("GET", "/v2", "metadata", "server_metadata"),
    Endpoint("GET", "/v2/openapi.json", "metadata", "openapi"),
    Endpoint("GET", "/v2/health/live", "health", "server_live"),
    Endpoint("GET", "/v2/health/ready", "health", "server_ready"),
    Endpoint("GET", "/v2/models/stats", "statistics", "statistics"),
)

_MODELS = tuple(
    Endpoint(method, base + path, api, operation)
    for base in (_MODEL, _VERSION)
    for method, path, api, operation in (
        ("GET", "", "metadata", "model_metadata"),
        ("GET", "/ready", "health", "model_ready"),
        ("GET", "/config", "model-config", "model_config"),
        ("GET", "/stats", "statistics", "statistics"),
        ("POST", "/infer", "inference", "infer"),
        ("POST", "/generate", "inference", "generate"),
        ("POST", "/generate_stream", "inference", "generate_stream"),
    )
)

_REPOSITORIES = tuple(
    Endpoint("POST", base + path, "model-repository", operation)
    for base in ("/v2/repository", "/v2/repository/{repository}")
    for path, operation in (
        ("/index", "repository_index"),
        ("/models/{model}/load", "load"),
        ("/models/{model}/unload", "unload"),
    )
)

_SHARED_MEMORY = tuple(
    Endpoint(method, f"/v2/{kind}sharedmemory{region}/{action}", "shared-memory", f"{kind}_shared_memory_{action}")
    for kind in ("system", "cuda")
    for region in ("", "/region/{region}")
    for method, action in (("GET", "status"), ("POST", "register"), ("POST", "unregister"))
)

_SETTINGS = tuple(
    Endpoint(method, path, api, operation)
    for path, api, operation in (("/v2/logging", "logging", "log_settings"),)
    for method in ("GET", "POST")
)

_TRACE = tuple(
    Endpoint(method, path, "trace", operation)
    for path in ("/v2/trace/setting", f"{_MODEL}/trace/setting")
    for method, operation in (("GET", "trace_setting"), ("POST", "change_trace_setting"))
)

ENDPOINTS: tuple[Endpoint, ...] = _SERVER + _MODELS + _REPOSITORIES + _SHARED_MEMORY + _TRACE + _SETTINGS
