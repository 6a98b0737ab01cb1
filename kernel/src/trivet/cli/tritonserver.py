"""Options of ``tritonserver`` that Trivet has no plugin for, each with what to do instead.

They are refused by name: an option that is dropped in silence leaves a server that is not what was asked for, and
"no such option" leaves its operator guessing. An installed plugin that defines one of them takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping

_PIP = "Trivet finds plugins as installed packages; leave it out, and see `trivet plugins` for what is there"
_HTTP = "no HTTP protocol is installed; pip install trivet-protocol-kserve-v2 trivet-transport-http"
_TRANSPORT = "no HTTP transport is installed; pip install trivet-transport-http"
_GRPC = "no gRPC protocol is installed; pip install trivet-protocol-kserve-v2"
_METRICS = "no exporter of metrics is installed; pip install trivet-exporter-prometheus"
_DEVICE_POOL = "no provider of memory for GPUs is installed; pip install trivet-memory-cuda, or leave it out"
_SAGEMAKER = "the SageMaker protocol is not there yet"
_VERTEX = "the Vertex AI protocol is not there yet"

# With a plugin that is part of `pip install trivet`, or an extra of that, these are there.
_OF_PLUGINS: Mapping[str, str] = {
    **dict.fromkeys(
        ("allow-http", "http-header-forward-pattern", "http-restricted-api", "http-thread-count"), _HTTP
    ),
    **dict.fromkeys(("http-address", "http-port", "metrics-address", "metrics-port", "reuse-http-port"), _TRANSPORT),
    **dict.fromkeys(
        (
            "allow-grpc", "grpc-address", "grpc-header-forward-pattern", "grpc-http2-max-ping-strikes",
            "grpc-http2-max-pings-without-data", "grpc-http2-min-recv-ping-interval-without-data",
            "grpc-infer-allocation-pool-size", "grpc-infer-response-compression-level", "grpc-infer-thread-count",
            "grpc-keepalive-permit-without-calls", "grpc-keepalive-time", "grpc-keepalive-timeout",
            "grpc-max-connection-age", "grpc-max-connection-age-grace", "grpc-port", "grpc-restricted-protocol",
            "grpc-root-cert", "grpc-server-cert", "grpc-server-key", "grpc-use-ssl", "grpc-use-ssl-mutual",
            "reuse-grpc-port",
        ),
        _GRPC,
    ),
    **dict.fromkeys(
        ("allow-cpu-metrics", "allow-gpu-metrics", "allow-metrics", "metrics-config", "metrics-interval-ms"), _METRICS
    ),
    **dict.fromkeys(("cuda-memory-pool-byte-size", "pinned-memory-pool-byte-size"), _DEVICE_POOL),
}  # fmt: skip

NOT_YET: Mapping[str, str] = {
    **_OF_PLUGINS,
    **dict.fromkeys(("backend-directory", "cache-directory", "repoagent-directory"), _PIP),
    **dict.fromkeys(
        ("allow-sagemaker", "sagemaker-port", "sagemaker-safe-port-range", "sagemaker-thread-count"), _SAGEMAKER
    ),
    **dict.fromkeys(
        ("allow-vertex-ai", "vertex-ai-default-model", "vertex-ai-port", "vertex-ai-thread-count"), _VERTEX
    ),
    "repository-poll-secs": "--model-control-mode=poll is not there yet; use explicit and `trivet models load NAME`",
    "model-namespacing": "model namespaces are not there yet; give models different names",
    "model-load-gpu-limit": "a limit on GPU memory while loading is not there yet",
    "enable-peer-access": "GPU peer access is left to the frameworks; leave it out",
    "min-supported-compute-capability": "which GPUs can be used is left to the frameworks; leave it out",
    "cuda-virtual-address-size": "Trivet reserves no virtual addresses on GPUs; leave it out",
    "buffer-manager-thread-count": "tensors are copied on the threads of instances; leave it out",
}


def refusal(name: str) -> str | None:
    """What to tell who gives ``--NAME``; ``None`` where tritonserver has no such option either."""
    reason = NOT_YET.get(name)
    return None if reason is None else f"--{name} is an option of tritonserver that Trivet does not offer: {reason}."
