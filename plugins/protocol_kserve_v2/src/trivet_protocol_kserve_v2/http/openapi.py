"""The OpenAPI 3.1 document of the protocol over HTTP, served at ``v2/openapi.json``.

``python -m trivet_protocol_kserve_v2.http.openapi`` prints it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from trivet import __version__

from trivet_protocol_kserve_v2.http.endpoints import ENDPOINTS, Endpoint
from trivet_protocol_kserve_v2.http.openapi_schemas import SCHEMAS, reference

_JSON = "application/json"
_OCTETS = "application/octet-stream"
_EVENTS = "text/event-stream"
_PARAMETER = re.compile(r"{(\w+)}")
_HEADER_LENGTH = "Inference-Header-Content-Length"


class Operation(NamedTuple):
    """What an operation takes and gives. Schemas are named; "" means no body."""

    summary: str
    response: str = ""
    request: str = ""
    errors: tuple[int, ...] = ()


OPERATIONS: Mapping[str, Operation] = {
    "server_metadata": Operation("Name, version and extensions of the server", "ServerMetadata"),
    "openapi": Operation("This document"),
    "server_live": Operation("Whether the server is live", errors=(400,)),
    "server_ready": Operation("Whether the server and its models are ready", errors=(400,)),
    "model_metadata": Operation("Inputs and outputs of a model", "ModelMetadata", errors=(404, 503)),
    "model_ready": Operation("Whether a model is ready", errors=(400,)),
    "model_config": Operation("The configuration of a model", "ModelConfig", errors=(404, 503)),
    "statistics": Operation("Statistics of models since they were loaded", "Statistics", errors=(400,)),
    "infer": Operation("Run inference", "InferenceResponse", "InferenceRequest", (400, 404, 413, 429, 500, 501, 503)),
    "generate": Operation(
        "Run inference on plain JSON, for one response",
        "GenerateResponse",
        "GenerateRequest",
        (400, 404, 429, 500, 503),
    ),
    "generate_stream": Operation(
        "Run inference on plain JSON, for a stream of responses", "", "GenerateRequest", (400, 404, 429, 500, 503)
    ),
    "repository_index": Operation("The models in the repositories, with their state", "Index", "IndexRequest", (500,)),
    "load": Operation("Load or reload a model", "", "LoadRequest", (400, 500, 501, 503)),
    "unload": Operation("Unload a model", "", "UnloadRequest", (400, 500, 501, 503)),
    "system_shared_memory_status": Operation(
        "The registered regions of system shared memory", "SystemRegions", errors=(404,)
    ),
    "system_shared_memory_register": Operation(
        "Register a region of system shared memory", "", "SystemRegion", (400, 500, 503)
    ),
    "system_shared_memory_unregister": Operation("Unregister one region of system shared memory, or all"),
    "cuda_shared_memory_status": Operation(
        "The registered regions of CUDA shared memory", "CudaRegions", errors=(404,)
    ),
    "cuda_shared_memory_register": Operation(
        "Register a region of CUDA shared memory", "", "CudaRegion", (400, 500, 503)
    ),
    "cuda_shared_memory_unregister": Operation("Unregister one region of CUDA shared memory, or all"),
    "trace_setting": Operation("The trace settings", "TraceSettings", errors=(400,)),
    "change_trace_setting": Operation(
        "Change the trace settings", "TraceSettings", "NewTraceSettings", (400, 500, 501)
    ),
    "log_settings": Operation("Read or change the log settings", "LogSettings", errors=(500, 501, 503)),
}

_PARAMETERS: Mapping[str, str] = {
    "model": "Name of the model.",
    "version": "Version of the model, a number.",
    "repository": "Name of the repository. Only the index takes one, and disregards it.",
    "region": "Name of the shared memory region.",
}


def document() -> dict[str, Any]:
    """The whole document in plain values."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Trivet",
            "description": "KServe v2, the Open Inference Protocol, with Triton's extensions.",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation = OPERATIONS[endpoint.operation]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [endpoint.api],
        "responses": {
            "200": _success(endpoint.operation, operation),
            **{str(status): _failure() for status in operation.errors},
        },
    }
    if operation.errors == (501,):
        del described["responses"]["200"]
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS[name],
            "schema": {"type": "string", "pattern": "^[0-9]+$"} if name == "version" else {"type": "string"},
        }
        for name in _PARAMETER.findall(endpoint.path)
    ]
    if endpoint.operation == "infer":
        parameters.append(
            {
                "name": _HEADER_LENGTH,
                "in": "header",
                "description": "Bytes of JSON at the start of a body that goes on with binary tensor data.",
                "schema": {"type": "integer", "minimum": 0},
            }
        )
    if parameters:
        described["parameters"] = parameters
    if operation.request:
        content = {_JSON: {"schema": reference(operation.request)}}
        if endpoint.operation == "infer":
            content[_OCTETS] = {"schema": {}}
        described["requestBody"] = {"required": endpoint.api == "inference", "content": content}
    return described


def _success(name: str, operation: Operation) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "OK"}
    if operation.response:
        success["content"] = {_JSON: {"schema": reference(operation.response)}}
    elif name == "generate_stream":
        success["content"] = {
            _EVENTS: {
                "schema": {
                    "type": "string",
                    "description": "Server-sent events; the data of each is a GenerateResponse, or an Error.",
                }
            }
        }
    elif name == "openapi":
        success["content"] = {_JSON: {"schema": {"type": "object"}}}
    if name == "infer":
        success["content"][_OCTETS] = {"schema": {}}
        success["headers"] = {
            _HEADER_LENGTH: {
                "description": "Present where binary tensor data follows the JSON.",
                "schema": {"type": "integer"},
            }
        }
    return success


def _failure() -> dict[str, Any]:
    return {"description": "Error", "content": {_JSON: {"schema": reference("Error")}}}


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2)
    sys.stdout.write("\n")
