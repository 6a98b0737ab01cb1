"""Options of ``tritonserver`` that Trivet has no plugin for, each with what to do instead.

They are refused by name: an option that is dropped in silence leaves a server that is not what was asked for, and
"no such option" leaves its operator guessing. An installed plugin that defines one of them takes it over.
"""

from __future__ import annotations

from collections.abc import Mapping

_PIP = "Trivet finds plugins as installed packages; leave it out, and see `trivet plugins` for what is there"
_METRICS = "metrics are not served yet; statistics are at /v2/models/stats"
_RESTRICTED = "restricting parts of the API is not there yet; put a proxy that checks the header before the server"
_FORWARD = "forwarding headers as request parameters is not there yet"
_REUSE = "sharing a port between servers is not there yet"
_SAGEMAKER = "the SageMaker protocol is not there yet"
_VERTEX = "the Vertex AI protocol is not there yet"
_POOL = "Trivet keeps no memory pool of its own; leave it out"
_DEVICE_POOL = "only servers with memory for GPUs have pools of it; pip install trivet-memory-cuda, or leave it out"
_THREADS = "Trivet's front end is one event loop; leave it out"

NOT_YET: Mapping[str, str] = {
    "allow-metrics": _METRICS,
    "allow-gpu-metrics": _METRICS,
    "allow-cpu-metrics": _METRICS,
    "metrics-address": _METRICS,
    "metrics-port": _METRICS,
    "metrics-interval-ms": _METRICS,
    "metrics-config": _METRICS,
    "cache-directory": _PIP,
    "repository-poll-secs": "--model-control-mode=poll is not there yet; use explicit and `trivet models load NAME`",
    "model-namespacing": "model namespaces are not there yet; give models different names",
    "enable-peer-access": "GPU peer access is left to the frameworks; leave it out",
    "allow-http": "no HTTP protocol is installed; pip install trivet-protocol-kserve-v2 trivet-transport-http",
    "http-address": "no HTTP transport is installed; pip install trivet-transport-http",
    "http-port": "no HTTP transport is installed; pip install trivet-transport-http",
    "reuse-http-port": _REUSE,
    "http-header-forward-pattern": _FORWARD,
    "http-thread-count": _THREADS,
    "http-restricted-api": _RESTRICTED,
    "allow-grpc": "no gRPC protocol is installed; pip install trivet-protocol-kserve-v2",
    "grpc-address": "no gRPC protocol is installed; pip install trivet-protocol-kserve-v2",
    "grpc-port": "no gRPC protocol is installed; pip install trivet-protocol-kserve-v2",
    "reuse-grpc-port": _REUSE,
    "grpc-header-forward-pattern": _FORWARD,
    "grpc-infer-allocation-pool-size": _POOL,
    "grpc-infer-thread-count": _THREADS,
    "grpc-restricted-protocol": _RESTRICTED,
    "grpc-infer-response-compression-level": "compressing gRPC responses is not there yet; leave it out",
    "grpc-max-connection-age": "limits on the age of a gRPC connection are not there yet",
    "grpc-max-connection-age-grace": "limits on the age of a gRPC connection are not there yet",
    "allow-sagemaker": _SAGEMAKER,
    "sagemaker-port": _SAGEMAKER,
    "sagemaker-safe-port-range": _SAGEMAKER,
    "sagemaker-thread-count": _SAGEMAKER,
    "allow-vertex-ai": _VERTEX,
    "vertex-ai-port": _VERTEX,
    "vertex-ai-thread-count": _VERTEX,
    "vertex-ai-default-model": _VERTEX,
    "backend-directory": _PIP,
    "repoagent-directory": _PIP,
    "pinned-memory-pool-byte-size": _DEVICE_POOL,
    "cuda-memory-pool-byte-size": _DEVICE_POOL,
    "cuda-virtual-address-size": _POOL,
    "min-supported-compute-capability": "which GPUs can be used is left to the frameworks; leave it out",
    "buffer-manager-thread-count": _POOL,
    "model-load-gpu-limit": "a limit on GPU memory while loading is not there yet",
}


def refusal(name: str) -> str | None:
    """What to tell who gives ``--NAME``; ``None`` where tritonserver has no such option either."""
    reason = NOT_YET.get(name)
    return None if reason is None else f"--{name} is an option of tritonserver that Trivet does not offer: {reason}."
